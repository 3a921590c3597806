"""What a model makes of an image, in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from engine.annotation.coverage import (
    GridPrompts,
    covered_share,
    disagreement,
    measure_image,
    pooled_embedding,
    uncertainty,
)
from engine.annotation.steadiness import mirrored_mask
from engine.automatic import AutomaticConfig, generate_masks
from engine.masks import encode_mask
from engine.records import MaskRecord, Rle
from model import Sam, build_sam
from model.types import ImageEmbedding, ImageFeatures
from tests.model.small_models import random_image

HEIGHT, WIDTH = 20, 30


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled", device="cpu")


def rectangle(x0: int, y0: int, x1: int, y1: int) -> Rle:
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return encode_mask(mask_HW)


def record(rle: Rle, iou: float = 0.8) -> MaskRecord:
    return MaskRecord(
        rle=rle,
        bbox_xywh=(0, 0, 1, 1),
        area=1,
        predicted_iou=iou,
        stability_score=1.0,
        crop_box_xywh=(0, 0, WIDTH, HEIGHT),
    )


def test_uncertainty_is_what_predicted_ious_lack() -> None:
    whole = rectangle(0, 0, 5, 5)
    assert uncertainty([record(whole, 0.9), record(whole, 0.7)]) == pytest.approx(0.2)
    assert uncertainty([record(whole, 1.3)]) == 0  # SAM's may exceed 1
    assert uncertainty([]) == 1


def test_the_covered_share_counts_a_pixel_once() -> None:
    left, middle = record(rectangle(0, 0, 15, 20)), record(rectangle(10, 0, 20, 20))
    assert covered_share([left, middle], HEIGHT, WIDTH) == pytest.approx(20 / 30)
    assert covered_share([], HEIGHT, WIDTH) == 0


def test_the_same_answers_agree_and_strangers_do_not() -> None:
    a, b = rectangle(0, 0, 10, 10), rectangle(15, 5, 25, 15)
    assert disagreement([a, b], [b, a]) == 0
    assert disagreement([a], [b]) == 1
    assert disagreement([a], []) == disagreement([], [a]) == 1
    assert disagreement([], []) == 0


def test_a_missing_mask_counts_by_the_root_of_its_area() -> None:
    large, small = rectangle(0, 0, 10, 10), rectangle(20, 0, 25, 5)
    without_small = disagreement([large, small], [large])
    assert without_small == disagreement([large], [large, small])
    assert without_small == pytest.approx(5 / (10 + 5 + 10))


def test_one_encoding_serves_the_vector_and_the_masks(sam: Sam) -> None:
    image = random_image(64, 48)
    grid = GridPrompts(points_per_side=3)
    seen = measure_image(sam, image, {"uncertain", "uncovered", "diverse"}, grid)
    masks = generate_masks(sam, image, AutomaticConfig.recommended(sam, points_per_side=3))
    assert masks
    assert seen.uncertainty == uncertainty(masks)
    assert seen.uncovered == 1 - covered_share(masks, 64, 48)
    assert seen.disagreement is None
    assert seen.vector_D is not None
    np.testing.assert_array_equal(seen.vector_D, pooled_embedding(sam.encode(image)))


def test_only_what_is_asked_for_is_measured(sam: Sam) -> None:
    seen = measure_image(sam, random_image(48, 64), {"diverse"}, GridPrompts())
    assert (seen.uncertainty, seen.uncovered, seen.disagreement) == (None, None, None)


def test_a_mirrored_image_gives_its_masks_back_where_they_were(sam: Sam) -> None:
    # An image that is its own mirror image: the answers to both are the same, seen from two sides.
    half = random_image(64, 32)
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    grid = GridPrompts(points_per_side=4)
    seen = measure_image(sam, image, {"disagreement"}, grid)
    masks = generate_masks(sam, image, grid.settings(sam))
    assert masks
    mirrored = [mirrored_mask(mask.rle) for mask in masks]
    assert seen.disagreement == pytest.approx(disagreement([m.rle for m in masks], mirrored))


def test_a_pooled_embedding_leaves_the_padding_out(sam: Sam) -> None:
    embedding = sam.encode(random_image(64, 100))
    assert embedding.frame.input_size != embedding.frame.padded_size
    coarse = embedding.features.coarse_BCHW.clone()
    rows = round(coarse.shape[2] * embedding.frame.input_size[0] / embedding.frame.padded_size[0])
    coarse[:, :, rows:] = 1e6
    spoilt = ImageEmbedding(ImageFeatures(coarse, embedding.features.fine_BCHW), embedding.frame)
    np.testing.assert_array_equal(pooled_embedding(spoilt), pooled_embedding(embedding))
    assert len(pooled_embedding(embedding)) == 2 * sam.config.dim
