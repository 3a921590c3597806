"""Alerts: what needs a person becomes a red run with its reason, and a notification if one is set.

    automations = alerts(plan, deployment_ids, notify=block_id)

A trigger whose parameters do not fit starts no run at all, which nobody would see; a run that fails
in the night is one line among many. Both start the flow ``alert``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from prefect.events.actions import ActionTypes, RunDeployment, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.catalogue import ALERT, FLOWS
from flows.deployments.plan import MARK, DeploymentPlan
from flows.deployments.triggers import as_json
from flows.deployments.watches import of_deployments

__all__ = ["alerts"]

_NOT_STARTED = "prefect.automation.action.failed"
_FAILED = frozenset(f"prefect.flow-run.{name}" for name in ("Crashed", "Failed", "TimedOut"))

_NAME = "{{ event.resource['prefect.resource.name'] }}"
_ONE_ALERT_PER = timedelta(hours=1)


def alerts(
    plan: DeploymentPlan, deployment_ids: Mapping[str, UUID], notify: UUID | None
) -> list[AutomationCore]:
    """Return the alerts of a plan.

    Args:
        plan: what is deployed.
        deployment_ids: of each flow's name, its deployment.
        notify: a notification block that is told as well.
    """
    watched = [deployment_ids[name] for name in FLOWS if name != ALERT]
    return [
        AutomationCore(
            name=f"{plan.name} alert: a trigger could not start its run",
            description="Tells that an event came and the flow that it asks for did not start.",
            tags=[MARK],
            trigger=EventTrigger(
                expect={_NOT_STARTED},
                match=ResourceSpecification(
                    {
                        "prefect.resource.id": "prefect.automation.*",
                        # The triggers, and not the watches and alerts themselves.
                        "prefect.resource.name": f"{plan.name}: *",
                    }
                ),
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=_tell(
                deployment_ids[ALERT],
                notify,
                title=f"Not started: {_NAME}",
                message="{{ event.payload.reason }}",
                details="{{ event.payload | tojson }}",
            ),
        ),
        AutomationCore(
            name=f"{plan.name} alert: a run failed or died",
            description="Tells that a run ended badly, once an hour and deployment at most.",
            tags=[MARK],
            trigger=EventTrigger(
                expect=set(_FAILED),
                match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
                match_related=of_deployments(watched),
                for_each={"related:deployment:prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=_ONE_ALERT_PER,
            ),
            actions=_tell(
                deployment_ids[ALERT],
                notify,
                title=f"{{{{ event.resource['prefect.state-name'] }}}}: {_NAME}",
                message="{{ event.resource['prefect.state-message'] }}",
                details="{{ {'run': event.resource['prefect.resource.id']} | tojson }}",
            ),
        ),
    ]


def _tell(
    deployment_id: UUID, notify: UUID | None, *, title: str, message: str, details: str
) -> list[ActionTypes]:
    parameters = {"title": title, "message": message, "details": as_json(details)}
    actions: list[ActionTypes] = [
        RunDeployment(
            source="selected",
            deployment_id=deployment_id,
            parameters=parameters,
            job_variables=None,
        )
    ]
    if notify is not None:
        actions.append(
            SendNotification(block_document_id=notify, subject=f"Maskwheel: {title}", body=message)
        )
    return actions
