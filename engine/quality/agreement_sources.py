"""Images that have masks of a model and of people: in a release, and in the annotation database.

    images = released_pairs(workspace, release, config)          # automatic masks
    images = proposed_pairs(workspace, db, release, config)      # what people were shown first

Either is a seeded sample of bounded size; masks are read image by image and stay RLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.annotation.database import Database
from engine.annotation.reviewed_proposals import read_reviewed, reviewed_images
from engine.dataset.catalog import Workspace
from engine.dataset.reader import ReleaseReader
from engine.dataset.release_masks import HUMAN_STAGES
from engine.dataset.releases import scan_batches
from engine.quality.agreement import AgreementConfig, ComparedImage
from engine.records import Release, Rle

__all__ = ["proposed_pairs", "released_pairs"]

AUTOMATIC_STAGES = ("auto",)
_COLUMNS = ("size_h", "size_w", "counts", "stage", "model_id", "run_id")


def released_pairs(
    workspace: Workspace, release: Release, config: AgreementConfig
) -> Iterator[ComparedImage]:
    """Yield images that have automatic masks and people's in a release, ascending by id.

    Of a model, and of people in a stage, the newest masks of an image count.

    Raises:
        WorkspaceError: a file that is missing or damaged.
    """
    with (
        ReleaseReader.of(workspace, release, HUMAN_STAGES) as human,
        ReleaseReader.of(workspace, release, AUTOMATIC_STAGES) as made,
    ):
        with_both = np.intersect1d(
            _with_masks(workspace, release, human), _with_masks(workspace, release, made)
        )
        for image_id in _sampled(with_both, config):
            by_model = _newest(made.masks_of(image_id, _COLUMNS), "model_id", release.runs)
            by_stage = _newest(human.masks_of(image_id, _COLUMNS), "stage", release.runs)
            for model_id, masks in by_model.items():
                for stage, wanted in by_stage.items():
                    yield ComparedImage(
                        image_id=image_id,
                        uri=_uri(human, image_id),
                        source="automatic",
                        model_id=model_id,
                        stage=stage,
                        made=masks,
                        human=wanted,
                    )


def proposed_pairs(
    workspace: Workspace, db: Database, release: Release, config: AgreementConfig
) -> Iterator[ComparedImage]:
    """Yield images whose proposals people have gone through, as far as the release has their masks.

    Raises:
        WorkspaceError: the release is damaged, or the database.
        TransientError: the database is busy.
    """
    reviewed = reviewed_images(db, release.runs)
    chosen = _sampled(np.arange(len(reviewed)), config)
    with ReleaseReader.of(workspace, release, HUMAN_STAGES) as reader:
        for place in chosen:
            image = read_reviewed(db, reviewed[place])
            yield ComparedImage(
                image_id=image.image_id,
                uri=_uri(reader, image.image_id),
                source="proposals",
                model_id=image.model_id,
                stage=image.stage,
                made=image.proposals,
                human=image.masks,
            )


def _with_masks(workspace: Workspace, release: Release, reader: ReleaseReader) -> NDArray[np.int64]:
    """Return the images with masks of a reader's stages, by the small table of what runs did."""
    runs = pa.array(sorted({file.key.split("/")[1] for file in reader.mask_files.files}))
    found = [np.empty(0, np.int64)]
    for batch in scan_batches(
        workspace, release, "image_runs", ("image_id", "run_id", "masks"), "masks > 0"
    ):
        of_runs = pc.is_in(batch.column("run_id"), value_set=runs.cast(pa.string()))
        found.append(batch.column("image_id").filter(of_runs).to_numpy())
    return np.unique(np.concatenate(found))


def _sampled(places_N: NDArray[np.int64], config: AgreementConfig) -> list[int]:
    random = np.random.default_rng(config.seed)
    count = min(config.images, len(places_N))
    return sorted(random.choice(places_N, count, replace=False).tolist())


def _newest(rows: pa.Table, column: str, runs: Sequence[str]) -> Mapping[str, list[Rle]]:
    """Return masks by the value of a column, for each those of its newest run."""
    age = {run_id: number for number, run_id in enumerate(runs)}
    newest: dict[str, int] = {}
    found: dict[str, list[Rle]] = {}
    for row in rows.to_pylist():
        group, number = row[column], age.get(row["run_id"], -1)
        if number > newest.get(group, -2):
            newest[group], found[group] = number, []
        if number == newest[group]:
            found[group].append(Rle(row["size_h"], row["size_w"], row["counts"]))
    return found


def _uri(reader: ReleaseReader, image_id: int) -> str:
    position = reader.image_rows.position(image_id)
    return "" if position is None else reader.image_rows.records(np.array([position]))[0].uri
