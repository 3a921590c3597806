"""What is due, from a policy and a state: pure, so that it can be tried on any history.

    decision = decide(policy, state)
    for action in decision.actions: start(action.kind, action.parameters, action.key)

The wheel's order. What people finished is published; what is published is learned from; then the
next round opens. A round is a campaign, ``manual-1``, ``manual-2``, ... ``semi-1``, ...; when all
are over the champion masks everything, the release is audited, and gets a tag.

A candidate that the gate refuses holds nothing up: the next round is made with the old champion,
and the next training sees these masks again. The paper has no gate; it always went on, too.

Nothing is remembered between two looks. An action's key says what of the state asks for it, so
whoever asks twice gets one run, and its effect changes the state so that nobody asks again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from engine.annotation.records import Stage
from engine.wheel.flow_parameters import flow_parameters
from engine.wheel.policy_values import Policy, SemiPolicy, StagePolicy
from engine.wheel.retraining import least_images
from engine.wheel.state import CampaignLook, TrainingLook, WheelState

__all__ = ["Action", "ActionKind", "Decision", "Round", "decide", "rounds_of"]

ActionKind = Literal[
    "assisted-manual",
    "semi-automatic",
    "publish-annotations",
    "retrain",
    "fully-automatic",
    "audit",
    "release",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A flow that is to run.

    Attributes:
        kind: the flow's, and its deployment's, name.
        parameters: of the flow, as canonical JSON.
        key: the same for the same reason in the same state; two runs of one key do the same.
        why: one sentence for a person.
    """

    kind: ActionKind
    parameters: str
    key: str
    why: str

    def arguments(self) -> dict[str, object]:
        """Return the parameters by name."""
        found: dict[str, object] = json.loads(self.parameters)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is due, and why nothing else is.

    Attributes:
        actions: none of them stands in the way of another.
        reasons: sentences for a person: what is due, what is waited for, who has to look.
    """

    actions: tuple[Action, ...]
    reasons: tuple[str, ...]


def decide(policy: Policy, state: WheelState) -> Decision:
    """Say what is due."""
    if not state.images:
        return _waiting("There are no photos yet; `maskwheel ingest PHOTOS` adds some.")
    remarks = (*_new_masks(policy, state), *_candidates(policy, state), *_used_up(policy, state))
    # The first step that has something to do, or to wait for, is the last: the others need it.
    for step in (_publish, _retrain, _turn, _mask, _audit, _release):
        decision = step(policy, state)
        if decision is not None:
            return Decision(actions=decision.actions, reasons=(*remarks, *decision.reasons))
    return Decision(actions=(), reasons=(*remarks, _rest(state)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A turn of the wheel: a campaign, its release, a retraining.

    Attributes:
        name: of the campaign.
        stage: of its masks.
        images: how many people are to annotate.
        policy: of the stage.
    """

    name: str
    stage: Stage
    images: int
    policy: StagePolicy


def rounds_of(policy: Policy, failed_audits: int = 0) -> Iterator[Round]:
    """Yield the rounds of people in their order; failed audits add some to the last stage."""
    extra = min(failed_audits, policy.audit.extra_rounds)
    stages: list[tuple[Stage, StagePolicy]] = [("manual", policy.manual), ("semi", policy.semi)]
    used = [(stage, values) for stage, values in stages if values.images]
    for stage, values in used:
        more = extra if (stage, values) == used[-1] else 0
        for number in range(1, values.retrainings + more + 1):
            yield Round(
                name=f"{stage}-{number}",
                stage=stage,
                images=values.images_of_round(number),
                policy=values,
            )


def _publish(policy: Policy, state: WheelState) -> Decision | None:
    actions = [
        _action(
            "publish-annotations",
            f"publish-{look.campaign_id}-after-{look.published}",
            {"workspace": state.workspace, "campaign": look.name},
            f"Campaign {look.name} is over: {_images(look.due)} of it are to be published.",
        )
        for look in state.campaigns
        if look.is_over and look.due
    ]
    return _due(*actions) if actions else None


def _retrain(policy: Policy, state: WheelState) -> Decision | None:
    new = state.new_human_masks
    audit = state.audit()
    if state.human_images < least_images(policy.retraining):
        return None
    if new >= policy.retraining.min_new_masks:
        reason = "new human masks"
        why = f"No training has seen {_masks(new)} of people in {state.release}: the model learns."
    elif new and audit is not None and not audit.passed:
        reason = "audit"
        why = (
            f"The audit of {state.release} failed ({audit.reason}), and no training has seen "
            f"{_masks(new)} of people: the model learns from them though they are few."
        )
    else:
        return None
    parameters = {
        "workspace": state.workspace,
        "release": state.release,
        "reason": reason,
        **flow_parameters(policy)["retrain"],
    }
    return _due(_action("retrain", f"retrain-{state.release}", parameters, why))


def _turn(policy: Policy, state: WheelState) -> Decision | None:
    """Open the next round, or wait for the people of the one that is open."""
    failed = sum(not audit.passed for audit in state.audits)
    for a_round in rounds_of(policy, failed):
        look = state.campaign(a_round.name)
        if look is not None and look.is_over:
            continue
        if look is None and not state.candidates:
            continue  # `_used_up` says so
        if look is None:
            images = min(a_round.images, state.candidates)
            why = f"Round {a_round.name} opens with {_images(images)} for people to annotate."
            return _due(_opening(a_round, state, why))
        if look.preparing:
            why = f"The model still prepares images of campaign {look.name} for people."
            return _due(_opening(a_round, state, why))
        return _waiting(_at_work(look))
    return None


