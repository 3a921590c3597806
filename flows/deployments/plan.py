"""What is to be deployed: a value, checked before any server is asked.

plan = DeploymentPlan(workspace="s3://birds/set", schedules=Schedules.of(policy))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from engine.errors import BadInputError
from engine.objects import absolute_address

if TYPE_CHECKING:
    from engine.wheel.policy import Policy

__all__ = [
    "HEARTBEAT_SECONDS",
    "MARK",
    "DeploymentPlan",
    "NotificationBlock",
    "Parameters",
    "Schedules",
    "Webhook",
]

Parameters = Mapping[str, object]
"""A flow's parameters, JSON."""

MARK = "maskwheel"
"""The tag of all that this package made; what does not carry it is never removed."""

HEARTBEAT_SECONDS = 30
"""How often a run says that it lives; Prefect takes nothing shorter."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """When flows start by themselves; an empty cron means never.

    Attributes:
        look_every: between two looks of the data engine; None: no looks.
        nightly: cron of the fully automatic stage.
        retraining: cron of retrainings, besides those that new masks make due.
        maintenance: cron of the tidying.
        timezone: in which the crons are meant, e.g. ``Europe/Zurich``.
    """

    look_every: timedelta | None = timedelta(minutes=10)
    nightly: str = ""
    retraining: str = ""
    maintenance: str = "0 4 * * 0"
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if self.look_every is not None and self.look_every < timedelta(seconds=1):
            raise BadInputError(
                f"the data engine looks every {self.look_every}; expected a second or more"
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise BadInputError(
                f"got the timezone {self.timezone!r}; expected a name such as Europe/Zurich"
            ) from error

    @classmethod
    def of(cls, policy: Policy, timezone: str = "UTC") -> Schedules:
        """Return what a policy asks for."""
        return cls(
            look_every=timedelta(minutes=policy.look_every_minutes),
            nightly=policy.automatic.nightly,
            retraining=policy.retraining.schedule,
            maintenance=policy.maintenance,
            timezone=timezone,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """An address that takes alerts as JSON, ``{"text": ...}``: Slack, Mattermost, Teams, your own.

    Attributes:
        url: it is kept as a secret.
    """

    url: str

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s]+", self.url):
            raise BadInputError(f"got the webhook {self.url!r}; expected an http(s) address")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationBlock:
    """A notification block that somebody made in Prefect.

    Attributes:
        type_slug: its type, e.g. ``slack-webhook``.
        name: of the block.
    """

    type_slug: str
    name: str

    @classmethod
    def parse(cls, text: str) -> NotificationBlock:
        """Read ``type/name``, as Prefect writes it.

        Raises:
            BadInputError: it is something else.
        """
        type_slug, slash, name = text.partition("/")
        if not (type_slug and slash and name):
            raise BadInputError(
                f"got the notification block {text!r}; expected type/name, such as "
                "slack-webhook/team (`prefect block ls` lists them)"
            )
        return cls(type_slug=type_slug, name=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPlan:
    """The deployments of one workspace on one Prefect server.

    Attributes:
        workspace: that the flows work on; made absolute.
        name: of each deployment; two workspaces on one server need two names.
        pool: work pool; one that exists is used as it is, whatever its type.
        schedules: when flows start by themselves.
        policy: that the data engine follows, instead of the workspace's own.
        parameters: of a flow's name, further parameters of its deployment.
        control_runs: quick flows at once; None: 4, or what the queue has.
        compute_runs: flows at once that take a machine; None: 1, or what the queue has.
        compute_job_variables: of the runs of queue compute, e.g. ``{"gpus": 1}`` on Kubernetes.
        notify: who is told about alerts, besides the Prefect pages.
        silence_seconds: a run that says nothing for so long is dead.
        starting_seconds: a run that a worker took and that has not begun by then is dead.
    """

    workspace: str
    name: str = "maskwheel"
    pool: str = "maskwheel"
    schedules: Schedules = field(default_factory=Schedules)
    policy: str | None = None
    parameters: Mapping[str, Parameters] = field(default_factory=dict)
    control_runs: int | None = None
    compute_runs: int | None = None
    compute_job_variables: Parameters = field(default_factory=dict)
    notify: Webhook | NotificationBlock | None = None
    silence_seconds: int = 4 * HEARTBEAT_SECONDS
    starting_seconds: int = 600

    def __post_init__(self) -> None:
        object.__setattr__(self, "workspace", absolute_address(self.workspace))
        if not _NAME.fullmatch(self.name):
            raise BadInputError(
                f"got the deployment name {self.name!r}; expected lower-case letters, digits and "
                "dashes, at most 63"
            )
        for what, limit in (("control", self.control_runs), ("compute", self.compute_runs)):
            if limit is not None and limit < 1:
                raise BadInputError(f"{what} runs at once: got {limit}, expected at least 1")
        if self.silence_seconds <= HEARTBEAT_SECONDS:
            raise BadInputError(
                f"a run that is silent for {self.silence_seconds} s is not dead: runs say that "
                f"they live every {HEARTBEAT_SECONDS} s"
            )
