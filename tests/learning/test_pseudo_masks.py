"""Regions of hierarchies fit together, things with clear borders are found, files can be read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.dataset.labelled_sets import CocoMasks
from engine.errors import BadInputError
from engine.images import encode_png
from engine.learning.pseudo_masks import (
    PseudoMaskConfig,
    main,
    superpixel_hierarchy,
    write_pseudo_labels,
)
from engine.learning.region_hierarchy import MergeWeights, merge_regions
from engine.masks import decode_mask, encode_mask, mask_area, mask_box_xyxy, mask_iou


def picture(
    height: int = 90, width: int = 120
) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """A disc with a square in it, and a bar, on a noisy ground: the image and their masks."""
    y, x = np.mgrid[:height, :width]
    disc = np.hypot(y - 45, x - 40) < 28
    square = (abs(y - 45) < 10) & (abs(x - 40) < 10)
    bar = (abs(x - 100) < 8) & (y > 15) & (y < 80)
    image = np.full((height, width, 3), (60, 110, 60), dtype=np.float64)
    for mask, colour in ((disc, (200, 60, 50)), (square, (230, 140, 60)), (bar, (90, 90, 220))):
        image[mask] = colour
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), [disc, square, bar]


def blocks(height: int, width: int, side: int) -> NDArray[np.intp]:
    y, x = np.mgrid[:height, :width]
    return np.asarray((y // side) * -(-width // side) + x // side, dtype=np.intp)


def test_things_with_clear_borders_are_found_exactly_and_the_whole_with_its_part() -> None:
    image, things = picture()
    masks = superpixel_hierarchy(image, PseudoMaskConfig(), np.random.default_rng(0))
    found = mask_iou([mask.rle for mask in masks], [encode_mask(thing) for thing in things])
    assert np.all(found.max(0) > 0.9)
    assert len(masks) <= 8


def test_the_same_seed_gives_the_same_masks() -> None:
    image, _ = picture()
    one, two = (
        superpixel_hierarchy(image, PseudoMaskConfig(), np.random.default_rng(5)) for _ in range(2)
    )
    assert one == two


def test_every_mask_is_measured_in_the_pixels_of_the_image() -> None:
    image, things = picture()
    config = PseudoMaskConfig(max_side_px=75, min_superpixel_px=10, min_width_px=1)
    masks = superpixel_hierarchy(image, config, np.random.default_rng(0))
    assert masks
    for mask in masks:
        assert (mask.rle.height, mask.rle.width) == image.shape[:2]
        assert mask.area == mask_area(mask.rle)
        x0, y0, x1, y1 = mask_box_xyxy(mask.rle) or (0, 0, 0, 0)
        assert mask.bbox_xywh == (x0, y0, x1 - x0 + 1, y1 - y0 + 1)
        assert mask.votes == 1
    found = mask_iou([mask.rle for mask in masks], [encode_mask(thing) for thing in things])
    assert np.all(found.max(0) > 0.75)


def test_no_two_masks_are_the_same_and_all_have_usable_sizes() -> None:
    image, _ = picture()
    config = PseudoMaskConfig(agreement=1, min_area_share=0.01, max_area_share=0.5, same_iou=0.6)
    masks = superpixel_hierarchy(image, config, np.random.default_rng(0))
    ious = mask_iou([mask.rle for mask in masks], [mask.rle for mask in masks])
    assert np.all(ious[~np.eye(len(masks), dtype=bool)] < 0.6)
    shares = np.array([mask.area for mask in masks]) / (90 * 120)
    assert shares.min() >= 0.01
    assert shares.max() <= 0.5


def test_more_agreement_means_fewer_masks() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    counts = [
        len(
            superpixel_hierarchy(
                noise, PseudoMaskConfig(agreement=agreement), np.random.default_rng(0)
            )
        )
        for agreement in (1, 4)
    ]
    assert counts[1] < counts[0]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 2), (7, 9)])
def test_an_image_without_structure_has_no_masks(size: tuple[int, int]) -> None:
    plain = np.full((*size, 3), 90, dtype=np.uint8)
    assert superpixel_hierarchy(plain, PseudoMaskConfig(), np.random.default_rng(0)) == ()


@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    side=st.integers(2, 9),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=40)
def test_any_two_regions_of_a_hierarchy_are_disjoint_or_nested(
    height: int, width: int, side: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    superpixels = blocks(height, width, side)
    tree = merge_regions(image, superpixels, MergeWeights())
    count = int(superpixels.max()) + 1
    assert len(tree.first_M) == 2 * count - 1
    masks = np.stack([tree.mask(region) for region in range(len(tree.first_M))])
    areas = masks.sum((1, 2))
    assert np.array_equal(areas, tree.area_M)
    assert np.array_equal(masks[:count], superpixels == np.arange(count)[:, None, None])
    assert masks[-1].all()
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    overlap = flat @ flat.T
    assert np.all((overlap == 0) | (overlap == np.minimum(areas[:, None], areas)))
    others = np.arange(len(masks))
    for region in range(len(masks)):
        iou = overlap[region] / (areas[region] + areas - overlap[region])
        assert np.allclose(tree.nested_iou(region, others), iou)
        held = (overlap[region] == areas) & (areas < areas[region])
        assert np.all(tree.separation_M[held] <= tree.separation_M[region])
    assert np.isinf(tree.separation_M[-1])
    assert np.all((tree.contrast_M >= 0) & (tree.contrast_M <= 1))
    assert np.all((tree.frame_share_M >= 0) & (tree.frame_share_M <= 1))
    assert tree.frame_share_M[-1] == 1


def test_contrast_width_and_frame_share_are_those_of_the_outline() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    image[:20] = 255
    tree = merge_regions(image, (blocks(40, 40, 20) // 2).astype(np.intp), MergeWeights())
    # Two halves: each has 20 px on two sides and 40 px on one side of the frame, 40 px shared.
    assert tree.frame_share_M[:2] == pytest.approx([80 / 120, 80 / 120])
    assert tree.width_M[:2] == pytest.approx([2 * 800 / 120, 2 * 800 / 120])
    assert tree.contrast_M[0] == tree.contrast_M[1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"agreement": 5},
        {"agreement": 0},
        {"scales": ()},
        {"same_iou": 0.0},
        {"min_area_share": 0.5, "max_area_share": 0.4},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(BadInputError, match="expected"):
        PseudoMaskConfig(**wrong)  # type: ignore[arg-type]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_bytes(encode_png(picture()[0]))
    (folder / "more" / "b.png").write_bytes(encode_png(np.rot90(picture()[0])))
    (folder / "cut.png").write_bytes(encode_png(picture()[0])[:500])
    (folder / "plain.png").write_bytes(encode_png(np.full((30, 30, 3), 7, dtype=np.uint8)))
    return folder


@pytest.mark.parametrize("photos_beside", [False, True])
def test_the_command_writes_a_set_that_training_reads(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, photos_beside: bool
) -> None:
    if photos_beside:  # the usual layout of a COCO set
        (tmp_path / "labels").mkdir()
        photos = photos.rename(tmp_path / "labels" / "images")
    with caplog.at_level(logging.INFO):
        main(["--images", str(photos), "--out", str(tmp_path / "labels")])
    data = CocoMasks.load(tmp_path / "labels" / "annotations.json")
    assert [Path(image.uri).name for image in data.images] == ["a.png", "b.png"]
    for image in data.images:
        assert image.read().shape == (image.height, image.width, 3)
        assert len(image.masks) >= 3
        for mask in image.masks:
            assert decode_mask(mask.rle).sum() == mask.area
    assert "cut.png is left out" in caplog.text


def test_a_photo_has_the_same_masks_in_any_company(photos: Path, tmp_path: Path) -> None:
    alone, together = tmp_path / "alone" / "x.json", tmp_path / "together" / "x.json"
    a, b = photos / "a.png", photos / "more" / "b.png"
    seen: list[tuple[str, int]] = []
    write_pseudo_labels([b], alone)
    total = write_pseudo_labels([a, b], together, on_image=lambda p, n: seen.append((p.name, n)))
    assert CocoMasks.load(alone).images[0].masks == CocoMasks.load(together).images[1].masks
    assert (
        sum(count for _, count in seen)
        == total
        == len(json.loads(together.read_text())["annotations"])
    )


def test_photos_without_any_region_are_refused_and_nothing_is_written(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "labels.json"
    with pytest.raises(BadInputError, match="none of 1"):
        write_pseudo_labels([photos / "plain.png"], out)
    assert not out.exists()


@pytest.mark.slow
def test_half_of_the_masks_of_real_photos_are_what_people_marked(data_pack: Path) -> None:
    data = CocoMasks.load(data_pack / "bsds500_trainval" / "annotations.json", split="train")
    right, found = [], []
    for image in data.images[::140][:2]:
        masks = superpixel_hierarchy(image.read(), PseudoMaskConfig(), np.random.default_rng(0))
        people = [mask.rle for mask in image.masks]
        ious = mask_iou([mask.rle for mask in masks], people)
        right.append(float((ious.max(1) >= 0.5).mean()))
        found.append(float(ious.max(0)[[mask.votes >= 2 for mask in image.masks]].mean()))
    assert np.mean(right) > 0.35
    assert np.mean(found) > 0.55
