"""Drafts survive, and never overwrite what was saved elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.annotation.database import Database
from engine.annotation.drafts import load_draft, save_draft
from engine.annotation.errors import DraftConflictError, LeaseLostError
from engine.annotation.payloads import draft_from_json, draft_to_json
from engine.annotation.records import (
    BoxPrompt,
    DraftContent,
    MaskObject,
    PointPrompt,
    StrokePrompt,
)
from engine.errors import BadInputError
from engine.records import Rle
from tests.annotation.annotation_builders import (
    NOW,
    a_campaign,
    a_lease,
    a_person,
    an_object,
    at,
    hand_in,
)

FULL = DraftContent(
    objects=(
        MaskObject(
            object_id="p-1",
            rle=Rle(40, 60, "0P1"),
            proposal=True,
            predicted_iou=0.875,
            prompts=(
                PointPrompt(1.5, 2.25, 0),
                BoxPrompt(0.0, 1.0, 9.5, 10.0),
                StrokePrompt("eraser", 12.5, ((1.0, 2.0), (3.5, 4.0))),
            ),
            decoder="server",
            accepted=False,
        ),
    ),
    deleted=("p-2",),
    exhaustive=True,
    current=an_object("c-1"),
)


def test_a_draft_comes_back_as_it_was(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    lease = a_lease(db, campaign, ada)
    assert lease.task.draft is None
    assert save_draft(db, lease.key, 0, FULL, now=at(5)) == 1
    draft = a_lease(db, campaign, ada).task.draft
    assert draft is not None
    assert (draft.version, draft.content, draft.saved_at) == (1, FULL, at(5))


def test_a_save_on_an_older_version_is_refused_with_the_newer_one(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    save_draft(db, lease.key, 0, DraftContent(), now=NOW)
    assert save_draft(db, lease.key, 1, FULL, now=NOW) == 2
    for version in (0, 1, 3, 2**70):
        with pytest.raises(DraftConflictError) as conflict:
            save_draft(db, lease.key, version, DraftContent(exhaustive=True), now=NOW)
        assert conflict.value.version == 2
        assert conflict.value.draft is not None
        assert conflict.value.draft.content == FULL


def test_a_save_whose_answer_was_lost_may_be_repeated(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    assert save_draft(db, lease.key, 0, FULL, now=NOW) == 1
    assert save_draft(db, lease.key, 0, FULL, now=NOW) == 1


def test_a_first_save_that_names_a_version_is_told_that_there_is_none(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    with pytest.raises(DraftConflictError) as conflict:
        save_draft(db, lease.key, 4, FULL, now=NOW)
    assert (conflict.value.version, conflict.value.draft) == (0, None)


def test_what_was_handed_in_leaves_an_empty_draft_of_a_newer_version(db: Database) -> None:
    campaign, ada = a_campaign(db), a_person(db)
    lease = a_lease(db, campaign, ada)
    save_draft(db, lease.key, 0, FULL, now=NOW)
    hand_in(db, lease, an_object("a"))
    draft = load_draft(db, lease.task.task_id, ada)
    assert draft is not None
    assert (draft.version, draft.content) == (2, DraftContent())
    with pytest.raises(LeaseLostError):
        save_draft(db, lease.key, 2, FULL, now=NOW)


@pytest.mark.parametrize(
    "content",
    [
        DraftContent(objects=(an_object("a b"),)),
        DraftContent(current=an_object("")),
        DraftContent(deleted=("x" * 65,)),
        DraftContent(
            current=MaskObject(
                object_id="a", rle=Rle(1, 1, "1"), prompts=(PointPrompt(float("nan"), 0.0, 1),)
            )
        ),
        DraftContent(
            current=MaskObject(object_id="a", rle=Rle(1, 1, "1"), predicted_iou=float("inf"))
        ),
        DraftContent(current=MaskObject(object_id="a", rle=Rle(1, 1, "\ud800"))),
    ],
)
def test_drafts_that_are_none_are_refused(db: Database, content: DraftContent) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    with pytest.raises(BadInputError):
        save_draft(db, lease.key, 0, content, now=NOW)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
PROMPTS = st.one_of(
    st.builds(PointPrompt, NUMBERS, NUMBERS, st.sampled_from([0, 1])),
    st.builds(BoxPrompt, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    st.builds(
        StrokePrompt,
        st.sampled_from(["brush", "eraser"]),
        NUMBERS,
        st.lists(st.tuples(NUMBERS, NUMBERS)).map(tuple),
    ),
)
OBJECTS = st.builds(
    MaskObject,
    object_id=st.text(min_size=1, max_size=8, alphabet="abc-"),
    rle=st.builds(Rle, st.integers(1, 9), st.integers(1, 9), st.text(alphabet="01Pk\\")),
    proposal=st.booleans(),
    predicted_iou=st.none() | NUMBERS,
    prompts=st.lists(PROMPTS, max_size=3).map(tuple),
    decoder=st.sampled_from(["browser", "server", None]),
    accepted=st.none() | st.booleans(),
)


@settings(max_examples=50)
@given(
    st.builds(
        DraftContent,
        objects=st.lists(OBJECTS, max_size=3).map(tuple),
        deleted=st.lists(st.text(max_size=3, alphabet="abc"), max_size=3).map(tuple),
        exhaustive=st.booleans(),
        current=st.none() | OBJECTS,
    )
)
def test_every_draft_reads_back_from_its_json(content: DraftContent) -> None:
    assert draft_from_json(draft_to_json(content)) == content
