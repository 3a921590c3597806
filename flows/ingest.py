"""Photos into a workspace, as a flow: they are referenced where they are, the same content once.

>>> ingest(["photos/", "list.csv"], workspace="birds").new

The same call again adds nothing; after a kill it adds what was missing.
"""

from __future__ import annotations

import logging

from prefect import flow, task
from prefect.runtime import flow_run

from engine.config import current_time, load_settings
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import IngestOutcome, expand_inputs
from engine.dataset.ingest import ingest as add_images
from flows.artifacts.tables import show_table
from flows.limits import image_limits
from flows.naming import counted, describe_run, photos_named, workspace_name
from flows.progress import listener
from flows.retrying import RETRIED

__all__ = ["ingest"]


logger = logging.getLogger(__name__)


def _run_name() -> str:
    parameters = flow_run.parameters
    return f"add {photos_named(parameters['photos'])} to {workspace_name(parameters['workspace'])}"


@flow(name="ingest", flow_run_name=_run_name)
def ingest(photos: list[str], workspace: str) -> IngestOutcome:
    """Add photos to the workspace without masking them.

    Args:
        photos: files, folders, globs and lists of addresses (.txt, .csv, .parquet).
        workspace: folder of the data set, or ``s3://bucket/prefix``; made if it does not exist.

    Raises:
        BadInputError: nothing to read at an address, or a workspace that cannot be used.
    """
    describe_run(workspace=workspace, stage="ingest")
    outcome = read_photos(photos, workspace)
    show_ingest(outcome, workspace)
    return outcome


@task(task_run_name="read the photos", **RETRIED)
def read_photos(photos: list[str], workspace: str) -> IngestOutcome:
    """Read the photos and add the new ones to table ``images``."""
    images = expand_inputs(photos)
    listener().stage("reading photos", len(images))
    with Workspace.open(workspace) as opened:
        return add_images(
            opened,
            images,
            image_limits(),
            current_time(),
            on_image=lambda uri: listener().image(uri, 0),
            threads=load_settings().read_threads,
        ).outcome


def show_ingest(outcome: IngestOutcome, workspace: str) -> None:
    """Say what was found, in the log and as tables in the Prefect UI."""
    said = (
        f"{counted(outcome.images, 'photo')} in {workspace_name(workspace)}: {outcome.new:,} new, "
        f"{counted(outcome.duplicates, 'duplicate')}, {len(outcome.skipped):,} skipped"
    )
    logger.info("%s", said)
    rows = {"usable": outcome.images, "new": outcome.new, "duplicates": outcome.duplicates}
    rows["skipped"] = len(outcome.skipped)
    show_table("ingest", [{"photos": name, "number": number} for name, number in rows.items()])
    if outcome.skipped:
        show_table(
            "ingest-skipped",
            [{"photo": s.uri, "reason": s.reason, "message": s.message} for s in outcome.skipped],
            f"{counted(len(outcome.skipped), 'photo')} could not be used",
        )
