from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from model import Prompts, Sam, SamConfig, build_sam
from model.export import DESCRIPTION_FILE, embedding_tensors, export_decoder
from tests.model.exported import Exported, as_stored, clicks, graph_points
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam

EXACT = 2e-5
SIZES = [(90, 120), (128, 128), (120, 37), (300, 200)]
POINTS = [(40.3, 30.0), (10.0, 20.5), (70.0, 8.0)]
BOX = (12.5, 10.0, 30.0, 28.0)


@pytest.fixture(scope="module", params=[SMALL_VIT, SMALL_COMPACT], ids=["vit", "compact"])
def sam(request: pytest.FixtureRequest) -> Sam:
    config: SamConfig = request.param
    return small_sam(config)


@pytest.fixture(scope="module")
def exported(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(sam, tmp_path_factory.mktemp("decoder"), half_weights=False)


@pytest.fixture(scope="module")
def bundled() -> Sam:
    return build_sam("bundled", device="cpu")


def prompts_of_kind(kind: str, low_res: tuple[int, int]) -> Prompts:
    count = {"point": 1, "points": 2, "negative": 3}.get(kind.split("+")[0], 0)
    labels = [1, 1, 1] if kind.startswith("points") else [1, 0, 0]
    points = [(x, y, label) for (x, y), label in zip(POINTS[:count], labels, strict=False)]
    prompts = clicks(*points, box=BOX if "box" in kind else None)
    if "mask" not in kind:
        return prompts
    logits = torch.randn(1, 1, *low_res, generator=torch.Generator().manual_seed(0)) * 4
    return dataclasses.replace(prompts, mask_logits=logits)


KINDS = [
    "point",
    "points",
    "negative",
    "box",
    "point+box",
    "negative+box",
    "point+mask",
    "box+mask",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_exported_decoder_answers_as_the_model_does(
    sam: Sam, exported: Exported, size: tuple[int, int], kind: str
) -> None:
    embedding = as_stored(sam.encode(random_image(*size)))
    height, width = (side // 4 for side in embedding.frame.padded_size)
    prompts = prompts_of_kind(kind, (height, width))
    scored = sam.score(embedding, prompts)
    wanted = sam.draw(scored).numpy()
    iou, logits = exported.answer(embedding, prompts)
    assert logits.shape == wanted.shape == (1, 4, height, width)
    assert iou.dtype == logits.dtype == np.float32
    assert np.abs(iou - scored.iou_N4.numpy()).max() < EXACT
    assert np.abs(logits - wanted).max() < EXACT * np.abs(wanted).max()


def test_points_at_the_edges_and_outside_of_the_image_are_answered_alike(
    sam: Sam, exported: Exported
) -> None:
    embedding = as_stored(sam.encode(random_image(90, 120)))
    for x, y in ((0.0, 0.0), (120.0, 90.0), (119.99, 0.0), (-30.0, 200.0)):
        prompts = clicks((x, y, 1), (50.0, 50.0, 0))
        wanted = sam.draw(sam.score(embedding, prompts)).numpy()
        _, logits = exported.answer(embedding, prompts)
        assert np.abs(logits - wanted).max() < EXACT * np.abs(wanted).max()


def test_without_a_mask_prompt_the_mask_is_not_even_read(sam: Sam, exported: Exported) -> None:
    embedding = sam.encode(random_image(90, 120))
    prepared = exported.prepare(embedding)
    points, labels = graph_points(embedding, prompts_of_kind("point", (0, 0)))
    wanted = exported.decode(prepared, points, labels)
    for mask in (np.full((1, 1, 32, 32), np.nan, np.float32), np.zeros((1, 1, 3, 7), np.float32)):
        got = exported.decode(prepared, points, labels, mask, has_mask=False)
        assert all(np.array_equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_a_mask_prompt_changes_the_answer(sam: Sam, exported: Exported) -> None:
    embedding = sam.encode(random_image(128, 128))
    plain = exported.answer(embedding, prompts_of_kind("point", (32, 32)))
    masked = exported.answer(embedding, prompts_of_kind("point+mask", (32, 32)))
    assert np.abs(plain[1] - masked[1]).max() > 100 * EXACT


def test_padding_points_are_not_looked_at(exported: Exported, sam: Sam) -> None:
    prepared = exported.prepare(sam.encode(random_image(90, 120)))
    labels = np.array([[1, -1]], np.float32)
    here, there = (
        exported.decode(prepared, np.array([[[40, 30], [x, x]]], np.float32), labels)
        for x in (0, 77)
    )
    assert all(np.array_equal(a, b) for a, b in zip(here, there, strict=True))


def test_the_bundled_model_answers_alike_and_its_files_are_small(
    bundled: Sam, tmp_path: Path
) -> None:
    exported = Exported(bundled, tmp_path, half_weights=True)
    assert exported.files.decode.bytes < 2_000_000
    assert exported.files.prepare.bytes < 100_000
    embedding = as_stored(bundled.encode(random_image(240, 320)))
    low_res = tuple(side // 4 for side in embedding.frame.padded_size)
    for kind in ("point", "negative+box", "point+mask"):
        prompts = prompts_of_kind(kind, (low_res[0], low_res[1]))
        scored = bundled.score(embedding, prompts)
        wanted = bundled.draw(scored).numpy()
        iou, logits = exported.answer(embedding, prompts)
        assert np.abs(iou - scored.iou_N4.numpy()).max() < EXACT
        assert np.abs(logits - wanted).max() < EXACT * np.abs(wanted).max()


def test_half_weights_change_hardly_a_pixel(tmp_path: Path) -> None:
    sam = small_sam(SMALL_VIT)
    whole = Exported(sam, tmp_path / "whole", half_weights=False)
    half = Exported(sam, tmp_path / "half", half_weights=True)
    assert half.files.decode.bytes < 0.6 * whole.files.decode.bytes
    embedding = sam.encode(random_image(128, 128))
    union = both = 0
    for x in range(8, 128, 16):
        prompts = clicks((x, 64.0, 1))
        a, b = (decoder.answer(embedding, prompts)[1] > 0 for decoder in (whole, half))
        union, both = union + int((a | b).sum()), both + int((a & b).sum())
    assert union > 1000
    assert both / union > 0.999


def test_the_description_says_what_was_written(sam: Sam, tmp_path: Path) -> None:
    described = export_decoder(sam, tmp_path)
    fields = json.loads((tmp_path / DESCRIPTION_FILE).read_text())
    assert fields["model_id"] == sam.model_id()
    assert fields["image_size"] == sam.config.image_size
    assert fields["pad_multiple"] == sam.config.pad_multiple
    assert fields["low_res_stride"] == 4
    for part, file in (("prepare", described.prepare), ("decode", described.decode)):
        data = (tmp_path / file.name).read_bytes()
        assert fields["files"][part] == {
            "name": file.name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
        }
    tensors = embedding_tensors(sam.encode(random_image(90, 120)).features)
    assert [item["name"] for item in fields["inputs"]] == list(tensors)
    for item, tensor in zip(fields["inputs"], tensors.values(), strict=True):
        assert tensor.dtype == torch.float16
        assert [s for s in item["shape"] if s is not None] == list(tensor.shape[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [DESCRIPTION_FILE, described.prepare.name, described.decode.name]
    )


def test_the_same_weights_give_the_same_files_and_others_give_others(tmp_path: Path) -> None:
    first, again, other = (
        export_decoder(small_sam(SMALL_COMPACT, seed=seed), tmp_path / name)
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert first == again
    assert other.decode.name != first.decode.name
