"""COCO's average precision through pycocotools: cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import BadInputError, InvalidMaskError
from engine.masks import JudgedMask, average_precision, encode_mask
from engine.records import Rle


def square(x: int, side: int, width: int | None = None) -> Rle:
    mask = np.zeros((200, 300), dtype=bool)
    mask[10 : 10 + side, x : x + (width or side)] = True
    return encode_mask(mask)


WANTED = [
    JudgedMask(0, 1, square(10, 20)),
    JudgedMask(0, 1, square(100, 20)),
    JudgedMask(7, 2, square(10, 50)),
    JudgedMask(7, 2, square(100, 120)),
]


def test_finding_exactly_what_is_wanted_has_ap_1(capsys: pytest.CaptureFixture[str]) -> None:
    scores = average_precision(WANTED, WANTED)
    assert scores.ap == scores.ap50 == scores.ap75 == pytest.approx(1)
    assert [scores.small, scores.medium, scores.large] == pytest.approx([1, 1, 1])
    assert capsys.readouterr().out == ""


def test_a_mask_at_iou_70_counts_at_half_of_the_thresholds() -> None:
    wanted = [JudgedMask(0, 1, square(10, 20))]
    found = [JudgedMask(0, 1, square(10, 20, width=14))]  # IoU .70, not .75
    scores = average_precision(wanted, found)
    assert [scores.ap50, scores.ap75, scores.ap] == pytest.approx([1, 0, 0.5])


def test_a_confident_wrong_mask_costs_half_the_precision_an_unsure_one_nothing() -> None:
    wanted = [JudgedMask(0, 1, square(10, 20))]
    right, wrong = square(10, 20), square(150, 20)
    sure = [JudgedMask(0, 1, right, 0.5), JudgedMask(0, 1, wrong, 0.9)]
    unsure = [JudgedMask(0, 1, right, 0.5), JudgedMask(0, 1, wrong, 0.1)]
    assert average_precision(wanted, sure).ap == pytest.approx(0.5)
    assert average_precision(wanted, unsure).ap == pytest.approx(1)


def test_masks_of_another_category_or_image_do_not_match() -> None:
    for image, category in ((0, 2), (7, 1), (99, 1)):
        found = [JudgedMask(image, category, square(10, 20))]
        assert average_precision(WANTED[:1] + WANTED[2:], found).ap == 0


def test_ap_is_the_mean_over_categories() -> None:
    assert average_precision(WANTED, WANTED[:2]).ap == pytest.approx(0.5)


def test_more_than_100_masks_of_an_image_count() -> None:
    wanted = [JudgedMask(0, 1, square(2 * x, 2)) for x in range(140)]
    assert average_precision(wanted, wanted).ap == pytest.approx(1)


def test_the_given_area_decides_the_size() -> None:
    wanted = [JudgedMask(0, 1, square(10, 20), area=100_000.0)]
    scores = average_precision(wanted, wanted)
    assert (scores.small, scores.medium) == (None, None)
    assert scores.large == pytest.approx(1)


def test_nothing_found_has_ap_0_and_nothing_wanted_is_an_error() -> None:
    scores = average_precision(WANTED, [])
    assert (scores.ap, scores.ap50, scores.large) == (0, 0, 0)
    with pytest.raises(BadInputError, match="at least one wanted mask"):
        average_precision([], WANTED)


def test_a_damaged_mask_is_named_as_one() -> None:
    with pytest.raises(InvalidMaskError):
        average_precision(WANTED, [JudgedMask(0, 1, Rle(200, 300, "!!"))])
