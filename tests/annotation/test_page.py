"""The page in Chromium against the real service: what people do, and what the database has then."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser

from engine.annotation.records import FinishedTask, MaskObject
from engine.annotation.submissions import finished_tasks
from engine.masks import decode_mask, encode_mask
from engine.records import Rle
from tests.annotation.annotation_page import AnnotationPage, opened
from tests.annotation.service import Service, running_service

HEIGHT, WIDTH = 120, 160
IMAGES = 32  # who hands one in is given the next: two for everybody, and more
PEOPLE = [f"annotator-{i}" for i in range(12)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Many scenes, each with one proposal: a box of 50 x 30 pixels."""
    box = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    box[30:60, 40:90] = True
    proposal = MaskObject(object_id="p1", rle=encode_mask(box), proposal=True, predicted_iou=0.9)
    with running_service(
        tmp_path_factory.mktemp("service"),
        model="bundled",
        images=IMAGES,
        stage="semi",
        people=dict.fromkeys(PEOPLE, "annotator"),
        proposals={position: [proposal] for position in range(IMAGES)},
    ) as running:
        yield running


@pytest.fixture(scope="module")
def names() -> Iterator[str]:
    """Somebody new for every test: nobody's lease is in the way of another's."""
    return itertools.chain(PEOPLE)


@pytest.fixture
def page(chromium: Browser, service: Service, names: Iterator[str]) -> Iterator[AnnotationPage]:
    with opened(chromium, service, next(names)) as page:
        yield page


def finished(service: Service, page: AnnotationPage) -> FinishedTask:
    with service.database() as db:
        found = [
            task
            for task in finished_tasks(db, service.campaign.campaign_id)
            if task.submission.annotator == page.name
        ]
    assert len(found) == 1
    return found[0]


