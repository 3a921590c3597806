"""Scenes are reproducible, their masks visible, and parts lie in what they are parts of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset.scenes.canvas import MIN_MASK_PX, Canvas
from engine.dataset.scenes.drawing import FAMILIES, SyntheticScene, draw_scene
from engine.dataset.scenes.shapes import OUTLINES, place_shape, tessellate
from engine.dataset.scenes.textures import random_texture, smooth_noise
from engine.errors import BadInputError


def check_scene(scene: SyntheticScene, height: int, width: int) -> None:
    assert scene.image_HWC3.shape == (height, width, 3)
    assert scene.image_HWC3.dtype == np.uint8
    assert scene.masks_NHW.shape[1:] == (height, width)
    assert scene.masks_NHW.dtype == np.bool_
    assert 3 <= len(scene.masks_NHW) <= 120
    areas = scene.masks_NHW.sum((1, 2))
    assert areas.min() >= MIN_MASK_PX
    flat = scene.masks_NHW.reshape(len(areas), -1).astype(np.float32)
    overlap = flat @ flat.T
    smaller = np.minimum(areas[:, None], areas)
    assert np.all((overlap == 0) | (overlap == smaller)), "masks that cross each other"
    twins = (overlap == areas[:, None]) & (overlap == areas)
    assert twins.sum() == len(areas), "the same mask twice"


@given(
    height=st.integers(48, 150),
    width=st.integers(48, 150),
    seed=st.integers(0, 2**32),
    family=st.sampled_from([None, *FAMILIES]),
)
@settings(max_examples=40)
def test_masks_of_any_scene_are_visible_and_disjoint_or_nested(
    height: int, width: int, seed: int, family: str | None
) -> None:
    scene = draw_scene(np.random.default_rng(seed), height, width, family)
    check_scene(scene, height, width)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_generator_gives_the_same_scene_and_goes_on_to_another(family: str) -> None:
    one, two = np.random.default_rng(7), np.random.default_rng(7)
    a, b = draw_scene(one, 96, 128, family), draw_scene(two, 96, 128, family)
    c = draw_scene(one, 96, 128, family)
    assert np.array_equal(a.image_HWC3, b.image_HWC3)
    assert np.array_equal(a.masks_NHW, b.masks_NHW)
    assert not np.array_equal(a.image_HWC3, c.image_HWC3)


@pytest.mark.parametrize("family", FAMILIES)
def test_most_masks_can_be_seen_in_the_picture(family: str) -> None:
    """The edges of masks lie on edges of the picture more than elsewhere."""
    on_edges, elsewhere = [], []
    for seed in range(12):
        scene = draw_scene(np.random.default_rng(seed), 128, 128, family)
        image = scene.image_HWC3.astype(np.float32)
        step = np.abs(image[:, 2:] - image[:, :-2]).max(2)[:, 1:]
        edge = (scene.masks_NHW[:, :, 2:-1] != scene.masks_NHW[:, :, 1:-2]).any(0)
        on_edges.append(step[edge].mean())
        elsewhere.append(step[~edge].mean())
    assert np.mean(np.array(on_edges) > 1.2 * np.array(elsewhere)) >= 0.75


@pytest.mark.parametrize(("height", "width"), [(47, 100), (100, 47), (100, 2049)])
def test_a_size_out_of_range_is_refused(height: int, width: int) -> None:
    with pytest.raises(BadInputError, match=f"{height} x {width}"):
        draw_scene(np.random.default_rng(0), height, width)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInputError, match="microscopy"):
        draw_scene(np.random.default_rng(0), 64, 64, "bacteria")


def full(height: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    coverage = np.zeros((height, width), dtype=np.float32)
    coverage[rows, columns] = 1
    return coverage


def test_a_later_thing_hides_earlier_ones_and_a_part_stays_inside_its_parent() -> None:
    canvas = Canvas.of(np.zeros((40, 40, 3), dtype=np.float32))
    everywhere = (slice(0, 40), slice(0, 40))
    white, red = np.full(3, 255, np.float32), np.array([255, 0, 0], np.float32)
    house = canvas.paint(everywhere, full(40, 40, slice(0, 20), slice(0, 20)), white)
    canvas.paint(everywhere, full(40, 40, slice(10, 20), slice(10, 30)), red, parent=house)
    canvas.paint(everywhere, full(40, 40, slice(0, 20), slice(15, 25)), white)
    house_mask, door_mask, tree_mask = canvas.masks()
    assert np.array_equal(np.argwhere(house_mask).max(0), [19, 14])
    assert house_mask.sum() == 20 * 15
    assert door_mask.sum() == 10 * 5
    assert np.all(house_mask[door_mask])
    assert tree_mask.sum() == 20 * 10
    assert canvas.image_HW3[12, 28].tolist() == [0, 0, 0], "the door shows outside the house"


def test_small_remains_and_a_part_that_fills_its_parent_are_no_masks() -> None:
    canvas = Canvas.of(np.zeros((40, 40, 3), dtype=np.float32))
    everywhere, white = (slice(0, 40), slice(0, 40)), np.full(3, 255, np.float32)
    thing = canvas.paint(everywhere, full(40, 40, slice(0, 10), slice(0, 10)), white)
    canvas.paint(everywhere, full(40, 40, slice(0, 10), slice(0, 10)), white, parent=thing)
    canvas.paint(everywhere, full(40, 40, slice(20, 25), slice(0, 5)), white)
    (only,) = canvas.masks()
    assert only.sum() == 100


@pytest.mark.parametrize("outline", OUTLINES, ids=lambda outline: str(outline.__name__))
def test_an_outline_stays_within_its_radius(outline: object) -> None:
    chosen = next(kind for kind in OUTLINES if kind is outline)
    for seed in range(20):
        random = np.random.default_rng(seed)
        shape = place_shape(random, (100.0, 100.0), 40.0, (200, 200), (chosen,))
        rows, columns = np.nonzero(shape.distance_hw < 0)
        assert len(rows) > MIN_MASK_PX
        far = np.hypot(rows + shape.window[0].start - 100, columns + shape.window[1].start - 100)
        assert far.max() <= 40 * 1.3 + 1


def test_regions_are_nearest_to_their_sites_and_the_distance_is_that_to_the_border() -> None:
    y, x = np.mgrid[:60, :80]
    straight = 0
    for seed in range(60):
        pieces = tessellate(np.random.default_rng(seed), 60, 80, 9)
        site_y, site_x = pieces.sites_N2.T
        square = (y[..., None] - site_y) ** 2 + (x[..., None] - site_x) ** 2
        assert pieces.to_border_HW.min() >= 0
        if np.mean(square.argmin(2) == pieces.region_HW) < 0.999:
            continue  # stretched, or with wavy borders
        straight += 1
        edge = pieces.region_HW[:, 1:] != pieces.region_HW[:, :-1]
        assert pieces.to_border_HW[:, 1:][edge].mean() <= 0.8
        nearest, second = np.sort(square, axis=2)[..., :2].transpose(2, 0, 1)
        # No point of the border can be nearer than half of the difference of the distances.
        at_least = (np.sqrt(second) - np.sqrt(nearest)) / 2
        assert np.mean(pieces.to_border_HW >= at_least - 1) > 0.99
    assert straight >= 3


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    scale_px=st.floats(1, 300),
    seed=st.integers(),
)
@settings(max_examples=40)
def test_noise_of_any_size_and_scale_is_finite(
    height: int, width: int, scale_px: float, seed: int
) -> None:
    noise = smooth_noise(np.random.default_rng(abs(seed)), height, width, scale_px)
    assert noise.shape == (height, width)
    assert noise.dtype == np.float32
    assert np.isfinite(noise).all()


@pytest.mark.parametrize("scale_px", [1, 2, 6, 16])
def test_noise_has_spread_one_and_is_smoother_at_a_larger_scale(scale_px: float) -> None:
    noise = smooth_noise(np.random.default_rng(1), 400, 400, scale_px)
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(noise, axis=0)).mean() < 1.8 / scale_px


def test_textures_are_finite_and_neither_bright_nor_dark_on_average() -> None:
    random = np.random.default_rng(2)
    textures = np.stack([random_texture(random, 33, 47) for _ in range(100)])
    assert textures.shape == (100, 33, 47)
    assert textures.dtype == np.float32
    assert np.abs(textures).max() < 8
    assert abs(textures.mean()) < 0.2
