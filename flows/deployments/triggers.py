"""Triggers: what the engine announced starts what follows from it.

    automations = triggers(plan, deployment_ids)

Events are matched by the workspace's label, so that several workspaces on one server do not start
each other's flows. An event is a hint only: what a lost one should have started, the data engine's
next look starts. Templates give strings; `as_json` is for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.deployments.plan import MARK, DeploymentPlan
from flows.events import AUDIT_FAILED, CAMPAIGN_COMPLETED, MODEL_PROMOTED, RELEASE_PUBLISHED

__all__ = ["as_json", "triggers"]


def triggers(plan: DeploymentPlan, deployment_ids: Mapping[str, UUID]) -> list[AutomationCore]:
    """Return the triggers of a plan.

    Args:
        plan: what is deployed.
        deployment_ids: of each flow's name, its deployment.
    """

    def trigger(
        title: str,
        event: str,
        flow: str,
        parameters: Mapping[str, object],
        labels: Mapping[str, str] | None = None,
    ) -> AutomationCore:
        match: dict[str, str | list[str]] = {
            "maskwheel.workspace": plan.workspace,
            **(labels or {}),
        }
        return AutomationCore(
            name=f"{plan.name}: {title}",
            description=f"Starts {flow}/{plan.name} on every event {event} of {plan.workspace}.",
            tags=[MARK],
            trigger=EventTrigger(
                expect={event},
                match=ResourceSpecification(match),
                posture=Posture.Reactive,
                threshold=1,
            ),
            actions=[
                RunDeployment(
                    source="selected",
                    deployment_id=deployment_ids[flow],
                    parameters=dict(parameters),
                    job_variables=None,
                )
            ],
        )

    return [
        trigger(
            "publish a completed campaign",
            CAMPAIGN_COMPLETED,
            "publish-annotations",
            {"campaign": "{{ event.payload.campaign }}"},
        ),
        trigger(
            "retrain when new human masks make it due",
            RELEASE_PUBLISHED,
            "retrain",
            {"release": "{{ event.payload.release }}", "reason": "new human masks"},
            {"maskwheel.retraining": "due"},
        ),
        trigger(
            "retrain after an audit below the bar",
            AUDIT_FAILED,
            "retrain",
            {"reason": "audit"},
        ),
        trigger("look again when the champion changed", MODEL_PROMOTED, "data-engine", {}),
    ]


def as_json(template: str) -> dict[str, object]:
    """Return a template whose result is read as JSON, so that a number arrives as a number."""
    return {
        "__prefect_kind": "json",
        "value": {"__prefect_kind": "jinja", "template": template},
    }
