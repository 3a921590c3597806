"""The box proposer: a detector on the model's features, its files and its versions."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine.errors import BadInputError, WorkspaceError
from engine.learning.proposer import (
    Proposer,
    ProposerConfig,
    build_detector,
    feature_channels,
    packed_features,
    square_features,
)
from engine.learning.proposer_data import agreed_masks, box_iou, box_recall
from engine.learning.proposer_file import (
    ProposerHeader,
    read_header,
    read_proposer,
    save_proposer,
)
from engine.learning.proposer_registry import (
    find_proposer,
    list_proposers,
    load_proposer,
    newest_proposer,
    register_proposer,
)
from engine.learning.proposer_training import ProposerRecipe, ProposerResult
from engine.learning.training_data import open_data
from engine.objects import LocalStore
from model import Sam
from tests.dataset.coco_builders import write_coco
from tests.evaluation.labelled_builders import labelled_mask, labelled_set, rectangle
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TINY = ProposerConfig(
    side_px=64, width=16, feed_forward=16, heads=2, decoder_layers=1, queries=8, denoising=4
)


@pytest.fixture(scope="module")
def sam() -> Sam:
    return small_sam(SMALL_COMPACT)


@pytest.fixture(scope="module")
def detector(sam: Sam) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = build_detector(TINY, feature_channels(sam))
    return built


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "workspace")


class KnownShares(nn.Module):
    """A detector that answers the same to everything: centres and sizes in shares of its input."""

    def __init__(self, *shares: tuple[float, float, float, float]) -> None:
        super().__init__()
        self.shares = shares

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        logits = torch.arange(len(self.shares), dtype=torch.float32)
        return SimpleNamespace(
            logits=logits[None, :, None], pred_boxes=torch.tensor(self.shares)[None]
        )


def test_a_detector_reads_the_models_own_features_at_three_strides(
    sam: Sam, detector: nn.Module
) -> None:
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    features = sam.image_encoder(pixels)
    packed = packed_features(features)
    torch.testing.assert_close(square_features(sam, pixels), packed)
    levels = detector.get_submodule("model.backbone")(packed, torch.ones(2, 64, 64))
    maps = [level for level, _ in levels]
    assert [tuple(one.shape[1:]) for one in maps] == [
        (channels, 64 // stride, 64 // stride)
        for channels, stride in zip(feature_channels(sam), (8, 16, 32), strict=True)
    ]
    torch.testing.assert_close(maps[1], features.coarse_BCHW)
    fine = torch.cat([f for f in features.fine_BCHW if f.shape[-1] == 8], dim=1)
    torch.testing.assert_close(maps[0][:, sam.config.dim :], fine)


def test_a_plain_vit_lends_its_features_too() -> None:
    vit = small_sam(SMALL_VIT)
    channels = feature_channels(vit)
    assert channels == (vit.config.dim,) * 3
    proposer = Proposer(
        build_detector(replace(TINY, side_px=None), channels), vit, replace(TINY, side_px=None)
    )
    boxes_N4, scores_N = proposer.boxes(random_image(80, 50))
    assert boxes_N4.shape == (TINY.queries, 4)
    assert scores_N.shape == (TINY.queries,)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (30, 60), (100, 50), (7, 640)])
def test_boxes_come_in_pixels_of_the_image_best_first_and_inside_it(
    sam: Sam, height: int, width: int
) -> None:
    # Of the square, the photo fills the part at its upper left.
    right, bottom = width / max(height, width), height / max(height, width)
    shares = KnownShares(
        (right / 2, bottom / 2, right, bottom),
        (right / 4, bottom / 4, right / 2, bottom / 2),
        (0.9, 0.9, 0.5, 0.5),
    )
    boxes_N4, scores_N = Proposer(shares, sam, TINY).boxes(random_image(height, width))
    assert (np.diff(scores_N) < 0).all()
    rounding = max(height, width) / 64
    np.testing.assert_allclose(boxes_N4[1], [0, 0, width / 2, height / 2], atol=rounding)
    np.testing.assert_allclose(boxes_N4[2], [0, 0, width, height], atol=rounding)
    assert (boxes_N4 >= 0).all()
    assert (boxes_N4 <= [width, height, width, height]).all()


def test_the_same_image_gives_the_same_boxes(sam: Sam, detector: nn.Module) -> None:
    proposer = Proposer(detector, sam, TINY)
    first, second = (proposer.boxes(random_image(40, 60)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


def test_sizes_that_do_not_fit_are_refused(sam: Sam) -> None:
    with pytest.raises(BadInputError, match="8 x heads"):
        ProposerConfig(width=20)
    with pytest.raises(BadInputError, match="multiple of 32"):
        ProposerConfig(side_px=100).side(sam)
    with pytest.raises(BadInputError, match="multiple of 128"):
        ProposerConfig(side_px=64).side(small_sam(SMALL_VIT))
    assert ProposerConfig().side(sam) == sam.config.image_size


def test_without_transformers_the_error_says_what_to_install(
    sam: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BadInputError, match=r"pip install 'maskwheel\[proposer\]'"):
        build_detector(TINY, feature_channels(sam))


def test_a_file_brings_the_proposer_back(sam: Sam, detector: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "proposer.safetensors"
    save_proposer(detector, TINY, sam.model_id(), path)
    assert read_header(path) == ProposerHeader(config=TINY, model_id=sam.model_id())
    before = torch.random.get_rng_state()
    loaded = read_proposer(path, sam, "p1")
    assert torch.equal(torch.random.get_rng_state(), before)
    image = random_image(50, 70)
    known = Proposer(detector, sam, TINY).boxes(image)
    np.testing.assert_array_equal(loaded.boxes(image)[0], known[0])
    assert loaded.name == "p1"


def test_a_proposer_of_another_model_is_refused(
    sam: Sam, detector: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "proposer.safetensors"
    save_proposer(detector, TINY, sam.model_id(), path)
    with pytest.raises(BadInputError, match="features of small_compact"):
        read_proposer(path, small_sam(SMALL_COMPACT, seed=1))


def test_files_that_are_no_proposers_are_refused(sam: Sam, tmp_path: Path) -> None:
    path = tmp_path / "proposer.safetensors"
    with pytest.raises(BadInputError, match="no box proposer"):
        read_proposer(path, sam)
    path.write_bytes(b"not weights")
    with pytest.raises(BadInputError, match="no box proposer"):
        read_proposer(path, sam)


def test_boxes_overlap_as_counted_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 9]], dtype=np.float64)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30]], dtype=np.float64)
    np.testing.assert_allclose(box_iou(a, b), np.array([[50 / 150, 0.0], [0.0, 0.0]]))


def test_recall_counts_masks_whose_box_was_found(tmp_path: Path) -> None:
    masks = [labelled_mask(rectangle(10, 10, 40, 40)), labelled_mask(rectangle(100, 20, 60, 60))]
    data = labelled_set(tmp_path, [masks])

    class Half:
        name = "half"

        def boxes(self, image: object) -> tuple[np.ndarray, np.ndarray]:
            return np.array([[10.0, 10, 50, 50], [0, 0, 5, 5]]), np.array([0.9, 0.8], np.float32)

    found = box_recall(Half(), [data], count=5)
    assert found["AR@5"] == found["recall@5 at IoU .50"] == found["recall@5 at IoU .75"] == 0.5


def test_only_masks_that_people_agree_on_are_learnt_where_there_are_such(tmp_path: Path) -> None:
    alone, agreed = labelled_mask(rectangle(0, 0, 9, 9)), labelled_mask(rectangle(0, 0, 20, 20), 3)
    data = labelled_set(tmp_path, [[alone, agreed], [alone]])
    kept = agreed_masks(data, min_votes=2)
    assert (kept[0].masks, kept[1].masks) == ((agreed,), (alone,))
    assert len(kept) == 2
    assert agreed_masks(data, min_votes=1) is data


@pytest.fixture
def result(sam: Sam, detector: nn.Module, tmp_path: Path) -> ProposerResult:
    weights = tmp_path / "proposer.safetensors"
    save_proposer(detector, TINY, sam.model_id(), weights)
    return ProposerResult(
        proposer=Proposer(detector, sam, TINY),
        weights=weights,
        recipe=ProposerRecipe(detector=TINY),
        steps=5,
        resumed_at=0,
        skipped=(),
        metrics={"AR@50": 0.25},
    )


def test_a_version_is_kept_found_and_loaded(
    store: LocalStore, result: ProposerResult, sam: Sam, tmp_path: Path
) -> None:
    data = open_data([str(write_coco(tmp_path / "set", 1))], None)
    version = register_proposer(store, result, data, now=NOW)
    assert (version.name, version.model_id) == ("p1", sam.model_id())
    assert version.metrics == {"AR@50": 0.25}
    assert version.trained_on == (data[0].identity,)
    assert register_proposer(store, result, data, now=NOW) == version
    assert list_proposers(store) == [version] == [find_proposer(store, "p1")]
    assert newest_proposer(store, sam.model_id()) == version
    image = random_image(50, 70)
    np.testing.assert_array_equal(
        load_proposer(store, version, sam).boxes(image)[0], result.proposer.boxes(image)[0]
    )


def test_a_new_training_is_a_new_version(
    store: LocalStore, result: ProposerResult, tmp_path: Path, sam: Sam
) -> None:
    data = open_data([str(write_coco(tmp_path / "set", 1))], None)
    register_proposer(store, result, data, now=NOW)
    torch.manual_seed(1)
    other = build_detector(TINY, feature_channels(sam))
    save_proposer(other, TINY, sam.model_id(), result.weights)
    second = register_proposer(store, result, data, now=NOW)
    assert second.name == "p2"
    assert newest_proposer(store, sam.model_id()) == second


def test_weights_of_a_killed_writer_take_no_name_from_others(
    store: LocalStore, result: ProposerResult, tmp_path: Path
) -> None:
    data = open_data([str(write_coco(tmp_path / "set", 1))], None)
    store.put_if_absent("proposers/p1/weights.safetensors", b"somebody else's")
    assert register_proposer(store, result, data, now=NOW).name == "p2"


def test_changed_weights_are_not_loaded(
    store: LocalStore, result: ProposerResult, sam: Sam, tmp_path: Path
) -> None:
    data = open_data([str(write_coco(tmp_path / "set", 1))], None)
    version = register_proposer(store, result, data, now=NOW)
    with pytest.raises(WorkspaceError, match="tampered"):
        load_proposer(store, replace(version, sha256="0" * 64), sam)


def test_what_is_not_there_is_said(store: LocalStore, sam: Sam) -> None:
    with pytest.raises(BadInputError, match="has none"):
        find_proposer(store, "p1")
    with pytest.raises(BadInputError, match="recipe proposer"):
        newest_proposer(store, sam.model_id())
