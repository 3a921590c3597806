"""The wheel as a flow: look at the workspace and the policy, start what is due, say why.

>>> data_engine("birds").said

It keeps nothing between two calls. What is due follows from the workspace alone, so a look that is
lost, doubled or late does no harm, and a schedule that looks every ten minutes makes up for any
event that was not heard. Where the Prefect server has the workspace's deployments it starts their
runs; elsewhere it does the work itself, one thing after the other.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow, task
from prefect.runtime import deployment

from engine.annotation.opening import open_workspace_database
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.errors import EngineError, PartlyDoneError
from engine.wheel.decision import Action
from engine.wheel.looking import Look, take_look
from flows.artifacts.decisions import show_decision
from flows.artifacts.links import linked
from flows.artifacts.texts import escaped
from flows.naming import describe_run
from flows.parameters import load_flow
from flows.retrying import RETRIED
from flows.starting import Standing, can_start, start_due

__all__ = ["DataEngineOutcome", "data_engine"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataEngineOutcome:
    """What a look came to.

    Attributes:
        release: the newest, when it ended.
        started: kinds of runs that were started, or done here.
        running: kinds that go on already.
        needs_a_person: kinds that failed too often.
        said: all reasons and what became of each action, a line each.
    """

    release: str | None
    started: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    needs_a_person: tuple[str, ...] = ()
    said: str = ""


@flow(name="data-engine")
def data_engine(
    workspace: str, policy: str | None = None, dry_run: bool = False
) -> DataEngineOutcome:
    """Start what is due in a workspace, and explain it.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``; made if it does not exist.
        policy: ``paper``, ``small`` or a TOML file. Default: ``policy.toml`` of the workspace;
            without one nothing is started.
        dry_run: only explain.

    Raises:
        BadInputError: a policy that cannot be used.
        PartlyDoneError: something that was done here failed; the same call again goes on.
    """
    describe_run("look at what is due", workspace=workspace)
    look = look_at(workspace, policy)
    if dry_run or not look.may_act:
        return explain(look, (), dry_run=True)
    if deployment.id is not None or can_start(look.state.workspace):
        return explain(
            look, start(look.decision.actions, look.state.workspace_id, look.policy.attempts)
        )
    return work_here(look, workspace, policy)


@task(task_run_name="look", **RETRIED)
def look_at(workspace: str, policy: str | None) -> Look:
    """Read the policy and the state, and decide."""
    with Workspace.open(workspace) as opened, open_workspace_database(opened) as db:
        return take_look(opened, db, policy, now=current_time())


@task(task_run_name="start what is due", **RETRIED)
def start(actions: Sequence[Action], workspace_id: str, attempts: int) -> tuple[Standing, ...]:
    """Have the server run what is due, unless it does already."""
    return start_due(actions, workspace_id, attempts=attempts)


def work_here(look: Look, workspace: str, policy: str | None) -> DataEngineOutcome:
    """Do what is due in this process until nothing is, or people are needed.

    Raises:
        PartlyDoneError: something failed.
    """
    done: list[Standing] = []
    while due := _untried(look, done):
        for action in due:
            logger.info("%s", action.why)
            done.append(run_here(action))
            if done[-1].status == "failed":
                explain(look, done)
                raise PartlyDoneError(
                    f"{action.kind}: {done[-1].detail}; the same command again goes on"
                )
        look = look_at(workspace, policy)
    return explain(look, done)


def run_here(action: Action) -> Standing:
    """Run an action's flow in this process."""
    try:
        load_flow(action.kind)(**action.arguments())
    except EngineError as error:
        return Standing(action=action, status="failed", detail=str(error))
    return Standing(action=action, status="finished", detail="done here")


def explain(
    look: Look, standings: Sequence[Standing], *, dry_run: bool = False
) -> DataEngineOutcome:
    """Leave a page with the decision in the Prefect UI, and the same in the log."""
    outcomes = {standing.action.key: _told(standing) for standing in standings}
    show_decision(look.decision, look.state, look.policy, outcomes, dry_run=dry_run)
    said = [*look.decision.reasons, *(f"{s.action.kind}: {s.detail}." for s in standings)]
    for sentence in look.decision.reasons:
        logger.info("%s", sentence)
    for standing in standings:
        stuck = standing.status in ("failed", "needs-a-person")
        level = logging.WARNING if stuck else logging.INFO
        logger.log(level, "%s: %s", standing.action.kind, standing.detail)
    kinds = {status: _kinds(standings, status) for status in ("running", "needs-a-person")}
    return DataEngineOutcome(
        release=look.state.release,
        started=(*_kinds(standings, "started"), *_kinds(standings, "finished")),
        running=kinds["running"],
        needs_a_person=kinds["needs-a-person"],
        said="\n".join(said),
    )


def _untried(look: Look, done: Sequence[Standing]) -> list[Action]:
    tried = {standing.action.key for standing in done}
    return [action for action in look.decision.actions if action.key not in tried]


def _kinds(standings: Sequence[Standing], status: str) -> tuple[str, ...]:
    return tuple(s.action.kind for s in standings if s.status == status)


def _told(standing: Standing) -> str:
    text = f"{standing.status}: {standing.detail}"
    return escaped(text) if standing.url is None else linked(standing.url, text)
