from __future__ import annotations

import logging
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.images import decode_image, encode_png
from engine.quality.agreement import WorstPair
from engine.quality.small_pictures import evenly, histogram, in_rows, overlay_sheet, small_jpeg
from engine.quality.worst_pairs import draw_disagreement, worst_pairs_sheet
from tests.quality.release_builders import (
    id_of,
    photo,
    random_rectangles,
    rectangle,
    release_of,
    write_photos,
)

NAMES = ["a.png", "b.png", "c.png", "d.png", "e.png"]


def noise(height: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(3)
    return draw.integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_sheet_shows_the_photos_with_their_masks_and_names_them(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", NAMES)
    with Workspace.open(str(tmp_path / "data")) as workspace:
        release = release_of(
            workspace, tmp_path / "photos", {name: random_rectangles(1, 4) for name in NAMES}
        )
        sheet = overlay_sheet(workspace, release)
        assert sheet is not None
        assert sheet == overlay_sheet(workspace, release), "always the same one"
        assert sorted(sheet.caption.split(", ")) == [f"{name} (4)" for name in NAMES]
        two = [id_of(workspace, "d.png"), id_of(workspace, "a.png")]
        fewer = overlay_sheet(workspace, release, image_ids=two)
    assert fewer is not None
    assert fewer.caption == "d.png (4), a.png (4)"
    assert decode_image(sheet.data).shape[2] == 3


def test_a_photo_that_is_gone_is_left_out_and_a_sheet_of_none_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(tmp_path / "photos", ["a.png", "b.png"])
    with Workspace.open(str(tmp_path / "data")) as workspace:
        masks = {"a.png": [rectangle(1, 1, 5, 5)], "b.png": [rectangle(1, 1, 5, 5)]}
        release = release_of(workspace, tmp_path / "photos", masks)
        (tmp_path / "photos" / "a.png").unlink()
        with caplog.at_level(logging.WARNING):
            sheet = overlay_sheet(workspace, release)
        assert sheet is not None
        assert sheet.caption == "b.png (1)"
        assert "a.png" in caplog.text
        (tmp_path / "photos" / "b.png").unlink()
        assert overlay_sheet(workspace, release) is None


def test_a_sheet_of_noise_keeps_to_its_bytes() -> None:
    data = small_jpeg(noise(700, 1000), 60_000)
    assert len(data) <= 60_000
    assert min(decode_image(data).shape[:2]) > 100
    assert len(small_jpeg(noise(700, 1000), 3_000)) <= 3_000
    with pytest.raises(BadInputError, match="no picture fits into 100 bytes"):
        small_jpeg(noise(700, 1000), 100)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 9])
def test_rows_fill_the_width_and_crop_nothing(count: int) -> None:
    shapes = [(300, 450), (450, 300), (320, 320)]
    pictures = [np.full((*shapes[i % 3], 3), 40 + 20 * i, dtype=np.uint8) for i in range(count)]
    sheet_HWC3 = in_rows(pictures, 600)
    assert sheet_HWC3.shape[1] <= 600
    if count >= 3:
        assert sheet_HWC3.shape[1] >= 590, "no row is left half empty"
    for i in range(count):
        shown = np.all(sheet_HWC3 == 40 + 20 * i, axis=2)
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert width / height == pytest.approx(shapes[i % 3][1] / shapes[i % 3][0], rel=0.05)


def test_a_sample_is_spread_evenly() -> None:
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly([3, 4], 5) == [3, 4]
    assert evenly([], 5) == []


def test_a_histogram_is_a_picture_of_its_own() -> None:
    chart = histogram(np.array([3, 3, 4, 90]), "Masks <per> photo", "photos")
    root = ElementTree.fromstring(chart.data)  # noqa: S314 - our own
    assert chart.media_type == "image/svg+xml"
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert any("median 3.5" in (text.text or "") for text in root.iter())
    nothing = histogram(np.array([], dtype=np.int64), "Masks", "photos")
    assert ElementTree.fromstring(nothing.data) is not None  # noqa: S314


def worst_pair(path: Path, iou: float = 0.5) -> WorstPair:
    return WorstPair(
        image_id=1,
        uri=str(path),
        source="automatic",
        model_id="m",
        iou=iou,
        made=rectangle(100, 100, 40, 40, 400, 600).rle,
        human=rectangle(120, 100, 40, 40, 400, 600).rle,
    )


def test_a_disagreement_is_cut_out_and_shows_who_took_what(tmp_path: Path) -> None:
    black_HWC3 = np.zeros((400, 600, 3), dtype=np.uint8)
    drawn_HWC3 = draw_disagreement(black_HWC3, worst_pair(tmp_path / "a.png"))
    assert drawn_HWC3.shape == (240, 240, 3), "the object with what is around it"
    colours, counts = np.unique(drawn_HWC3.reshape(-1, 3), axis=0, return_counts=True)
    areas = {
        tuple(int(v) for v in colour): int(n) for colour, n in zip(colours, counts, strict=True)
    }
    assert areas.pop((0, 0, 0)) == 240 * 240 - 60 * 40
    only_model, only_person, both = (132, 66, 11), (22, 60, 137), (27, 104, 49)
    assert areas == {only_model: 20 * 40, only_person: 20 * 40, both: 20 * 40}


def test_the_worst_pairs_stand_on_a_sheet_and_lost_photos_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(photo(1, 400, 600)))
    (tmp_path / "small.png").write_bytes(encode_png(photo(1)))
    pairs = [
        worst_pair(tmp_path / "gone.png", 0.51),
        worst_pair(tmp_path / "small.png", 0.52),
        worst_pair(tmp_path / "a.png", 0.53),
    ]
    with caplog.at_level(logging.WARNING):
        sheet = worst_pairs_sheet(pairs)
    assert sheet is not None
    assert sheet.caption == "a.png (IoU 0.53)"
    assert "gone.png" in caplog.text
    assert "small.png" in caplog.text
    assert worst_pairs_sheet(pairs[:2]) is None
