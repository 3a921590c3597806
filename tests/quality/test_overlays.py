from __future__ import annotations

import logging
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.images import decode_image, encode_png, resize_to_fit
from engine.quality.overlays import (
    PALETTE,
    draw_overlay,
    file_name,
    mask_colours,
    write_contact_sheet,
    write_overlays,
)
from engine.records import ImageRecord
from tests.quality.release_builders import (
    id_of,
    mask,
    photo,
    plan,
    random_rectangles,
    rectangle,
    release_of,
    write_photos,
    write_shards,
)


def test_an_overlay_changes_the_pixels_of_the_masks_and_no_others() -> None:
    image_HWC3 = photo(1)
    masks = [rectangle(10, 20, 30, 15), rectangle(60, 0, 20, 60)]
    drawn_HWC3 = draw_overlay(image_HWC3, masks)
    inside_HW = np.zeros((60, 80), dtype=np.bool_)
    inside_HW[20:35, 10:40] = inside_HW[:, 60:] = True
    assert drawn_HWC3[inside_HW].tolist() != image_HWC3[inside_HW].tolist()
    np.testing.assert_array_equal(drawn_HWC3[~inside_HW], image_HWC3[~inside_HW])
    np.testing.assert_array_equal(image_HWC3, photo(1), "the photo itself stays as it is")


def test_outlines_are_opaque_and_fills_are_blended() -> None:
    black_HWC3 = np.zeros((60, 80, 3), dtype=np.uint8)
    one = rectangle(10, 20, 30, 15)
    colour = np.array(PALETTE[mask_colours([one])[0]])
    drawn_HWC3 = draw_overlay(black_HWC3, [one], opacity=0.5)
    np.testing.assert_array_equal(drawn_HWC3[20, 10:40], np.tile(colour, (30, 1)))
    np.testing.assert_array_equal(drawn_HWC3[34, 39], colour)
    np.testing.assert_array_equal(drawn_HWC3[25, 20], colour // 2)


def test_a_mask_with_a_hole_is_drawn_with_the_hole() -> None:
    mask_HW = np.zeros((60, 80), dtype=np.bool_)
    mask_HW[10:50, 10:50] = True
    mask_HW[20:40, 20:40] = False
    drawn_HWC3 = draw_overlay(photo(3), [mask(mask_HW)])
    np.testing.assert_array_equal(drawn_HWC3[20:40, 20:40], photo(3)[20:40, 20:40])


def test_small_masks_lie_over_large_ones_whatever_the_order() -> None:
    small, large = rectangle(30, 30, 6, 6), rectangle(0, 0, 80, 60)
    one_way = draw_overlay(photo(0), [small, large])
    np.testing.assert_array_equal(one_way, draw_overlay(photo(0), [large, small]))
    assert not np.array_equal(one_way, draw_overlay(photo(0), [large]))


def test_under_a_small_mask_the_photo_shows_as_if_it_were_alone() -> None:
    large, small = rectangle(5, 5, 50, 50), rectangle(20, 20, 10, 10)
    photo_HWC3 = photo(1)
    drawn_HWC3 = draw_overlay(photo_HWC3, [large, small])
    colours = np.array(PALETTE)[mask_colours([large, small])]
    alpha = round(0.45 * 256)
    at = (25, 25)
    expected = (photo_HWC3[at].astype(int) * (256 - alpha) + colours[1] * alpha) >> 8
    np.testing.assert_array_equal(drawn_HWC3[at], expected)


def test_a_shrunk_photo_takes_the_masks_of_the_original() -> None:
    image_HWC3 = photo(2, 300, 451)
    mask_HW = np.zeros((300, 451), dtype=np.bool_)
    mask_HW[90:210, 100:301] = True
    tiny_HW = np.zeros((300, 451), dtype=np.bool_)
    tiny_HW[11, 401] = True
    small_HWC3 = resize_to_fit(image_HWC3, 100)
    drawn_HWC3 = draw_overlay(small_HWC3, [mask(mask_HW), mask(tiny_HW)])
    changed_HW = np.any(drawn_HWC3 != small_HWC3, axis=2)
    rows, columns = np.nonzero(changed_HW)
    big = columns < 80
    assert (columns[big].min(), rows[big].min()) == (22, 20)
    assert (columns[big].max(), rows[big].max()) == (66, 46)
    assert list(zip(rows[~big], columns[~big], strict=True)) == [(2, 89)], "not lost"


@pytest.mark.parametrize("shape", [(60, 81), (61, 80), (120, 160), (30, 80)])
def test_masks_of_another_photo_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(BadInputError, match="does not belong"):
        draw_overlay(photo(0, *shape), [rectangle(0, 0, 9, 9)])


def test_an_empty_mask_draws_nothing() -> None:
    nothing = mask(np.zeros((60, 80), dtype=np.bool_))
    np.testing.assert_array_equal(draw_overlay(photo(0), [nothing]), photo(0))
    small_HWC3 = resize_to_fit(photo(0), 7)
    np.testing.assert_array_equal(draw_overlay(small_HWC3, [nothing]), small_HWC3)


@pytest.mark.parametrize(
    ("image", "opacity"),
    [
        (np.zeros((4, 4), dtype=np.uint8), 0.5),
        (np.zeros((4, 4, 3), dtype=np.float32), 0.5),
        (np.zeros((4, 4, 3), dtype=np.uint8), 1.5),
    ],
)
def test_what_cannot_be_drawn_on_is_refused(image: np.ndarray, opacity: float) -> None:
    with pytest.raises(BadInputError, match="expected"):
        draw_overlay(image, [], opacity)


def test_neighbours_have_different_colours_and_strangers_do_not_matter() -> None:
    stripes = [rectangle(8 * i, 0, 8, 60) for i in range(10)]
    colours = mask_colours(stripes)
    assert all(a != b for a, b in pairwise(colours))
    assert max(colours) < len(PALETTE)
    assert mask_colours([stripes[0], stripes[5]]) == mask_colours([stripes[0]]) + mask_colours(
        [stripes[5]]
    )


def test_up_to_sixteen_masks_over_each_other_have_sixteen_colours() -> None:
    nested = [rectangle(i, i, 40 - i, 40 - i) for i in range(16)]
    assert sorted(mask_colours(nested)) == list(range(16))


def test_overlays_are_written_by_stem_and_id_and_missing_photos_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["a.png", "b.png", "c.png", "d.png"]
    write_photos(tmp_path / "photos", names)
    masks = {name: random_rectangles(i, 3) for i, name in enumerate(names[:3])}
    seen: list[ImageRecord] = []
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        ids = {name: id_of(workspace, name) for name in names}
        (tmp_path / "photos/b.png").unlink()
        (tmp_path / "photos/c.png").write_bytes(encode_png(photo(77)))
        with caplog.at_level(logging.WARNING):
            written = write_overlays(workspace, release, tmp_path / "out", on_image=seen.append)
    assert written == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"a-{ids['a.png']}.jpg"]
    assert len(seen) == 3, "progress counts what was left out"
    assert "no file" in caplog.text
    assert "has changed" in caplog.text
    picture_HWC3 = decode_image((tmp_path / f"out/a-{ids['a.png']}.jpg").read_bytes())
    expected_HWC3 = draw_overlay(photo(0), masks["a.png"])
    assert np.abs(picture_HWC3.astype(int) - expected_HWC3).mean() < 12


