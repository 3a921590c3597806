"""The truth of simulated people, read from COCO files, and the book of their calls."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from engine.annotation.client_connection import Call
from engine.annotation.simulation.latencies import DECODE_ROUTE, LatencyBook
from engine.annotation.simulation.truth import Truth
from engine.errors import BadInputError
from engine.images import content_id
from engine.masks import decode_mask, encode_mask, mask_area
from tests.annotation.simulated_photos import write_photos


def test_images_are_known_by_their_content(tmp_path: Path) -> None:
    files = write_photos(tmp_path, 2)
    truth = Truth.load(tmp_path / "annotations.json")
    assert len(truth) == 2
    for file in files:
        image_id, _ = content_id(file)
        assert image_id in truth
        areas = [mask_area(rle) for rle in truth.seen_by(0, image_id)]
        assert len(areas) == 3
        assert areas == sorted(areas, reverse=True)


def test_photos_that_are_missing_are_left_out_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_photos(tmp_path, 2)
    (tmp_path / "images" / "000.png").unlink()
    with caplog.at_level(logging.WARNING):
        assert len(Truth.load(tmp_path / "annotations.json")) == 1
    assert "no truth for" in caplog.text
    (tmp_path / "images" / "001.png").unlink()
    with pytest.raises(BadInputError, match="none of the 2 photos"):
        Truth.load(tmp_path / "annotations.json")


def test_two_drawings_of_one_object_are_seen_once(tmp_path: Path) -> None:
    (file,) = write_photos(tmp_path, 1)
    coco = json.loads((tmp_path / "annotations.json").read_text())
    first = coco["annotations"][0]
    truth = Truth.load(tmp_path / "annotations.json")
    mask_HW = decode_mask(truth.drawn_by_anybody(content_id(file)[0])[0])
    mask_HW[:, :-1] |= mask_HW[:, 1:]
    rle = encode_mask(mask_HW)
    again = {**first, "id": 99, "area": mask_area(rle)}
    again["segmentation"] = {"size": [rle.height, rle.width], "counts": rle.counts}
    coco["annotations"].append(again)
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    truth = Truth.load(tmp_path / "annotations.json")
    image_id, _ = content_id(file)
    assert len(truth.drawn_by_anybody(image_id)) == 4
    assert len(truth.seen_by(0, image_id)) == 3


def test_calls_are_summed_up_by_route_and_decodes_apart() -> None:
    book = LatencyBook()
    for milliseconds in range(1, 101):
        book.add(Call("GET /a", 200, milliseconds / 1000))
    book.add(Call("GET /a", 503, 9.0))
    book.add(Call("GET /a", None, 9.0))
    book.add(Call(DECODE_ROUTE, 200, 5.0))
    first, second = book.routes()
    assert (first.route, first.calls, first.failed) == ("GET /a", 100, 2)
    assert first.failures == {"503": 1, "none": 1}
    assert first.p50_ms == pytest.approx(50.5)
    assert first.p95_ms == pytest.approx(95, abs=0.5)
    assert first.slowest_ms == pytest.approx(100)
    assert second.route == DECODE_ROUTE
    api = book.api()
    assert api.calls == 100
    assert api.slowest_ms == pytest.approx(100)
    nothing = LatencyBook().api()
    assert (nothing.calls, nothing.p95_ms) == (0, None)
