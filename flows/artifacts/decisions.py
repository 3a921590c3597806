"""What the data engine decided, and why, in the Prefect UI.

show_decision(decision, state, policy, {action.key: "started: [retrain m1](<http://...>)"})
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from engine.wheel.decision import Action, Decision, rounds_of
from engine.wheel.policy_values import Policy
from engine.wheel.state import CampaignLook, WheelState
from flows.artifacts.pages import show_page
from flows.artifacts.texts import Cell, code, escaped, markdown_table, prose, readable
from flows.naming import workspace_name

__all__ = ["show_decision"]

_MAX_ROUNDS = 40
_MAX_STATE_CHARACTERS = 20_000


def show_decision(
    decision: Decision,
    state: WheelState,
    policy: Policy,
    outcomes: Mapping[str, str] | None = None,
    *,
    dry_run: bool = False,
) -> None:
    """Leave a decision as a page ``data-engine``: what is due, why, and how far the wheel is.

    Args:
        decision: what was decided.
        state: that it was decided from.
        policy: by which.
        outcomes: by the keys of actions what became of them, in Markdown, e.g. a link to the run.
        dry_run: whether nothing was started.
    """
    headline = _headline(decision)
    note = "\n\nThis was a dry run: nothing was started." if dry_run else ""
    parts = [
        f"# {headline}",
        f"Workspace {code(state.workspace)}, by the policy {code(policy.preset)}.{note}",
        _due(decision, outcomes or {}),
        _remarks(decision),
        f"## The wheel\n\n{markdown_table(list(_steps(policy, state)))}",
        f"## The data set\n\n{markdown_table(_figures(state))}",
        f"## All that was looked at\n\n{_block(state.to_json())}",
    ]
    show_page(
        "data-engine",
        "\n\n".join(part for part in parts if part) + "\n",
        f"{escaped(workspace_name(state.workspace))}: {headline}",
    )


def _headline(decision: Decision) -> str:
    if not decision.actions:
        return "Nothing is due"
    kinds = list(dict.fromkeys(action.kind for action in decision.actions))
    return f"Due: {', '.join(kinds)}"


def _due(decision: Decision, outcomes: Mapping[str, str]) -> str:
    lines: list[str] = []
    for action in decision.actions:
        lines.append(f"- **{action.kind}**: {prose(action.why)}")
        if parameters := _parameters(action):
            lines.append(f"  - with {parameters}")
        if action.key in outcomes:
            lines.append(f"  - {outcomes[action.key]}")
    return "\n".join(lines)


def _remarks(decision: Decision) -> str:
    """Write what else there is to say: an action's own reason stands beside it."""
    said = {action.why for action in decision.actions}
    return "\n\n".join(prose(reason) for reason in decision.reasons if reason not in said)


def _parameters(action: Action) -> str:
    shown = {name: value for name, value in action.arguments().items() if name != "workspace"}
    return ", ".join(
        f"{escaped(name)} {code(str(value))}" for name, value in shown.items() if value
    )


def _steps(policy: Policy, state: WheelState) -> Iterator[dict[str, Cell]]:
    """Yield the rounds of people, and what follows them, with how far each is."""
    failed = sum(not audit.passed for audit in state.audits)
    for a_round in islice(rounds_of(policy, failed), _MAX_ROUNDS):
        look = state.campaign(a_round.name)
        yield {
            "step": a_round.name,
            "photos": a_round.images,
            "state": "to come" if look is None else _round_state(look),
        }
    yield {
        "step": "fully automatic",
        "photos": state.images,
        "state": f"{state.masked:,} masked by {state.champion}",
    }
    audit = state.audit()
    if policy.audit.enabled:
        verdict = "to come" if audit is None else ("passed" if audit.passed else audit.reason)
        yield {"step": "audit", "photos": None, "state": verdict}
    if policy.release.tag:
        tags = ", ".join(state.release_tags)
        yield {"step": "release", "photos": None, "state": tags or "to come"}


def _round_state(look: CampaignLook) -> str:
    if not look.is_over:
        doing = "the model prepares it" if look.preparing else f"{look.in_hand:,} in hand"
        return f"{look.done:,} of {look.tasks:,} tasks done, {doing}"
    left = f", {look.due:,} to be published" if look.due else ""
    return f"over: {look.published:,} photos published{left}"


def _figures(state: WheelState) -> list[dict[str, Cell]]:
    values: dict[str, Cell] = {
        "photos": state.images,
        "photos that people could annotate next": state.candidates,
        "newest release": state.release,
        "champion": state.champion,
        "masks of people, stage manual": state.manual_masks,
        "masks of people, stage semi": state.semi_masks,
        "of these, not yet learned from": state.new_human_masks,
        "trainings": len(state.trainings),
    }
    return [{"what": what, "value": readable(value)} for what, value in values.items()]


def _block(text: str) -> str:
    """Write text as a block of code; indented, so that no mark in it ends the block."""
    cut = text if len(text) <= _MAX_STATE_CHARACTERS else f"{text[:_MAX_STATE_CHARACTERS]}\n…"
    return "\n".join(f"    {line}" for line in cut.splitlines())
