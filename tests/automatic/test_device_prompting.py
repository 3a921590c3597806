"""The path for accelerators, run on the processor, finds what the other path finds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic import (
    AutomaticConfig,
    Segmenter,
    crop_encoding,
    device_prompting,
    generate_masks,
    generator,
)
from model import ImageEmbedding, Prompts, ScoredPrompts
from tests.automatic.oracle_segmenter import OracleScene
from tests.automatic.segmenters import OracleSegmenter

ON_DEVICE = "measures_on"
CONFIGS = {
    "one crop": AutomaticConfig(points_per_side=7, points_per_batch=16),
    "crops, small regions": AutomaticConfig(
        points_per_side=6,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=30,
        stability_score_thresh=0.8,
        pred_iou_thresh=0.5,
    ),
    "everything passes": AutomaticConfig(
        points_per_side=4, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
    ),
    "nothing passes": AutomaticConfig(points_per_side=3, pred_iou_thresh=1.9),
    "crops without points": AutomaticConfig(
        points_per_side=2, crop_n_layers=2, crop_n_points_downscale_factor=2
    ),
}


@pytest.fixture
def as_if_on_a_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(generator, ON_DEVICE, lambda device: True)


@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_those_of_the_processors_path(
    name: str, as_if_on_a_device: Callable[[], None]
) -> None:
    scene = OracleScene(seed=3, height=97, width=143)
    sam, image = OracleSegmenter(scene), scene.image_HWC3
    here = generate_masks(sam, image, CONFIGS[name])
    assert bool(here) == (name != "nothing passes")
    as_if_on_a_device()
    assert generate_masks(sam, image, CONFIGS[name]) == here


@dataclass
class Watched:
    """A model that notes the order and the sizes of what it is asked."""

    sam: Segmenter
    asked: list[tuple[str, int]] = field(default_factory=list)

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        return self.sam.encode(image_HWC3)

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        self.asked.append(("score", len(prompts)))
        return self.sam.score(embedding, prompts)

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        self.asked.append(("draw", len(chosen)))
        return self.sam.draw(scored, chosen)


def test_the_next_batch_is_asked_for_before_the_last_one_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = OracleScene(seed=3, height=97, width=143)
    watched = Watched(OracleSegmenter(scene))
    embedding = watched.encode(scene.image_HWC3)
    monkeypatch.setattr(device_prompting, "_SAM_EMBEDDING", 1)  # the oracle's is empty
    monkeypatch.setattr(device_prompting, "_PROMPTS_DRAWN_AT_ONCE", 4)
    config = AutomaticConfig(points_per_batch=8, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    points = np.random.default_rng(0).random((18, 2)) * 90
    found = device_prompting.prompt_on_device(watched, embedding, points, config)
    assert [name for name, _ in watched.asked] == (
        ["score", "score", "draw", "draw", "score", "draw", "draw", "draw"]
    )
    assert {size for name, size in watched.asked if name == "score"} == {8}
    assert {size for name, size in watched.asked if name == "draw"} == {4}
    assert {mask.prompt for mask in found} <= set(range(18))
    assert len({(mask.prompt, float(mask.predicted_iou)) for mask in found}) == len(found)


@dataclass
class Together(Watched):
    """A model that also encodes several crops at once."""

    batches: list[int] = field(default_factory=list)

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        self.batches.append(1)
        return super().encode(image_HWC3)

    def encode_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[ImageEmbedding]:
        self.batches.append(len(images))
        return [self.sam.encode(image) for image in images]


def test_crops_are_encoded_together_where_a_device_has_room_and_else_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = OracleScene(seed=3, height=97, width=143)
    config = AutomaticConfig(points_per_side=4, crop_n_layers=2, crop_n_points_downscale_factor=2)
    one_by_one = Together(OracleSegmenter(scene))
    masks = generate_masks(one_by_one, scene.image_HWC3, config)
    assert one_by_one.batches == [1] * 21
    monkeypatch.setattr(crop_encoding, "_crops_at_once", lambda device: 8)
    together = Together(OracleSegmenter(scene))
    assert generate_masks(together, scene.image_HWC3, config) == masks
    assert together.batches == [1, 8, 8, 4]
