"""What runs are called in the Prefect UI, and the tags that they are found by.

    describe_run("mask 40 photos with m3", workspace=workspace, stage="automatic", model="m3")

Prefect gives a run its name before it begins, when only the parameters are known; what a run turns
out to be about it says itself, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from flows.artifacts.sending import attempt
from flows.artifacts.texts import plain
from flows.runtime import log_story
from flows.steps import in_prefect_run

__all__ = ["counted", "describe_run", "photos_named", "run_tags", "workspace_name"]


def describe_run(
    name: str | None = None,
    *,
    workspace: str | None = None,
    stage: str | None = None,
    model: str | None = None,
    release: str | None = None,
    campaign: str | None = None,
) -> None:
    """Name the flow run that this is called in, add tags to those it has, and let its log speak.

    Outside of a flow run it does nothing; a server that is away is a warning.

    Args:
        name: a phrase for people; None: stays.
        workspace: address, for a tag, see `run_tags`.
        stage: likewise.
        model: likewise.
        release: likewise.
        campaign: likewise.
    """
    if not in_prefect_run():
        return
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    run_id = flow_run.id
    log_story()
    tags = run_tags(
        workspace=workspace, stage=stage, model=model, release=release, campaign=campaign
    )

    def send() -> None:
        with get_client(sync_client=True) as client:
            # The run's own tags, not those it began with: this may be the second call.
            present = client.read_flow_run(run_id).tags
            client.update_flow_run(
                run_id, name=plain(name) if name else None, tags=sorted({*present, *tags})
            )

    attempt("the name of this run", send)


def run_tags(
    *,
    workspace: str | None = None,
    stage: str | None = None,
    model: str | None = None,
    release: str | None = None,
    campaign: str | None = None,
) -> tuple[str, ...]:
    """Return tags to find runs by, e.g. ``workspace:birds``, ``model:m3``; None gives none."""
    named = {
        "workspace": workspace and workspace_name(workspace),
        "stage": stage,
        "model": model and PurePosixPath(model).name,
        "release": release,
        "campaign": campaign,
    }
    return tuple(f"{kind}:{plain(value)}" for kind, value in named.items() if value)


def workspace_name(address: str) -> str:
    """Return the last part of a workspace's address: ``birds`` of ``s3://team/data/birds``."""
    path = urlsplit(address).path if "://" in address else address
    return PurePosixPath(path.rstrip("/")).name or urlsplit(address).netloc or address


def photos_named(photos: Sequence[str] | None) -> str:
    """Name what was given as photos: ``holiday``, ``a.jpg and 3 more``, or ``all photos``."""
    if not photos:
        return "all photos"
    first = workspace_name(photos[0])
    return first if len(photos) == 1 else f"{first} and {len(photos) - 1:,} more"


def counted(number: int, thing: str) -> str:
    """Write a number of things: ``1 photo``, ``1,204 masks``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"
