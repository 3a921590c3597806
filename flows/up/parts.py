"""The parts of one `up`: what each is called, runs and is told.

server_part(place), worker_part(1, place, deployment), annotation_part(plan, workspace, port)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from flows.runtime import LOGGING_ENVIRONMENT
from flows.up.prefect_server import ServerPlace
from flows.up.supervisor import PartSpec

__all__ = [
    "DEFAULTS",
    "SERVER_SECONDS",
    "UpPlan",
    "annotation_part",
    "deploy_command",
    "server_part",
    "settings_of",
    "worker_part",
]

# What nobody wants of a program that runs unattended; what the user has set stays.
DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    **LOGGING_ENVIRONMENT,
    # Leases in the server's memory would end with it, and their runs would be stopped for that.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": (
        "prefect.server.concurrency.lease_storage.filesystem"
    ),
    # Relative: right for a browser on another machine, and behind a tunnel or a proxy.
    "PREFECT_UI_API_URL": "/api",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
SERVER_SECONDS = 180
"""How long a server may take to start, on a machine that does other things too."""

_FIXED = {"PREFECT_CLI_PROMPT": "false", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpPlan:
    """What to start.

    Attributes:
        workspace: its address; made if it is not there.
        host: that the pages are served on.
        port: of the annotation service; None: the settings' one, or the next that is free.
        prefect_port: likewise, 4200.
        annotate: whether to start the annotation service.
        workers: how many; 0: none, they run elsewhere.
        policy: of the data engine: a preset's name, for a workspace that has none.
    """

    workspace: str
    host: str = "127.0.0.1"
    port: int | None = None
    prefect_port: int | None = None
    annotate: bool = True
    workers: int = 1
    policy: str | None = None


def server_part(place: ServerPlace) -> PartSpec:
    """Return the Prefect server, with its pages and all its services."""
    return PartSpec(
        name="prefect-server",
        kind="server",
        module="prefect",
        arguments=(
            *("server", "start", "--ui"),
            *("--host", place.host, "--port", str(place.port)),
        ),
        environment=settings_of(place),
    )


def worker_part(number: int, place: ServerPlace, pool: str) -> PartSpec:
    """Return a worker: it takes flow runs from the pool and runs each in a process of its own."""
    return PartSpec(
        name=f"worker-{number}",
        kind="worker",
        module="prefect",
        arguments=("worker", "start", "--pool", pool, "--name", f"{pool}-{number}"),
        environment=settings_of(place),
    )


def annotation_part(workspace: str, host: str, port: int) -> PartSpec:
    """Return the annotation service of a workspace; it needs no server, and so does not wait."""
    return PartSpec(
        name="annotation",
        kind="service",
        module="flows.cli",
        arguments=(
            *("annotate", "--serve", "--json", "-w", workspace),
            *("--host", host, "--port", str(port)),
        ),
        environment=_FIXED,
    )


def deploy_command(workspace: str, name: str, plan: UpPlan) -> list[str]:
    """Return the command that makes pool, deployments, schedules and triggers, again and again."""
    command = [sys.executable, "-m", "flows.cli", "deploy", "--json", "-w", workspace]
    command += ["--name", name, "--pool", name, "--wait", str(SERVER_SECONDS)]
    command += ["--compute-runs", str(max(plan.workers, 1))]
    if plan.policy is not None:
        command += ["--policy", plan.policy]
    return command


def settings_of(place: ServerPlace) -> dict[str, str]:
    """Return the variables that lead a process to the server, and its readers to the pages."""
    settings = {**_FIXED, "PREFECT_API_URL": place.api_url}
    if place.kind != "configured":
        settings["PREFECT_UI_URL"] = place.ui_url
    return settings