def mask_of(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    height, width = rle["size"]
    return decode_mask(Rle(height, width, rle["counts"]))


def current(page: AnnotationPage) -> NDArray[np.bool_]:
    return mask_of(page.state()["current"]["rle"])


def test_what_is_painted_is_what_is_stored_to_the_pixel(
    page: AnnotationPage, service: Service
) -> None:
    page.click_at(100, 20)
    page.press("Enter")
    page.drag((100, 80), (150, 115))
    page.press("Enter", "b")
    page.drag((20, 90), (60, 100), (80, 90))
    page.press("b", "e")
    page.drag((40, 80), (40, 110))
    page.press("e", "Enter")
    objects = page.state()["objects"]
    painted = page.painted(HEIGHT, WIDTH)
    page.find("exhaustive").check()
    page.submitted()
    assert len(objects) == 4
    np.testing.assert_array_equal(
        painted, np.logical_or.reduce([mask_of(each["rle"]) for each in objects])
    )
    submission = finished(service, page).submission
    stored = {each.mask.object_id: each for each in submission.objects}
    assert set(stored) == {each["id"] for each in objects}
    for each in objects:
        rle = stored[each["id"]].mask.rle
        assert rle == Rle(HEIGHT, WIDTH, each["rle"]["counts"])
        assert rle == encode_mask(decode_mask(rle))  # byte for byte what pycocotools writes
    assert [stored[each["id"]].made for each in objects] == ["kept", "new", "new", "new"]
    assert submission.exhaustive
    assert submission.active_seconds > 0


def test_clicks_boxes_candidates_and_undo_change_the_mask_as_they_should(
    page: AnnotationPage,
) -> None:
    page.click_at(110, 90)
    first = current(page)
    assert page.state()["candidates"] == 3
    page.press("2")
    assert not np.array_equal(current(page), first)
    page.press("1")
    np.testing.assert_array_equal(current(page), first)
    page.click_at(20, 110, button="right")
    prompts = page.state()["current"]["prompts"]
    assert [(each["kind"], each["label"]) for each in prompts] == [("point", 1), ("point", 0)]
    assert not current(page)[110, 20]
    page.press("Control+z")
    np.testing.assert_array_equal(current(page), first)
    page.press("Control+z", "Control+z", "Control+z")  # the two choices, then the click
    assert page.state()["current"] is None
    page.press("Control+Shift+z")
    np.testing.assert_array_equal(current(page), first)
    page.press("Escape")
    page.drag((95, 70), (150, 110))
    (box,) = page.state()["current"]["prompts"]
    assert box["kind"] == "box"
    np.testing.assert_allclose(
        [box["x0"], box["y0"], box["x1"], box["y1"]], [95, 70, 150, 110], atol=0.5
    )


def test_brush_and_eraser_paint_discs_and_undo_takes_back_one_stroke(page: AnnotationPage) -> None:
    page.press("b")
    page.drag((30, 90), (70, 90))
    brushed = current(page)
    radius = page.state()["current"]["prompts"][0]["radius"]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = np.hypot(y - 90, x - np.clip(x, 30, 70))
    assert brushed[distance < radius - 1].all()
    assert not brushed[distance > radius + 1].any()
    page.press("b", "e")
    page.drag((50, 70), (50, 110))
    erased = current(page)
    assert not erased[90, 50]
    assert erased.sum() < brushed.sum()
    page.press("Control+z")
    np.testing.assert_array_equal(current(page), brushed)


def test_a_proposal_is_corrected_by_a_click_and_recorded_as_corrected(
    page: AnnotationPage, service: Service
) -> None:
    before = mask_of(page.state()["objects"][0]["rle"])
    page.page.mouse.move(*page.place(60, 45))
    page.press("v")
    page.click_at(85, 55, button="right")
    page.press("Enter")
    (kept,) = page.state()["objects"]
    assert kept["id"] == "p1"
    assert not np.array_equal(mask_of(kept["rle"]), before)
    page.submitted()
    (stored,) = finished(service, page).submission.objects
    assert (stored.mask.object_id, stored.made) == ("p1", "corrected")
    assert stored.mask.rle.counts == kept["rle"]["counts"]


def test_a_deleted_proposal_is_recorded_as_deleted(page: AnnotationPage, service: Service) -> None:
    page.page.mouse.move(*page.place(60, 45))
    page.press("Delete")
    assert page.state()["deleted"] == ["p1"]
    page.click_at(120, 100)
    page.press("Enter")
    page.submitted()
    submission = finished(service, page).submission
    assert [each.mask.object_id for each in submission.deleted] == ["p1"]
    assert [each.made for each in submission.objects] == ["new"]


def test_a_reload_in_the_middle_of_a_mask_loses_nothing(page: AnnotationPage) -> None:
    page.click_at(110, 90)
    page.press("Enter")
    page.click_at(20, 20)
    before = page.state()
    page.saved()
    page.page.reload()
    page.ready()
    page.wait("count => window.maskwheel.state().objects.length === count", 2)
    page.settle()
    after = page.state()
    for name in ("objects", "deleted", "exhaustive"):
        assert after[name] == before[name]
    assert after["current"]["rle"] == before["current"]["rle"]
    assert after["current"]["prompts"] == before["current"]["prompts"]


def test_work_goes_on_without_a_network_and_arrives_when_it_is_back(
    page: AnnotationPage, service: Service
) -> None:
    page.decoder_ready()
    page.page.context.set_offline(True)
    page.click_at(110, 90)
    page.press("Enter")
    objects = page.state()["objects"]
    assert len(objects) == 2
    page.find("submit").click()
    with page.page.expect_response(
        lambda answer: answer.url.endswith("/submit") and answer.ok, timeout=120_000
    ):
        page.page.context.set_offline(False)
    stored = finished(service, page).submission.objects
    assert [each.mask.rle.counts for each in stored] == [each["rle"]["counts"] for each in objects]


def test_a_service_that_dies_and_comes_back_has_what_was_done_meanwhile(
    page: AnnotationPage, service: Service
) -> None:
    page.decoder_ready()
    service.kill()
    page.click_at(110, 90)
    page.press("Enter")
    objects = page.state()["objects"]
    service.start()
    page.submitted()
    stored = finished(service, page).submission.objects
    assert [each.mask.rle.counts for each in stored] == [each["rle"]["counts"] for each in objects]


def test_two_people_at_once_get_two_images(
    chromium: Browser, service: Service, page: AnnotationPage, names: Iterator[str]
) -> None:
    with opened(chromium, service, next(names)) as other:
        page.click_at(110, 90)
        other.click_at(20, 20)
        page.press("Enter")
        other.press("Enter")
        page.submitted()
        other.submitted()
        mine, theirs = finished(service, page), finished(service, other)
    assert mine.image_id != theirs.image_id
    assert mine.submission.annotator != theirs.submission.annotator
    assert {each.made for each in mine.submission.objects} == {"kept", "new"}


def test_the_server_answers_where_the_browser_is_not_wanted(
    chromium: Browser, service: Service, names: Iterator[str]
) -> None:
    with opened(chromium, service, next(names), decoder="server") as page:
        page.click_at(110, 90)
        assert page.state()["current"]["decoder"] == "server"
        assert current(page)[90, 110]


def test_everything_has_a_key_and_a_sheet_says_which(page: AnnotationPage) -> None:
    page.find("canvas").focus()
    page.press("?")
    assert "Undo" in page.find("help-sheet").inner_text()
    page.press("Escape")
    page.find("canvas").focus()
    page.press("ArrowRight", "ArrowDown", "f")
    page.wait("() => window.maskwheel.state().current?.rle.counts.length > 0")
    page.press("Enter")
    assert len(page.state()["objects"]) == 2
    page.press("x")
    assert page.state()["exhaustive"]
