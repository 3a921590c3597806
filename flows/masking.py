"""The fully automatic stage, step by step: photos in, a release of masks out.

>>> outcome = mask_photos(["photos/"], workspace="maskwheel-data")

Ingest the photos, plan a run over those that this model and these settings have not masked yet,
mask one shard per step, publish a release. Every step can be repeated: after a kill the same call
continues with the shards that are missing, and a call with nothing to do does nothing.

`flows.fully_automatic` makes a flow of it. Called as it is, it works alone in this thread, without
Prefect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic

from engine.automatic.config import AutomaticConfig
from engine.automatic.pipeline import best_images_at_once
from engine.automatic.shard_worker import ModelSpec, cached_model, pinned, run_shard
from engine.config import Settings, TaskRunnerName, current_time, load_settings
from engine.dataset.audit_reports import load_reports
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import (
    IngestResult,
    expand_inputs,
    ingest,
    known_images,
    load_images,
)
from engine.dataset.releases import latest_release
from engine.dataset.runs import (
    Recipe,
    commit_run,
    load_run,
    pending_shards,
    plan_runs,
    record_unusable,
    run_statuses,
    shard_size,
)
from engine.dataset.shards import ImageStatus
from engine.errors import PartlyDoneError, RefusedError
from engine.images import ImageLimits
from engine.objects import absolute_address
from engine.quality.gate import audit
from engine.records import AutomaticOutcome, Shard, ShardOutcome, SkippedImage
from flows.artifacts.automatic import show_audit, show_outcome, told
from flows.artifacts.progress import Progress
from flows.events import announce
from flows.limits import image_limits
from flows.naming import counted, describe_run
from flows.progress import listener
from flows.steps import in_prefect_run, step
from flows.workers import WorkerLostError, hired, planned_with, stop_if_left

logger = logging.getLogger(__name__)

Setting = float | int | bool

# How often in a row workers may be lost before a single shard is made.
_FRUITLESS_ROUNDS = 3
# So many failures before the first shard that is made say that no other will be.
_HOPELESS = 10


def mask_photos(
    photos: list[str] | None = None,
    *,
    workspace: str,
    model: str = "bundled",
    device: str | None = None,
    precision: str = "float32",
    preset: str | None = None,
    settings: dict[str, Setting] | None = None,
    images_per_shard: int | None = None,
    task_runner: TaskRunnerName | None = None,
    workers: int | None = None,
) -> AutomaticOutcome:
    """Mask everything in the photos and publish a release.

    Args:
        photos: files, folders, globs and lists of URIs; None: all images of the workspace.
        workspace: folder of the data set, or ``s3://bucket/prefix``; made if it does not exist.
        model: a name, a checkpoint file, or a model of the workspace: ``m2``, ``champion``.
        device: ``cpu``, ``cuda``, ``mps``; by default the best there is.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        preset: ``paper`` for the crops of SA-1B, ``fast`` for speed at the cost of some masks.
        settings: fields of `AutomaticConfig`; they win over the model's and the preset's.
        images_per_shard: images in one task and file.
        task_runner: who makes the shards, see `Settings`; by default as the settings say.
        workers: shards made at the same time; likewise.

    Raises:
        BadInputError: photos, model or settings that cannot be used.
        PartlyDoneError: shards failed; the others are kept.
        RefusedError: the audit refused a run; it is kept, and what it did not refuse is published.
    """
    began = monotonic()
    workspace = absolute_address(workspace)
    staff = load_settings(task_runner=task_runner, workers=workers)
    spec = pinned(ModelSpec(model, device, precision, workspace, staff.compile))
    describe_run(workspace=workspace, stage="automatic", model=spec.model)
    found = images_of_workspace(workspace) if photos is None else ingest_photos(photos, workspace)
    name = f"mask {counted(len(found.image_ids), 'photo')} with {Path(spec.model).name}"
    describe_run(name)
    run_ids = plan(
        found, workspace, planned_with(spec, staff), preset, settings or {}, images_per_shard
    )
    made: list[ShardOutcome] = []
    statuses: list[ImageStatus] = []
    refusals: list[RefusedError] = []
    for run_id in run_ids:
        made += mask_run(run_id, workspace, spec, staff)
        try:
            statuses += publish(run_id, workspace)
        except RefusedError as error:  # a person decides; the other runs do not wait for that
            refusals.append(error)
    outcome = summarise(found, statuses, workspace, monotonic() - began)
    describe_run(release=outcome.release)
    if in_prefect_run():
        show_outcome(outcome, statuses, made, workspace=workspace, model=spec.model)
    if refusals:
        commit_ids = tuple(commit_id for error in refusals for commit_id in error.commit_ids)
        raise RefusedError("; ".join(map(str, refusals)), commit_ids)
    return outcome


def mask_run(run_id: str, workspace: str, spec: ModelSpec, staff: Settings) -> list[ShardOutcome]:
    """Mask the shards of a run that are missing, one task each.

    Workers that are lost cost what they were at: it is asked for again.

    Raises:
        PartlyDoneError: some failed; the others are written.
    """
    made: list[ShardOutcome] = []
    fruitless = 0
    while missing := missing_shards(run_id, workspace):
        results = mask_shards(missing, workspace, spec, staff)
        failures = [result for result in results if isinstance(result, Exception)]
        written = [result for result in results if isinstance(result, ShardOutcome)]
        made += written
        if not failures:
            break
        fruitless = 0 if written else fruitless + 1
        lost = [failure for failure in failures if isinstance(failure, WorkerLostError)]
        if not lost or fruitless == _FRUITLESS_ROUNDS:
            raise PartlyDoneError(
                f"{len(failures)} of {len(missing)} shards of run {run_id} failed, the first with "
                f"{failures[0]!r}; run the same command again to make them"
            ) from failures[0]
        logger.warning("%d shards are tried again: %s", len(lost), lost[0])
    return made


def missing_shards(run_id: str, workspace: str) -> list[Shard]:
    """Return the shards of a run that have not been written."""
    with Workspace.open(workspace) as opened:
        return pending_shards(opened.store, load_run(opened.store, run_id))


def mask_shards(
    shards: Sequence[Shard], workspace: str, spec: ModelSpec, staff: Settings
) -> list[ShardOutcome | Exception]:
    """Have the shards masked by whom the settings name; return what came of each that was tried."""
    limits = image_limits()
    calls = (
        {
            "run_id": shard.run_id,
            "index": shard.index,
            "workspace": workspace,
            "spec": spec,
            "limits": limits,
        }
        for shard in shards
    )
    results: list[ShardOutcome | Exception] = []
    made = masks = 0
    listener().stage("masking", sum(len(shard.image_ids) for shard in shards))
    with _progress(len(shards)) as progress, hired(staff, spec.device) as workers:
        for result in workers.each(mask_shard, calls):
            results.append(result)
            if isinstance(result, ShardOutcome):
                made += 1
                masks += result.masks
                if not workers.share_this_process:
                    listener().images(result.images, result.masks)
                progress(f"{masks:,} masks")
                logger.info("%d of %d: %s", len(results), len(shards), told(result))
            elif not made and len(results) == _HOPELESS:
                break
    return results


@contextmanager
def _progress(shards: int) -> Iterator[Callable[[str], None]]:
    """Yield what counts a shard and takes a note, for the Prefect UI where there is one."""
    if not in_prefect_run():
        yield lambda note: None
        return
    with Progress(shards, "masking") as progress:
        yield lambda note: progress.advance(note=note)


@step("images of the workspace")
def images_of_workspace(workspace: str) -> IngestResult:
    """List all images that the workspace knows."""
    with Workspace.open(workspace, create=False) as opened:
        return known_images(opened)


@step("ingest")
def ingest_photos(photos: list[str], workspace: str) -> IngestResult:
    """Read the photos and add the new ones to table ``images``."""
    images = expand_inputs(photos)
    settings = load_settings()
    listener().stage("reading photos", len(images))
    with Workspace.open(workspace) as opened:
        return ingest(
            opened,
            images,
            image_limits(),
            current_time(),
            on_image=lambda uri: listener().image(uri, 0),
            threads=settings.read_threads,
        )


@step("plan")
def plan(
    found: IngestResult,
    workspace: str,
    spec: ModelSpec,
    preset: str | None,
    settings: dict[str, Setting],
    images_per_shard: int | None,
) -> list[str]:
    """Load the model and write the manifests of the runs that are due; return their ids."""
    sam = cached_model(spec)
    config = AutomaticConfig.for_model(sam, settings, preset)
    recipe = Recipe.of(sam.model_id(), config.result_fields())
    wanted = load_settings(images_per_shard=images_per_shard).images_per_shard
    size = wanted or shard_size(len(found.image_ids))
    with Workspace.open(workspace) as opened:
        runs = plan_runs(opened, found.image_ids, recipe, size, current_time())
        for run in runs:
            record_unusable(opened.store, run.run_id, found.skipped)
    for run in runs:
        photos = sum(len(shard.image_ids) for shard in run.shards)
        logger.info(
            "run %s: %s to mask in %s; settings: %s",
            run.run_id,
            counted(photos, "photo"),
            counted(len(run.shards), "shard"),
            ", ".join(f"{name} {value:g}" for name, value in config.result_fields().items()),
        )
    if not runs:
        logger.info("nothing to do: all images were masked with this model and these settings")
    return [run.run_id for run in runs]


@step("shard {index}")
def mask_shard(
    run_id: str, index: int, workspace: str, spec: ModelSpec, limits: ImageLimits
) -> ShardOutcome:
    """Mask the images of one shard and write its Parquet file."""
    sam = cached_model(spec)
    with Workspace.open(workspace, create=False) as opened:
        manifest = load_run(opened.store, run_id)
        return run_shard(
            opened,
            manifest.shards[index],
            manifest,
            sam,
            limits,
            on_image=_image_done,
            images_at_once=best_images_at_once(sam.device),
        )


def _image_done(uri: str, masks: int) -> None:
    stop_if_left()
    listener().image(uri, masks)


@step("publish {run_id}")
def publish(run_id: str, workspace: str) -> list[ImageStatus]:
    """Audit a complete run and make its release; return what became of its images.

    Raises:
        RefusedError: the audit refused it.
    """
    with Workspace.open(workspace) as opened:
        manifest = load_run(opened.store, run_id)
        try:
            commit_run(opened, manifest, audit, announce=announce)
        except RefusedError:
            _show_audit(opened, run_id)
            raise
        _show_audit(opened, run_id)
        return list(run_statuses(opened.store, manifest))


def _show_audit(opened: Workspace, run_id: str) -> None:
    if in_prefect_run():
        show_audit(load_reports(opened.store, run_id))


def summarise(
    found: IngestResult, statuses: Sequence[ImageStatus], workspace: str, seconds: float
) -> AutomaticOutcome:
    """Say in numbers what a run did."""
    unusable = [status for status in statuses if status.status == "skipped"]
    with Workspace.open(workspace) as opened:
        release = latest_release(opened)
        images = load_images(opened, [status.image_id for status in unusable])
    counts = [status.masks for status in statuses if status.status == "masked"]
    skipped = [
        SkippedImage(image.uri, status.reason or "unknown", status.message or "")
        for image, status in zip(images, unusable, strict=True)
    ]
    return AutomaticOutcome(
        release=release.name if release else None,
        images_listed=len(found.image_ids),
        images_masked=len(counts),
        images_without_masks=counts.count(0),
        duplicates=found.duplicates,
        masks=sum(counts),
        median_masks_per_image=float(median(counts)) if counts else 0.0,
        skipped=(*found.skipped, *skipped),
        seconds=seconds,
    )
