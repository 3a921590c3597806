"""What is due, on whole histories: from no photos to a released data set, whatever happens."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from engine.wheel.decision import Action, decide, rounds_of
from engine.wheel.policy import (
    PRESETS,
    AuditPolicy,
    Policy,
    ReleasePolicy,
    RetrainingPolicy,
    SemiPolicy,
    StagePolicy,
)
from engine.wheel.state import CampaignLook, TrainingLook, WheelState
from tests.wheel.wheel_world import START, World

PAPER, SMALL = PRESETS["paper"], PRESETS["small"]
# Whole histories are short; one that does not end asks for the same again and again.
MANY = 500


def turn(policy: Policy, world: World) -> list[Action]:
    """Look until nothing is due and nobody has anything to finish; return what was run."""
    begun = len(world.history)
    for _ in range(MANY):
        decision = decide(policy, world.state())
        assert decision.reasons
        if decision.actions:
            for action in decision.actions:
                world.run(action)
        elif any(not look.is_over for look in world.campaigns):
            world.people_finish()
        else:
            return world.history[begun:]
    raise AssertionError(f"the wheel turns for ever: {world.kinds()[-10:]}")


def reason(policy: Policy, state: WheelState) -> str:
    return " ".join(decide(policy, state).reasons)


def test_the_paper_s_history_has_the_paper_s_rounds_and_retrainings() -> None:
    world = World(photos=11_000_000, masks_of_image=36)
    turn(PAPER, world)
    names = [look.name for look in world.campaigns]
    assert names == [*(f"manual-{n}" for n in range(1, 7)), *(f"semi-{n}" for n in range(1, 6))]
    assert sum(look.tasks for look in world.campaigns if look.stage == "manual") == 120_000
    assert sum(look.tasks for look in world.campaigns if look.stage == "semi") == 180_000
    assert [world.kinds().count(kind) for kind in ("retrain", "fully-automatic")] == [11, 1]
    assert world.kinds()[-3:] == ["fully-automatic", "audit", "release"]
    assert world.masked == world.photos
    assert world.tags == {"v1": "r12"}


def test_a_round_is_opened_annotated_published_and_learned_from_before_the_next() -> None:
    world = World(photos=200)
    turn(SMALL, world)
    one_round = ["publish-annotations", "retrain"]
    assert world.kinds() == [
        *["assisted-manual", *one_round] * 2,
        *["semi-automatic", *one_round] * 2,
        "fully-automatic",
        "audit",
        "release",
    ]


def test_without_photos_the_wheel_stands_and_says_what_it_needs() -> None:
    decision = decide(SMALL, World().state())
    assert decision.actions == ()
    assert "maskwheel ingest" in decision.reasons[0]


def test_an_open_campaign_is_waited_for_with_its_figures() -> None:
    look = CampaignLook(
        campaign_id="manual-2-ab",
        name="manual-2",
        stage="manual",
        state="open",
        tasks=50,
        done=31,
        in_hand=3,
    )
    over = replace(look, name="manual-1", state="complete", done=50, in_hand=0, published=50)
    state = WheelState(
        workspace="/birds", workspace_id="0", images=100, candidates=9, campaigns=(over, look)
    )
    assert decide(SMALL, state).actions == ()
    assert "manual-2: 31 of 50 tasks are done; people are at work" in reason(SMALL, state)


def test_a_campaign_whose_preparation_was_interrupted_is_prepared_by_the_same_key() -> None:
    world = World(photos=100)
    [opening] = decide(SMALL, world.state()).actions
    world.run(opening)
    world.campaigns[-1] = replace(world.campaigns[-1], preparing=True)
    world.annotated = 0  # what the campaign has is no candidate; the numbers must not matter
    [again] = decide(SMALL, world.state()).actions
    assert (again.key, again.parameters) == (opening.key, opening.parameters)


def test_a_campaign_that_a_person_closed_is_published_when_nobody_has_work_in_hand() -> None:
    world = World(photos=100)
    world.run(decide(SMALL, world.state()).actions[0])
    world.campaigns[-1] = replace(world.campaigns[-1], state="closed", done=4, due=4, in_hand=1)
    assert decide(SMALL, world.state()).actions == ()
    world.campaigns[-1] = replace(world.campaigns[-1], in_hand=0)
    assert [a.kind for a in decide(SMALL, world.state()).actions] == ["publish-annotations"]


def test_campaigns_that_people_opened_by_hand_are_published_but_are_no_rounds() -> None:
    world = World(photos=100)
    by_hand = CampaignLook(
        campaign_id="mine-1",
        name="mine",
        stage="manual",
        state="complete",
        tasks=5,
        done=5,
        due=5,
    )
    world.campaigns.append(by_hand)
    [action] = decide(SMALL, world.state()).actions
    assert action.arguments()["campaign"] == "mine"
    world.run(action)
    [action] = decide(SMALL, world.state()).actions
    assert action.arguments()["campaign"] == "manual-1"


def test_few_masks_train_nothing_and_the_next_round_opens() -> None:
    policy = replace(SMALL, retraining=RetrainingPolicy(min_new_masks=10_000))
    world = World(photos=200)
    world.run(decide(policy, world.state()).actions[0])
    world.people_finish()
    world.run(decide(policy, world.state()).actions[0])
    decision = decide(policy, world.state())
    assert [a.arguments()["campaign"] for a in decision.actions] == ["manual-2"]
    assert "150 masks of people; from 10,000 on" in " ".join(decision.reasons)


def test_masks_on_few_images_train_nothing_and_a_person_is_told_why() -> None:
    stage = StagePolicy(images=10, retrainings=1)
    policy = replace(SMALL, manual=stage, semi=SemiPolicy(images=0, retrainings=0))
    world = World(photos=200, masks_of_image=50)
    turn(policy, world)
    assert "retrain" not in world.kinds()
    assert "on 10 images: 11 are needed" in reason(policy, world.state())
    two_held_out = replace(policy, retraining=RetrainingPolicy(hold_out=2))
    assert [a.kind for a in decide(two_held_out, world.state()).actions] == ["retrain"]


def test_refused_candidates_hold_nothing_up_and_a_person_is_told() -> None:
    world = World(photos=200, gate=lambda number: False)
    turn(SMALL, world)
    assert (world.champion, len(world.trainings)) == ("bundled", 4)
    assert world.tags == {"v1": "r5"}
    said = reason(SMALL, world.state())
    assert "refused m1 and m2 and m3 and m4 (not better): the wheel goes on with bundled" in said
    assert "a person should look" in said


def test_a_candidate_that_a_person_promotes_is_named() -> None:
    policy = replace(SMALL, retraining=RetrainingPolicy(promote=False))
    world = World(photos=200)
    world.trainings.append(TrainingLook(version="m1", releases=("r1",)))
    assert "m1 waits for a person" in reason(policy, world.state())


def test_a_failed_audit_opens_one_more_round_and_then_asks_for_a_person() -> None:
    world = World(photos=300, audit=lambda number: False)
    turn(SMALL, world)
    assert [look.name for look in world.campaigns][-1] == "semi-3"
    assert world.tags == {}
    said = reason(SMALL, world.state())
    assert "failed: mean IoU 0.50, below 0.75" in said
    assert "a person has to look" in said


def test_a_better_model_after_the_extra_round_is_audited_again_and_released() -> None:
    world = World(photos=300, audit=lambda number: number > 1)
    turn(SMALL, world)
    assert world.kinds()[-7:] == [
        "audit",
        "semi-automatic",
        "publish-annotations",
        "retrain",
        "fully-automatic",
        "audit",
        "release",
    ]


def test_few_new_masks_are_learned_from_when_the_audit_failed() -> None:
    world = World(photos=300, masks_of_image=1, audit=lambda number: False)
    policy = replace(SMALL, retraining=RetrainingPolicy(min_new_masks=10_000))
    world.run(decide(policy, world.state()).actions[0])
    actions = turn(policy, world)
    retrainings = [action for action in actions if action.kind == "retrain"]
    assert [action.arguments()["reason"] for action in retrainings] == ["audit"] * len(retrainings)
    assert retrainings


def test_new_photos_after_a_release_are_masked_audited_and_released_as_the_next_version() -> None:
    world = World(photos=150)
    turn(SMALL, world)
    assert turn(SMALL, world) == []
    world.ingest(40)
    kinds = [action.kind for action in turn(SMALL, world)]
    assert kinds == ["fully-automatic", "audit", "release"]
    assert list(world.tags) == ["v1", "v2"]


def test_a_workspace_that_is_too_small_for_the_policy_skips_rounds_and_says_so() -> None:
    world = World(photos=33)
    turn(SMALL, world)
    assert [(look.name, look.tasks) for look in world.campaigns] == [
        ("manual-1", 30),
        ("manual-2", 3),
    ]
    assert "People have annotated every photo: semi-1, semi-2" in reason(SMALL, world.state())
    assert list(world.tags) == ["v1"]


def test_stages_audit_and_tags_can_be_left_out() -> None:
    policy = Policy(
        manual=StagePolicy(images=0, retrainings=0),
        semi=SemiPolicy(images=0, retrainings=0),
        audit=AuditPolicy(enabled=False),
        release=ReleasePolicy(tag=""),
    )
    world = World(photos=10)
    turn(policy, world)
    assert world.kinds() == ["fully-automatic"]
    assert "Nothing is due" in reason(policy, world.state())


def test_a_person_s_own_tag_is_not_the_wheel_s() -> None:
    world = World(photos=10, releases=1, masked=10, tags={"nice": "r1", "v7": "r0"})
    policy = replace(SMALL, manual=StagePolicy(images=0, retrainings=0))
    policy = replace(policy, semi=SemiPolicy(images=0, retrainings=0))
    actions = turn(policy, world)
    assert actions[-1].arguments()["tag"] == "v8"


def test_a_changed_policy_asks_by_another_key() -> None:
    world = World(photos=100)
    [one] = decide(SMALL, world.state()).actions
    [other] = decide(replace(SMALL, manual=StagePolicy(review=True)), world.state()).actions
    assert one.key != other.key


@pytest.mark.parametrize(("failed", "last"), [(0, "semi-2"), (1, "semi-3"), (9, "semi-3")])
def test_failed_audits_add_rounds_up_to_the_policy_s_number(failed: int, last: str) -> None:
    assert [a_round.name for a_round in rounds_of(SMALL, failed)][-1] == last


policies = st.builds(
    Policy,
    manual=st.builds(
        lambda images, rounds: StagePolicy(
            images=images, retrainings=min(rounds, images) if images else 0
        ),
        st.integers(0, 40),
        st.integers(1, 4),
    ),
    semi=st.builds(
        lambda images, rounds: SemiPolicy(
            images=images, retrainings=min(rounds, images) if images else 0
        ),
        st.integers(0, 40),
        st.integers(1, 4),
    ),
    retraining=st.builds(
        RetrainingPolicy, min_new_masks=st.integers(1, 100), hold_out=st.integers(2, 12)
    ),
    audit=st.builds(AuditPolicy, enabled=st.booleans(), extra_rounds=st.integers(0, 3)),
    release=st.builds(ReleasePolicy, tag=st.sampled_from(["", "v", "set-"])),
)
CONFLICTING = {
    "assisted-manual",
    "semi-automatic",
    "retrain",
    "fully-automatic",
    "audit",
    "release",
}


@given(
    policy=policies,
    photos=st.integers(0, 90),
    masks_of_image=st.integers(0, 5),
    verdicts=st.lists(st.booleans(), min_size=40, max_size=40),
    arrivals=st.lists(st.integers(0, 20), max_size=3),
)
@settings(max_examples=150)
def test_every_history_ends_without_a_conflict_and_without_asking_for_anything_twice(
    policy: Policy,
    photos: int,
    masks_of_image: int,
    verdicts: list[bool],
    arrivals: list[int],
) -> None:
    world = World(
        photos=photos,
        masks_of_image=masks_of_image,
        gate=lambda number: verdicts[number % 20],
        audit=lambda number: verdicts[20 + number % 20],
    )
    for arriving in (0, *arrivals):
        world.ingest(arriving)
        for _ in range(MANY):
            state = world.state()
            decision = decide(policy, state)
            assert decide(policy, state) == decision
            kinds = [action.kind for action in decision.actions]
            assert len(kinds) == 1 or not CONFLICTING & set(kinds)
            if not decision.actions:
                if all(look.is_over for look in world.campaigns):
                    break
                world.people_finish()
            for action in decision.actions:
                world.run(action)
        else:
            raise AssertionError(f"the wheel turns for ever: {world.kinds()[-10:]}")
    keys = [action.key for action in world.history]
    assert len(keys) == len(set(keys))
    assert all(look.published == look.done for look in world.campaigns)
    if world.photos:
        assert world.masked == world.photos


@given(state_releases=st.integers(1, 9))
def test_the_state_can_be_shown_as_json(state_releases: int) -> None:
    world = World(photos=100, releases=state_releases, audit=lambda number: True)
    turn(SMALL, world)
    assert str(START.year) in world.state().to_json()