def test_overlays_can_be_chosen_limited_and_shrunk(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(5)]
    write_photos(tmp_path / "photos", names)
    masks = {name: random_rectangles(i, 2) for i, name in enumerate(names)}
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        chosen = [id_of(workspace, name) for name in ("3.png", "1.png", "4.png")]
        assert write_overlays(workspace, release, tmp_path / "a", chosen, max_side=40) == 3
        assert write_overlays(workspace, release, tmp_path / "b", chosen, max_images=2) == 2
        assert write_overlays(workspace, release, tmp_path / "c", max_images=4) == 4
        with pytest.raises(BadInputError, match="at least 1"):
            write_overlays(workspace, release, tmp_path / "d", max_images=0)
    assert {path.stem.partition("-")[0] for path in (tmp_path / "a").iterdir()} == {"1", "3", "4"}
    small = decode_image(next((tmp_path / "a").iterdir()).read_bytes())
    assert small.shape == (30, 40, 3)


def test_an_unfinished_run_gives_overlays_of_what_is_written(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(4)]
    write_photos(tmp_path / "photos", names)
    masks = {name: random_rectangles(i, 2) for i, name in enumerate(names)}
    with Workspace.open(tmp_path / "data") as workspace:
        run = plan(workspace, tmp_path / "photos")
        write_shards(workspace, replace(run, shards=run.shards[:1]), masks)
        assert write_overlays(workspace, run, tmp_path / "out") == 2
    written = {int(path.stem.rpartition("-")[2]) for path in (tmp_path / "out").iterdir()}
    assert written == set(run.shards[0].image_ids)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_contact_sheet_shows_photos_beside_themselves_with_masks(
    tmp_path: Path, suffix: str
) -> None:
    names = [f"{i}.png" for i in range(5)]
    write_photos(tmp_path / "photos", names)
    masks = {name: random_rectangles(i, 3) for i, name in enumerate(names)}
    path = tmp_path / f"sheet{suffix}"
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        (tmp_path / "photos/2.png").unlink()
        assert write_contact_sheet(workspace, release, path, columns=2, width_px=218) == path
    sheet_HWC3 = decode_image(path.read_bytes())
    # Two rows of two pairs of 50 x 37: four of them with three gaps of 6 fill the width.
    assert sheet_HWC3.shape[0] == 37 + 6 + 37
    assert 212 <= sheet_HWC3.shape[1] <= 218
    if suffix == ".png":
        left_hwC, right_hwC = sheet_HWC3[:37, :49], sheet_HWC3[:37, 55:104]
        assert not np.array_equal(left_hwC, right_hwC), "the second picture has masks"


def test_a_contact_sheet_without_any_photo_is_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", {"a.png": [rectangle(0, 0, 5, 5)]})
        with pytest.raises(BadInputError, match=r"\.jpg or \.png"):
            write_contact_sheet(workspace, release, tmp_path / "sheet.gif")
        (tmp_path / "photos/a.png").unlink()
        with pytest.raises(BadInputError, match="nothing to show"):
            write_contact_sheet(workspace, release, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/photos/a b.jpg", "a b.jpg"),
        ("https://example.org/x/cat.png?size=2", "cat.png"),
        ("/odd/what?.jpg", "what?.jpg"),
        ("s3://bucket/", "image"),
    ],
)
def test_file_names_of_addresses(uri: str, name: str) -> None:
    assert file_name(uri) == name