def _mask(policy: Policy, state: WheelState) -> Decision | None:
    left = state.images - state.masked
    if left <= 0:
        return None
    parameters = {"workspace": state.workspace, **flow_parameters(policy)["fully-automatic"]}
    why = f"The champion {state.champion} has not masked {_images(left)} of {state.images:,} yet."
    key = f"automatic-{state.champion}-{state.masked}-of-{state.images}"
    return _due(_action("fully-automatic", key, parameters, why))


def _audit(policy: Policy, state: WheelState) -> Decision | None:
    if not policy.audit.enabled:
        return None
    audit = state.audit()
    if audit is None:
        parameters = {
            "workspace": state.workspace,
            "release": state.release,
            **flow_parameters(policy)["audit"],
        }
        why = f"{state.release} is complete: it is audited before it is released."
        return _due(_action("audit", f"audit-{state.release}", parameters, why))
    if audit.passed:
        return None
    return _waiting(
        f"The audit of {state.release} failed: {audit.reason}. No masks of people are new, so a "
        "retraining would change nothing: a person has to look. More annotated photos, more "
        "extra_rounds or a lower bar in the policy's section audit let the wheel turn on."
    )


def _release(policy: Policy, state: WheelState) -> Decision | None:
    begins = policy.release.tag
    if not begins or _numbers(begins, state.release_tags):
        return None
    tag = f"{begins}{max(_numbers(begins, state.tags), default=0) + 1}"
    parameters = {
        "workspace": state.workspace,
        "release": state.release,
        "tag": tag,
        **flow_parameters(policy)["release"],
    }
    audit = state.audit()
    stands = f" and was audited: {audit.reason}" if audit is not None else ""
    why = f"{state.release} is complete{stands}. It is released as {tag}."
    return _due(_action("release", f"release-{state.release}-{tag}", parameters, why))


def _rest(state: WheelState) -> str:
    tags = f", released as {', '.join(state.release_tags)}" if state.release_tags else ""
    return (
        f"The data set is at {state.release}{tags}: {_images(state.images)}, all masked by "
        f"{state.champion}. Nothing is due until there are new photos or masks of people."
    )


def _new_masks(policy: Policy, state: WheelState) -> Iterator[str]:
    new, least = state.new_human_masks, policy.retraining.min_new_masks
    needed = least_images(policy.retraining)
    if 0 < new < least:
        yield f"No training has seen {_masks(new)} of people; from {least:,} on one is due."
    elif new and state.human_images < needed:
        yield (
            f"No training has seen {_masks(new)} of people, but they are on "
            f"{_images(state.human_images)}: {needed} are needed, all but one to compare on "
            "(retraining.hold_out in the policy)."
        )


def _candidates(policy: Policy, state: WheelState) -> Iterator[str]:
    refused: list[TrainingLook] = []
    for training in state.trainings:
        if training.outcome is not None:
            refused = [*refused, training] if training.outcome == "refused" else []
    if refused:
        names, why = " and ".join(t.version for t in refused), refused[-1].reason
        yield (
            f"The gate refused {names} ({why or 'no reason is recorded'}): the wheel goes on with "
            f"{state.champion}, and the next training sees these masks again."
        )
    if len(refused) >= policy.retraining.refusals:
        yield (
            f"{len(refused)} candidates in a row were refused: a person should look at "
            "`maskwheel models list`; nothing waits for that."
        )
    waiting = [t.version for t in state.trainings if t.outcome is None]
    if waiting and not policy.retraining.promote:
        yield f"Candidate {waiting[-1]} waits for a person: `maskwheel models promote`."


def _used_up(policy: Policy, state: WheelState) -> Iterator[str]:
    missing = [r.name for r in rounds_of(policy) if state.campaign(r.name) is None]
    if missing and not state.candidates:
        yield (
            f"People have annotated every photo: {', '.join(missing[:3])}"
            f"{' and more' if len(missing) > 3 else ''} have none left, and the wheel goes on "
            "without; `maskwheel ingest` adds photos."
        )


def _at_work(look: CampaignLook) -> str:
    people = "people are at work" if look.in_hand else "nobody has one in hand right now"
    return f"Campaign {look.name}: {look.done:,} of {look.tasks:,} tasks are done; {people}."


def _opening(a_round: Round, state: WheelState, why: str) -> Action:
    values = a_round.policy
    parameters: dict[str, object] = {
        "workspace": state.workspace,
        "campaign": a_round.name,
        "images": a_round.images,
        "order": values.order,
        "annotators_per_image": values.annotators_per_image,
        "review": values.review,
        "instructions": values.instructions,
    }
    if isinstance(values, SemiPolicy):
        parameters["proposer"] = values.proposer
    kind: ActionKind = "assisted-manual" if a_round.stage == "manual" else "semi-automatic"
    return _action(kind, a_round.name, parameters, why)


def _action(kind: ActionKind, name: str, parameters: Mapping[str, object], why: str) -> Action:
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    # A policy that was changed asks for something else, which has attempts of its own.
    digest = hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()[:8]
    return Action(kind=kind, parameters=text, key=f"{name}-{digest}", why=why)


def _due(*actions: Action) -> Decision:
    return Decision(actions=actions, reasons=tuple(action.why for action in actions))


def _waiting(reason: str) -> Decision:
    return Decision(actions=(), reasons=(reason,))


def _numbers(begins: str, tags: Iterable[str]) -> list[int]:
    found = (re.fullmatch(f"{re.escape(begins)}([0-9]+)", tag) for tag in tags)
    return [int(match[1]) for match in found if match]


def _images(number: int) -> str:
    return f"{number:,} image{'s' * (number != 1)}"


def _masks(number: int) -> str:
    return f"{number:,} mask{'s' * (number != 1)}"
