"""A compiled model gives the masks of the model as it is written."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from engine.automatic import AutomaticConfig, generate_masks, generator
from model import Prompts, Sam, SamConfig, build_sam
from model.compiling import compile_parts
from model.image_encoder import VitConfig
from tests.automatic.oracle_segmenter import paint_scene
from tests.automatic.segmenters import small_vit_sam

CONFIG = AutomaticConfig(
    points_per_side=3, points_per_batch=6, pred_iou_thresh=0.3, stability_score_thresh=0.3
)
IMAGE_HWC3 = paint_scene(seed=0, height=97, width=143, n_shapes=9)


def test_compiled_parts_are_whole_and_the_same_for_all_blocks() -> None:
    torch.manual_seed(0)
    encoder = VitConfig(width=32, depth=6, heads=2, global_blocks=(2, 5))
    sam = Sam(SamConfig(name="small", encoder=encoder, image_size=256)).eval()
    names, points = list(sam.state_dict()), np.full((2, 1, 2), 50.0)
    prompts = Prompts(points_xy=points, point_labels=np.ones((2, 1), dtype=np.int64))
    plain = sam.predict(sam.encode(IMAGE_HWC3), prompts)
    torch._dynamo.reset()
    counters.clear()
    assert compile_parts(sam, backend="eager")
    compiled = sam.predict(sam.encode(IMAGE_HWC3), prompts)
    for field in ("iou_NM", "low_res_logits_NMhw"):
        torch.testing.assert_close(getattr(compiled, field), getattr(plain, field))
    assert list(sam.state_dict()) == names
    # One graph each for windowed and for global blocks, the transformer and the upscaling.
    assert counters["stats"]["unique_graphs"] == 4
    assert not counters["graph_break"]
    copied = copy.deepcopy(sam)
    for weight in sam.mask_decoder.parameters():
        weight.data.zero_()
    again = copied.predict(copied.encode(IMAGE_HWC3), prompts)  # with its own weights
    torch.testing.assert_close(again.low_res_logits_NMhw, plain.low_res_logits_NMhw)


def test_a_model_whose_input_follows_the_image_is_left_as_it_is() -> None:
    assert not compile_parts(build_sam("bundled", device="cpu"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch of itself
def test_the_compilers_code_gives_the_same_masks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(generator, "measures_on", lambda device: True)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    sam = small_vit_sam()
    plain = generate_masks(sam, IMAGE_HWC3, CONFIG)
    assert plain
    torch._dynamo.reset()
    assert compile_parts(sam)
    compiled = generate_masks(sam, IMAGE_HWC3, CONFIG)
    assert [m.rle for m in compiled] == [m.rle for m in plain]
    for mask, other in zip(compiled, plain, strict=True):
        assert mask.predicted_iou == pytest.approx(other.predicted_iou, abs=1e-5)
    assert generate_masks(sam, IMAGE_HWC3, CONFIG) == compiled
    assert list(tmp_path.iterdir())
