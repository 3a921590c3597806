"""Deployments, schedules, triggers and alerts of a workspace, in one call that can be repeated.

from flows.deployments import DeploymentPlan, deploy
changes = deploy(DeploymentPlan(workspace="s3://birds/set"))
"""

from flows.deployments.changes import Change
from flows.deployments.deploying import deploy
from flows.deployments.plan import DeploymentPlan, NotificationBlock, Schedules, Webhook

__all__ = [
    "Change",
    "DeploymentPlan",
    "NotificationBlock",
    "Schedules",
    "Webhook",
    "deploy",
]
