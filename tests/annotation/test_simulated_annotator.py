"""Simulated annotators at a decoder in this process: what they prompt, keep, correct and delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from engine.annotation.client_values import ReviewedObject, SubmissionToReview, TaskLease
from engine.annotation.records import (
    BoxPrompt,
    DraftContent,
    MaskObject,
    PointPrompt,
    StrokePrompt,
    Verdict,
)
from engine.annotation.simulation.annotator import SimulatedAnnotator, TaskOutcome
from engine.annotation.simulation.mask_making import SKILLS, Skill
from engine.annotation.simulation.page import SimulatedPage
from engine.annotation.simulation.reviewer import SimulatedReviewer
from engine.annotation.simulation.timing import Pace, SimulatedClock, Timing
from engine.annotation.simulation.truth import Truth
from engine.errors import BadInputError
from engine.masks import decode_mask, encode_mask, mask_iou
from tests.annotation.simulated_scene import (
    DISCS,
    FRAME,
    DiscDecoder,
    NotingService,
    disc,
    scene_lease,
    scene_masks,
    scene_truth,
)

PERFECT = SKILLS["perfect"]


def annotate(
    service: NotingService,
    decoder: DiscDecoder,
    lease: TaskLease | None = None,
    skill: Skill = PERFECT,
    seed: int = 0,
    truth: Truth | None = None,
    working_seconds: float = float("inf"),
) -> TaskOutcome:
    lease = lease or scene_lease()
    random = np.random.default_rng(seed)
    clock = SimulatedClock(1_000_000, working_seconds=working_seconds)
    service.version = lease.draft_version
    page = SimulatedPage(service, lease, clock, Pace(Timing(), random), decoder, FRAME)
    return SimulatedAnnotator(truth or scene_truth(), 0, skill, random).annotate(page)


def ious(content: DraftContent) -> list[float]:
    wanted = [encode_mask(mask) for mask in scene_masks()]
    return [float(row.max()) for row in mask_iou([one.rle for one in content.objects], wanted)]


def test_everything_is_masked_well_the_largest_first_and_handed_in_once() -> None:
    service = NotingService()
    outcome = annotate(service, DiscDecoder(error_px=3))
    (content,) = service.submitted
    assert len(content.objects) == len(DISCS)
    assert min(ious(content)) >= PERFECT.stop_iou
    assert content.exhaustive
    areas = [decode_mask(one.rle).sum() for one in content.objects]
    assert areas == sorted(areas, reverse=True)
    assert outcome.acknowledged is not None
    assert [mask.made for mask in outcome.masks] == ["new"] * 4
    assert outcome.masks[0].iou == pytest.approx(ious(content)[0])


def test_the_first_click_is_the_middle_and_the_candidate_that_looks_best_is_taken() -> None:
    service, decoder = NotingService(), DiscDecoder(error_px=1)
    annotate(service, decoder, skill=replace(PERFECT, boxes=0.0))
    (first,) = decoder.asked[0]
    assert isinstance(first, PointPrompt)
    assert np.hypot(first.x - DISCS[0][0], first.y - DISCS[0][1]) < 1.5
    cycles = [event for event in service.events if event.kind == "cycle"]
    assert len(cycles) == 4  # the trusted one of this decoder is too small


def test_a_box_may_come_first_and_lies_around_the_object() -> None:
    service, decoder = NotingService(), DiscDecoder()
    annotate(service, decoder, skill=replace(PERFECT, boxes=1.0))
    (box,) = decoder.asked[0]
    x, y, radius = DISCS[0]
    assert isinstance(box, BoxPrompt)
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx(
        (x - radius, y - radius, x + radius, y + radius), abs=1.5
    )


def test_corrections_click_into_the_mistake_with_the_mask_before_as_prompt() -> None:
    service, decoder = NotingService(), DiscDecoder(error_px=12)
    annotate(service, decoder, skill=replace(PERFECT, boxes=0.0))
    second = decoder.asked[1]
    assert decoder.had_mask[:2] == [False, True]
    assert isinstance(second[1], PointPrompt)
    assert second[1].label == 0  # the decoder took too much
    assert not disc(*DISCS[0])[int(second[1].y), int(second[1].x)]


def test_brush_and_eraser_mend_what_the_decoder_cannot() -> None:
    service = NotingService()
    skill = replace(PERFECT, most_clicks=1, most_strokes=12, most_seconds=300)
    annotate(service, DiscDecoder(error_px=8), skill=skill)
    (content,) = service.submitted
    strokes = [p for one in content.objects for p in one.prompts if isinstance(p, StrokePrompt)]
    assert strokes
    assert all(one.predicted_iou is None for one in content.objects if len(one.prompts) > 1)
    assert sum(event.kind == "stroke" for event in service.events) >= len(strokes)


def test_nobody_works_longer_on_an_object_than_the_rule_allows() -> None:
    outcome = annotate(NotingService(), DiscDecoder(error_px=40), skill=replace(PERFECT))
    longest_action = 20
    assert all(mask.seconds < PERFECT.most_seconds + longest_action for mask in outcome.masks)
    assert all(mask.clicks <= PERFECT.most_clicks for mask in outcome.masks)


def test_what_shows_nothing_in_the_end_is_not_kept_and_the_image_not_called_finished() -> None:
    service = NotingService()
    skill = replace(PERFECT, most_clicks=1, most_strokes=0, boxes=0.0)
    outcome = annotate(service, DiscDecoder(error_px=60), skill=skill)
    (content,) = service.submitted
    given_up = [mask for mask in outcome.masks if mask.made == "given-up"]
    assert given_up
    assert len(content.objects) == len(DISCS) - len(given_up)
    assert not content.exhaustive
    assert sum(event.kind == "clear" for event in service.events) == len(given_up)


def test_events_are_numbered_without_gaps_in_time_and_all_arrive() -> None:
    service = NotingService()
    annotate(service, DiscDecoder(error_px=12))
    assert [event.seq for event in service.events] == list(range(1, service.last_seq + 1))
    times = [event.at_ms for event in service.events]
    assert times == sorted(times)
    assert times[0] == 1_000_000
    assert service.events[0].kind == "show"


def test_drafts_hold_the_object_that_is_being_made() -> None:
    service = NotingService()
    annotate(service, DiscDecoder())
    assert any(draft.current is not None for draft in service.drafts)
    assert service.drafts[-1].objects == service.submitted[0].objects


def test_a_lost_answer_to_a_saved_draft_does_not_stop_the_work() -> None:
    service = NotingService(lose_answers_to_drafts=1)
    annotate(service, DiscDecoder())
    assert len(service.submitted) == 1


def test_the_same_seed_does_the_same_again() -> None:
    def once(seed: int) -> tuple[list[tuple[str, int]], list[int]]:
        service = NotingService()
        skill = replace(SKILLS["careful"], aim_px=3)
        annotate(service, DiscDecoder(), seed=seed, skill=skill)
        return (
            [(event.kind, event.at_ms) for event in service.events],
            [len(one.prompts) for one in service.submitted[0].objects],
        )

    assert once(4) == once(4)
    assert once(4) != once(5)


def proposal(name: str, mask: np.ndarray) -> MaskObject:
    return MaskObject(object_id=name, rle=encode_mask(mask), proposal=True, predicted_iou=0.8)


def proposals() -> tuple[MaskObject, ...]:
    x, y, radius = DISCS[1]
    return (
        proposal("good", disc(*DISCS[0])),
        proposal("double", disc(DISCS[0][0] + 1, DISCS[0][1], DISCS[0][2])),
        proposal("rough", disc(x + 5, y, radius)),
        proposal("nothing", disc(80, 60, 9)),
    )


def test_proposals_are_kept_corrected_or_deleted_and_what_is_missing_is_added() -> None:
    service, decoder = NotingService(), DiscDecoder()
    outcome = annotate(service, decoder, scene_lease(proposals()))
    (content,) = service.submitted
    by_id = {one.object_id: one for one in content.objects}
    assert by_id["good"].rle == proposals()[0].rle
    assert by_id["good"].accepted
    assert by_id["rough"].rle != proposals()[2].rle
    assert by_id["rough"].proposal
    assert set(content.deleted) == {"double", "nothing"}
    assert len(by_id) == 4
    assert [mask.made for mask in outcome.masks] == [
        "kept",
        "deleted",
        "corrected",
        "deleted",
        "new",
        "new",
    ]
    hold, corrective = decoder.asked[0]
    assert isinstance(hold, PointPrompt)
    assert hold.label == 1
    assert corrective == by_id["rough"].prompts[0]  # what the person did not click is not kept
    assert decoder.had_mask[0]  # the proposal itself goes in with the first corrective click


def test_a_sloppy_person_overlooks_objects_and_keeps_rough_proposals() -> None:
    missed = 0
    for seed in range(6):
        service = NotingService()
        lease = scene_lease(proposals())
        outcome = annotate(service, DiscDecoder(), lease, SKILLS["sloppy"], seed=seed)
        missed += outcome.overlooked
        assert proposals()[2].rle in [one.rle for one in service.submitted[0].objects]
    assert missed > 0


def test_when_the_time_is_up_the_draft_is_saved_and_the_task_given_back() -> None:
    service = NotingService()
    outcome = annotate(service, DiscDecoder(), working_seconds=12)
    assert outcome.acknowledged is None
    assert not service.submitted
    assert service.given_back == 1
    assert service.drafts


def test_work_goes_on_from_the_draft() -> None:
    first = MaskObject(object_id="mine", rle=encode_mask(disc(*DISCS[0])))
    service = NotingService()
    annotate(service, DiscDecoder(), scene_lease(draft=DraftContent(objects=(first,))))
    (content,) = service.submitted
    assert content.objects[0].object_id == "mine"
    assert len(content.objects) == len(DISCS)


def test_what_a_reviewer_rejected_is_made_anew_and_the_rest_stays() -> None:
    good = MaskObject(object_id="good", rle=encode_mask(disc(*DISCS[0])))
    bad = MaskObject(object_id="bad", rle=encode_mask(disc(80, 60, 9)))
    lease = scene_lease(
        draft=DraftContent(objects=(good, bad)), rejected={"bad": "nothing"}, returned=True
    )
    service = NotingService()
    annotate(service, DiscDecoder(), lease, replace(PERFECT, overlooks=1.0))
    (content,) = service.submitted
    ids = [one.object_id for one in content.objects]
    assert "good" in ids
    assert "bad" not in ids
    assert len(ids) == len(DISCS)  # who was sent back overlooks nothing


def test_viewers_see_what_different_people_drew() -> None:
    truth = scene_truth(voters=[(0, 1), (0,), (1,), (1,)])
    seen = [truth.seen_by(viewer, 77) for viewer in range(3)]
    assert [len(rles) for rles in seen] == [2, 3, 2]
    assert seen[0] == seen[2]


def test_a_skill_says_what_is_wrong_with_it() -> None:
    with pytest.raises(BadInputError, match="stop_iou lies in 0 to 1"):
        Skill(stop_iou=1.5)


class _Judge:
    """Takes the verdicts of a review."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def judge(self, lease: TaskLease, verdicts: Sequence[Verdict], *, reason: str = "") -> str:
        self.verdicts = list(verdicts)
        return "returned" if reason else "accepted"


def test_a_reviewer_accepts_fixes_and_rejects_by_the_truth() -> None:
    masks = {
        "good": disc(*DISCS[0]),
        "rough": disc(DISCS[1][0] + 8, *DISCS[1][1:]),
        "nothing": disc(80, 60, 9),
    }
    objects = tuple(
        ReviewedObject(mask=MaskObject(object_id=name, rle=encode_mask(mask)), made="new")
        for name, mask in masks.items()
    )
    review = SubmissionToReview(annotator="a", exhaustive=True, objects=objects)
    judge = _Judge()
    clock, pace = SimulatedClock(0), Pace(Timing(), np.random.default_rng(0))
    lease = scene_lease(submission=review)
    outcome = SimulatedReviewer(scene_truth()).review(judge, lease, clock, pace)
    assert [verdict.kind for verdict in judge.verdicts] == ["accept", "fix", "reject"]
    assert judge.verdicts[1].rle == encode_mask(disc(*DISCS[1]))
    assert (outcome.state, outcome.rejected) == ("returned", 1)
    assert clock.seconds > 5
