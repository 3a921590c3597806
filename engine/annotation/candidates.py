"""Which images people could annotate next, and where the automatic stage was unsure.

    candidate_ids(workspace, db)        # ids, ascending; len() of them is what is left to do

A candidate is an image that was ingested, has no mask that a person made, is in no campaign that
goes on, and that nobody worked on in one that was closed. Needs no model.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlalchemy import or_, select

from engine.annotation.database import Database
from engine.annotation.tables import CampaignImageRow, CampaignRow, TaskRow
from engine.dataset.catalog import Workspace
from engine.dataset.reader import ReleaseReader
from engine.dataset.release_masks import HUMAN_STAGES
from engine.dataset.releases import latest_release
from engine.errors import BadInputError

__all__ = ["automatic_doubt", "candidate_ids"]


def candidate_ids(workspace: Workspace, db: Database) -> NDArray[np.int64]:
    """Return the ids of the images that people could annotate next, ascending.

    Raises:
        BadInputError: the workspace has no images at all.
        WorkspaceError: it is damaged.
    """
    rows = workspace.table("images").scan(selected_fields=("image_id",)).to_arrow()
    if not rows.num_rows:
        raise BadInputError(
            f"{workspace.address} has no images yet; `maskwheel ingest PHOTOS...` adds some"
        )
    ingested = np.unique(rows["image_id"].to_numpy())
    return np.setdiff1d(ingested, np.union1d(_masked_by_people(workspace), _given_out(db)))


def automatic_doubt(workspace: Workspace) -> dict[int, float]:
    """Return how unsure the automatic stage was, by image: 1 minus the mean predicted IoU.

    Images that it did not mask, or found nothing in, are missing.

    Raises:
        WorkspaceError: a file that is missing or damaged.
    """
    release = latest_release(workspace)
    if release is None:
        return {}
    with ReleaseReader.of(workspace, release, stages=("auto",)) as reader:
        # Sums of each row group first: the masks of a large data set do not fit into memory.
        sums = [
            table.group_by("image_id", use_threads=False).aggregate(
                [("predicted_iou", "sum"), ("predicted_iou", "count")]
            )
            for table in reader.mask_files.tables(("image_id", "predicted_iou"))
        ]
    if not sums:
        return {}
    whole = pa.concat_tables(sums).group_by("image_id", use_threads=False)
    added = whole.aggregate([("predicted_iou_sum", "sum"), ("predicted_iou_count", "sum")])
    means = pc.divide(added["predicted_iou_sum_sum"], added["predicted_iou_count_sum"])
    doubts = pc.subtract(1.0, means).to_pylist()
    return dict(zip(added["image_id"].to_pylist(), doubts, strict=True))


def _masked_by_people(workspace: Workspace) -> NDArray[np.int64]:
    release = latest_release(workspace)
    if release is None:
        return np.empty(0, dtype=np.int64)
    with ReleaseReader.of(workspace, release, stages=HUMAN_STAGES) as reader:
        return reader.masked_ids()


def _given_out(db: Database) -> NDArray[np.int64]:
    """Return the images of the campaigns that go on, and those that somebody has worked on."""
    in_campaigns = (
        select(CampaignImageRow.image_id)
        .join(CampaignRow, CampaignRow.campaign_id == CampaignImageRow.campaign_id)
        .where(CampaignRow.closed_at.is_(None))
    )
    worked_on = select(TaskRow.image_id).where(
        or_(TaskRow.round > 0, TaskRow.state.not_in(("pending", "open")))
    )
    with db.reading() as session:
        found = [*session.scalars(in_campaigns), *session.scalars(worked_on)]
    return np.array(found, dtype=np.int64)
