"""One look: the policy, the state, and what they make due.

look = take_look(workspace, db, None, now=now)
look.decision.reasons, look.may_act
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from engine.annotation.database import Database
from engine.dataset.catalog import Workspace
from engine.wheel.decision import Decision, decide
from engine.wheel.policy import POLICY_FILE, Policy, find_policy, load_policy
from engine.wheel.state import WheelState, read_state

__all__ = ["Look", "take_look"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What was seen and what it makes due.

    Attributes:
        policy: that was followed.
        state: where the wheel stands.
        decision: what is due, and why.
        may_act: whether somebody wanted it: without a policy of its own, or one that was named,
            a workspace is only explained.
    """

    policy: Policy
    state: WheelState
    decision: Decision
    may_act: bool


def take_look(workspace: Workspace, db: Database, policy: str | None, *, now: datetime) -> Look:
    """Look at a workspace.

    Args:
        workspace: the data set.
        db: its annotation database.
        policy: a preset or a file, see `load_policy`; None: the workspace's own.
        now: UTC.

    Raises:
        BadInputError: a policy that cannot be used.
        WorkspaceError: the workspace or the database is damaged.
        TransientError: one of them is busy.
    """
    wanted = policy is not None or find_policy(workspace.store) is not None
    followed = load_policy(workspace.store, policy)
    state = read_state(workspace, db, followed, now=now)
    decision = decide(followed, state)
    if not wanted:
        missing = (
            f"The workspace has no {POLICY_FILE}, so nothing is started: `maskwheel policy init` "
            "writes one. With the preset small:"
        )
        decision = Decision(actions=decision.actions, reasons=(missing, *decision.reasons))
    return Look(policy=followed, state=state, decision=decision, may_act=wanted)
