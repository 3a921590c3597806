"""The alert as a flow: a red run that says what needs a person.

>>> alert("Not started: retrain", "steps: 'many' is not a number", workspace="birds")

Automations start it (see `flows.deployments.alerts`). It does nothing but to be seen: its name and
its state stand in the list of runs, the reason in its log, and the event ``maskwheel.alert`` in the
event feed.
"""

from __future__ import annotations

import json

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State, StateType
from prefect.events import emit_event
from pydantic import JsonValue

__all__ = ["ALERTED", "alert"]

ALERTED = "maskwheel.alert"
_STATE = "Alert"


@flow(name="alert", flow_run_name="{title}")
def alert(
    title: str, message: str, workspace: str, details: dict[str, JsonValue] | None = None
) -> State[None]:
    """Tell people that something needs them.

    Args:
        title: what happened, in a few words.
        message: why, as far as it is known.
        workspace: address of the data set that it is about.
        details: what else is known, for the log.
    """
    logger = get_run_logger()
    logger.error("%s (%s): %s", title, workspace, message)
    if details:
        logger.info("details: %s", json.dumps(details, indent=2, ensure_ascii=False))
    emit_event(
        ALERTED,
        resource={
            "prefect.resource.id": f"{ALERTED}.{workspace}",
            "prefect.resource.name": title,
            "maskwheel.workspace": workspace,
        },
        payload={"workspace": workspace, "title": title, "message": message, "details": details},
    )
    return State(type=StateType.FAILED, name=_STATE, message=message)
