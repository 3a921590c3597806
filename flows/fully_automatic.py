"""The fully automatic stage as a flow: photos in, a release of masks out.

>>> outcome = fully_automatic(["photos/"], workspace="maskwheel-data")

Ingest the photos, plan a run over those that this model and these settings have not masked yet,
mask one shard per task, publish a release. Every step can be repeated: after a kill the same call
continues with the shards that are missing, and a call with nothing to do does nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.tasks import Task

from engine.automatic.config import AutomaticConfig
from engine.automatic.shard_worker import ModelSpec, cached_model, pinned, run_shard
from engine.config import current_time, load_settings
from engine.dataset.audit_reports import GateReport, load_reports
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import IngestResult, expand_inputs, ingest, load_images
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
from engine.errors import PartlyDoneError, RefusedError, TransientError
from engine.images import ImageLimits
from engine.quality.gate import audit
from engine.records import AutomaticOutcome, SkippedImage
from flows.progress import listener

Setting = float | int | bool

# torch uses all cores for one image; a second shard beside it would only cost memory.
ONE_AT_A_TIME: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=1)


def _is_transient(_: Task[..., object], __: TaskRun, state: State[object]) -> bool:
    return isinstance(state.result(raise_on_failure=False), TransientError)


def _run_name() -> str:
    parameters = flow_run.parameters
    photos = parameters["photos"]
    more = f" and {len(photos) - 1} more" if len(photos) > 1 else ""
    return f"mask {Path(photos[0]).name}{more} with {Path(parameters['model']).name}"


@flow(
    name="fully-automatic",
    flow_run_name=_run_name,
    task_runner=ONE_AT_A_TIME,  # type: ignore[arg-type]  # invariant in its future
)
def fully_automatic(
    photos: list[str],
    workspace: str,
    model: str = "bundled",
    device: str | None = None,
    precision: str = "float32",
    preset: str | None = None,
    settings: dict[str, Setting] | None = None,
    images_per_shard: int | None = None,
) -> AutomaticOutcome:
    """Mask everything in the photos and publish a release.

    Args:
        photos: files, folders, globs and lists of URIs.
        workspace: folder of the data set, or ``s3://bucket/prefix``; made if it does not exist.
        model: a name, a checkpoint file, or a model of the workspace: ``m2``, ``champion``.
        device: ``cpu``, ``cuda``, ``mps``; by default the best there is.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        preset: ``paper`` for the crops of SA-1B.
        settings: fields of `AutomaticConfig`; they win over the model's and the preset's.
        images_per_shard: images in one task and file.

    Raises:
        BadInputError: photos, model or settings that cannot be used.
        PartlyDoneError: shards failed; the others are kept.
        RefusedError: the audit refused a run; it is kept, and what it did not refuse is published.
    """
    began = monotonic()
    spec = pinned(ModelSpec(model, device, precision, workspace))
    found = ingest_photos(photos, workspace)
    run_ids = plan(found, workspace, spec, preset, settings or {}, images_per_shard)
    statuses: list[ImageStatus] = []
    refusals: list[RefusedError] = []
    for run_id in run_ids:
        mask_run(run_id, workspace, spec)
        try:
            statuses += publish(run_id, workspace)
        except RefusedError as error:  # a person decides; the other runs do not wait for that
            refusals.append(error)
    outcome = summarise(found, statuses, workspace, monotonic() - began)
    show_outcome(outcome)
    if refusals:
        commit_ids = tuple(commit_id for error in refusals for commit_id in error.commit_ids)
        raise RefusedError("; ".join(map(str, refusals)), commit_ids)
    return outcome


def mask_run(run_id: str, workspace: str, spec: ModelSpec) -> None:
    """Mask the shards of a run that are missing, one task each.

    Raises:
        PartlyDoneError: some failed; the others are written.
    """
    with Workspace.open(workspace) as opened:
        manifest = load_run(opened.store, run_id)
        missing = pending_shards(opened.store, manifest)
    listener().stage("masking", sum(len(shard.image_ids) for shard in missing))
    progress = _id(create_progress_artifact(progress=0.0, description=f"shards of {run_id}"))
    futures = [mask_shard.submit(run_id, shard.index, workspace, spec) for shard in missing]
    failures: list[BaseException] = []
    for done, future in enumerate(as_completed(futures), start=1):
        failures += _failure(future)
        update_progress_artifact(progress, progress=100.0 * done / len(missing))
    if failures:
        raise PartlyDoneError(
            f"{len(failures)} of {len(missing)} shards of run {run_id} failed, the first with "
            f"{failures[0]!r}; run the same command again to make them"
        ) from failures[0]


def _id(artifact: UUID | Coroutine[Any, Any, UUID]) -> UUID:
    """Narrow what Prefect's sync-or-async functions say they return."""
    if not isinstance(artifact, UUID):
        raise TypeError(f"expected an artifact's id from a synchronous flow; got {artifact!r}")
    return artifact


