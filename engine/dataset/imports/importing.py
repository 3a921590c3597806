"""Import: list, ingest, plan a run, write its shards, publish.

    report = import_masks(workspace, CocoSource("annotations.json"), ImportOptions(),
                          limits=ImageLimits(), now=now, gate=audit)

An import is a run like those of the automatic stage (`engine.dataset.runs`), called
``import-<recipe id>-<number>``. Its recipe is the content of the source with the options: the same
import adds nothing the second time, one that was killed goes on, and one that is called again when
missing images have come adds those. ``import.json`` beside its shards says what was imported.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.announcements import Announce
from engine.dataset.catalog import Workspace
from engine.dataset.imports.image_index import ImageIndex
from engine.dataset.imports.protocol import ImportSource
from engine.dataset.imports.run_files import (
    REJECTED_FILE,
    RunTotals,
    beside_run,
    write_run,
)
from engine.dataset.publishing import Gate
from engine.dataset.releases import latest_release
from engine.dataset.runs import (
    Recipe,
    RunManifest,
    Stage,
    commit_run,
    plan_runs,
    shard_size,
)
from engine.errors import BadInputError
from engine.images import ImageLimits

__all__ = ["SUMMARY_FILE", "ImportOptions", "ImportReport", "import_masks"]

log = logging.getLogger(__name__)

SUMMARY_FILE = "import.json"
# Stands in the recipe: how annotations become masks. Raise it when that changes.
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the imported masks are.

    Attributes:
        stage: ``"manual"`` for masks that people drew, ``"semi"`` for those that they corrected,
            ``"auto"`` for a model's.
        model_id: what made them; None: ``"human"`` for manual ones, else ``"imported"``.
        keep_crowd: import crowd regions, which are no single objects, as masks too.
        split: of images for which the source names none.
    """

    stage: Stage = "manual"
    model_id: str | None = None
    keep_crowd: bool = False
    split: str | None = None

    @property
    def maker(self) -> str:
        """What stands as the masks' model."""
        return self.model_id or ("human" if self.stage == "manual" else "imported")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did.

    Attributes:
        release: the newest release afterwards; None without any.
        runs: ids of the runs that it made or completed; none when all was there already.
        images: images of these runs, with or without masks.
        masks: masks of these runs.
        images_rejected: number of images that cannot be used, by reason.
        masks_rejected: number of masks likewise; of images that cannot be used, all.
        rejected: address of the list of both; None without any.
    """

    release: str | None
    runs: tuple[str, ...]
    images: int
    masks: int
    images_rejected: dict[str, int]
    masks_rejected: dict[str, int]
    rejected: str | None


def import_masks(
    workspace: Workspace,
    source: ImportSource,
    options: ImportOptions,
    *,
    limits: ImageLimits,
    now: datetime,
    gate: Gate | None = None,
    threads: int = 8,
    on_image: Callable[[str, int], None] | None = None,
    on_stage: Callable[[str, int | None], None] | None = None,
    announce: Announce | None = None,
) -> ImportReport:
    """Import a data set of another format and publish it.

    Args:
        workspace: the data set that it joins.
        source: what to import.
        options: what its masks are.
        limits: images beyond them cannot be used.
        now: UTC.
        gate: audits the import before it is published; see `publish`.
        threads: images read at the same time.
        on_image: called with address and number of masks of an image: 0 when it has been read, its
            masks when they are written.
        on_stage: called with each stage of the work, and its number of images when that is known.
        announce: told of each release.

    Raises:
        BadInputError: a source that is not of its format, or none of whose images can be used.
        RefusedError: the gate refused; nothing is published, the run is kept.
        WorkspaceError: the workspace is damaged or cannot be written.
        TransientError: storage or catalog stayed busy; the same call goes on.
    """
    count = on_image or (lambda uri, masks: None)
    begin = on_stage or (lambda title, total: None)
    with (
        tempfile.TemporaryDirectory(prefix="maskwheel-import-") as name,
        ImageIndex(Path(name)) as index,
    ):
        begin("reading photos", None)
        index.fill(
            workspace,
            source,
            limits,
            now,
            split=options.split,
            threads=threads,
            on_image=lambda uri: count(uri, 0),
        )
        image_ids = index.image_ids()
        if not image_ids:
            raise BadInputError(_no_images(source, index))
        config = _config(source, options)
        recipe = Recipe.of(options.maker, config)
        size = shard_size(len(image_ids))
        manifests = plan_runs(
            workspace, image_ids, recipe, size, now, kind="import", stage=options.stage
        )
        present = set(image_ids)
        totals = RunTotals()
        for manifest in manifests:
            begin("writing masks", sum(len(shard.image_ids) for shard in manifest.shards))
            written = _write(workspace, source, options, index, manifest, present, count)
            _keep_summary(workspace, source, config, index, manifest, written)
            totals.images += written.images
            totals.masks += written.masks
            totals.rejected += written.rejected
            commit_run(workspace, manifest, gate, announce=announce)
        return _report(workspace, index, manifests, totals)


def _report(
    workspace: Workspace, index: ImageIndex, manifests: Sequence[RunManifest], totals: RunTotals
) -> ImportReport:
    release = latest_release(workspace)
    rejected = None
    if manifests and (index.rejected or totals.rejected):
        rejected = workspace.store.uri(beside_run(manifests[-1].run_id, REJECTED_FILE))
    return ImportReport(
        release=release.name if release else None,
        runs=tuple(manifest.run_id for manifest in manifests),
        images=totals.images,
        masks=totals.masks,
        images_rejected=index.reasons,
        masks_rejected=dict(totals.rejected),
        rejected=rejected,
    )


def _write(
    workspace: Workspace,
    source: ImportSource,
    options: ImportOptions,
    index: ImageIndex,
    manifest: RunManifest,
    present: set[int],
    on_image: Callable[[str, int], None],
) -> RunTotals:
    with tempfile.TemporaryDirectory(prefix="maskwheel-import-") as name:
        masks = source.masks(index.usable(), keep_crowd=options.keep_crowd, folder=Path(name))
        return write_run(
            workspace.store, manifest, masks, present, index.rejected, Path(name), on_image
        )


def _config(source: ImportSource, options: ImportOptions) -> dict[str, object]:
    """Return what makes two imports the same."""
    return {
        "import": source.format,
        "version": _VERSION,
        "source_sha256": source.fingerprint(),
        "stage": options.stage,
        "keep_crowd": options.keep_crowd,
    }


def _keep_summary(
    workspace: Workspace,
    source: ImportSource,
    config: dict[str, object],
    index: ImageIndex,
    manifest: RunManifest,
    totals: RunTotals,
) -> None:
    fields = {
        **config,
        "source": source.address,
        "images": totals.images,
        "masks": totals.masks,
        "images_rejected": index.reasons,
        "masks_rejected": dict(totals.rejected),
        "notes": dict(source.notes()),
    }
    text = json.dumps(fields, indent=1, ensure_ascii=False).encode()
    workspace.store.put_if_absent(beside_run(manifest.run_id, SUMMARY_FILE), text)


def _no_images(source: ImportSource, index: ImageIndex) -> str:
    if not index.rejected:
        return f"{source.address} lists no image; there is nothing to import"
    first = index.rejected[0]
    return (
        f"none of the {len(index.rejected)} images that {source.address} lists can be used; the "
        f"first, {first.image_key}: {first.message}; say with --images where the image files are"
    )