def _failure(future: PrefectFuture[bool]) -> list[BaseException]:
    result: object = future.result(raise_on_failure=False)
    return [result] if isinstance(result, BaseException) else []


@task(task_run_name="ingest", retries=2, retry_delay_seconds=2, retry_condition_fn=_is_transient)
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


@task(task_run_name="plan", retries=2, retry_delay_seconds=2, retry_condition_fn=_is_transient)
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
    logger = get_run_logger()
    for run in runs:
        logger.info("run %s: %d shards with %s", run.run_id, len(run.shards), config)
    if not runs:
        logger.info("nothing to do: all images were masked with this model and these settings")
    return [run.run_id for run in runs]


@task(
    task_run_name="shard {index} of {run_id}",
    retries=2,
    retry_delay_seconds=5,
    retry_condition_fn=_is_transient,
)
def mask_shard(run_id: str, index: int, workspace: str, spec: ModelSpec) -> bool:
    """Mask the images of one shard and write its Parquet file; True if it was not there."""
    with Workspace.open(workspace) as opened:
        manifest = load_run(opened.store, run_id)
        return run_shard(
            opened,
            manifest.shards[index],
            manifest,
            cached_model(spec),
            image_limits(),
            on_image=listener().image,
        )


@task(
    task_run_name="publish {run_id}",
    retries=5,
    retry_delay_seconds=2,
    retry_condition_fn=_is_transient,
)
def publish(run_id: str, workspace: str) -> list[ImageStatus]:
    """Audit a complete run and make its release; return what became of its images.

    Raises:
        RefusedError: the audit refused it.
    """
    with Workspace.open(workspace) as opened:
        manifest = load_run(opened.store, run_id)
        try:
            release = commit_run(opened, manifest, audit)
        except RefusedError:
            show_audit(load_reports(opened.store, run_id))
            raise
        show_audit(load_reports(opened.store, run_id))
        get_run_logger().info(
            "release %s: %d images, %d masks", release.name, release.images, release.masks
        )
        return list(run_statuses(opened.store, manifest))


def image_limits() -> ImageLimits:
    """Return the limits that the settings give."""
    settings = load_settings()
    return ImageLimits(max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes)


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


def show_audit(reports: Sequence[GateReport]) -> None:
    """Leave the last audit of a run in the Prefect UI as a table."""
    for report in reports[-1:]:
        rows: list[dict[str, Any]] = [
            {
                "check": check.name,
                "passed": "yes" if check.passed else "NO",
                "figure": check.figure,
                "limit": check.limit,
                "detail": check.detail,
            }
            for check in report.checks
        ]
        said = "passed" if report.passed else "refused"
        create_table_artifact(
            rows,
            key="audit",
            description=f"{report.commit_id} for {report.release}: {said}; "
            f"{report.sampled_masks} masks of {report.sampled_files} of {report.files} files read",
        )


def show_outcome(outcome: AutomaticOutcome) -> None:
    """Leave the outcome in the Prefect UI as tables."""
    rows: list[dict[str, Any]] = [
        {"what": "release", "value": outcome.release},
        {"what": "images masked", "value": outcome.images_masked},
        {"what": "masks", "value": outcome.masks},
        {"what": "masks per image (median)", "value": outcome.median_masks_per_image},
        {"what": "images without a mask", "value": outcome.images_without_masks},
        {"what": "duplicates", "value": outcome.duplicates},
        {"what": "skipped", "value": len(outcome.skipped)},
        {"what": "seconds", "value": round(outcome.seconds, 1)},
        {"what": "images per second", "value": round(outcome.images_per_second, 2)},
    ]
    create_table_artifact(rows, key="automatic-outcome", description="What the run did")
    if outcome.skipped:
        reasons = Counter(image.reason for image in outcome.skipped)
        create_table_artifact(
            [{"image": s.uri, "reason": s.reason, "message": s.message} for s in outcome.skipped],
            key="automatic-skipped",
            description=", ".join(f"{count} x {reason}" for reason, count in reasons.items()),
        )
