"""Runs of the automatic stage: plan, resume, commit.

    for run in plan_runs(workspace, image_ids, recipe, images_per_shard=64, now=now):
        for shard in pending_shards(workspace.store, run): ...       # the workers' part
        release = commit_run(workspace, run, gate)

A run is a manifest, ``runs/<run_id>/run.json``, written once. The runs of one recipe are numbered,
and only one planner can take a number: the others plan again, now knowing its images. So no image
is masked twice by the same recipe, whoever plans when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

from engine.announcements import Announce
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Gate, Publication, publish, published_as, settle
from engine.dataset.releases import latest_release, list_releases, scan
from engine.dataset.schemas import arrow_schema
from engine.dataset.shards import ImageStatus, Provenance, read_shard_statuses
from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import Release, Shard, SkippedImage

__all__ = [
    "Recipe",
    "RunKind",
    "RunManifest",
    "Stage",
    "commit_run",
    "keep_run",
    "load_run",
    "pending_shards",
    "plan_runs",
    "publication_of",
    "publish_run",
    "record_unusable",
    "run_exists",
    "run_statuses",
    "shard_size",
    "unusable_files",
]

RunKind = Literal["auto", "import", "annotation"]
Stage = Literal["manual", "semi", "auto"]

_SHARDS, _MIN_SHARD, _MAX_SHARD = 200, 4, 512
_UNUSABLE = "unusable.json"
# Every task reads its run's plan: of more images, reading plans would cost more than the rest.
MOST_IMAGES_OF_A_RUN = 131_072
# Footers are small and a bucket answers slowly: they are read side by side.
_READERS = 16

# Reasons to skip an image that may be gone the next time: a drive that was not mounted, a file that
# was put back. Such an image is tried again; all other images count as done, masks or not.
_PASSING_REASONS = ("not-found", "unreadable", "forbidden", "unreachable", "changed")
_NO_IDS: NDArray[np.int64] = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model and the settings it is run with; equal recipes give equal masks.

    Attributes:
        model_id: the model's version.
        config_json: the settings as canonical JSON; see `of`.
    """

    model_id: str
    config_json: str

    @classmethod
    def of(cls, model_id: str, config: Mapping[str, object]) -> Recipe:
        """Make a recipe from settings such as ``dataclasses.asdict(AutomaticConfig())``.

        Raises:
            BadInputError: settings that JSON cannot hold (also NaN and infinity).
        """
        try:
            text = json.dumps(dict(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInputError(f"settings that JSON cannot hold: {error}") from error
        return cls(model_id, text)

    @property
    def recipe_id(self) -> str:
        """16 hex digits, from the model and the settings."""
        return hashlib.sha256(f"{self.model_id}\n{self.config_json}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class RunManifest:
    """The plan of a run; never changes once written.

    Attributes:
        run_id: ``"auto-<recipe id>-<number>"``; of an import, ``"import-..."``; of people's work,
            ``"annotation-<campaign>-<number>"``.
        recipe: what the images are masked with.
        created_at: UTC; the time on everything that the run makes.
        shards: the images, cut into tasks, ascending.
        kind: whether a model makes the masks here, they come from elsewhere, or people make them.
        stage: what stands on its masks.
    """

    run_id: str
    recipe: Recipe
    created_at: datetime
    shards: tuple[Shard, ...]
    kind: RunKind = "auto"
    stage: Stage = "auto"

    @property
    def provenance(self) -> Provenance:
        """What all masks of the run have in common."""
        return Provenance(
            run_id=self.run_id,
            recipe_id=self.recipe.recipe_id,
            model_id=self.recipe.model_id,
            stage=self.stage,
            created_at=self.created_at,
        )


def plan_runs(
    workspace: Workspace,
    image_ids: Collection[int],
    recipe: Recipe,
    images_per_shard: int,
    now: datetime,
    *,
    kind: RunKind = "auto",
    stage: Stage = "auto",
) -> list[RunManifest]:
    """Return what is to be done: the recipe's unfinished runs, then new ones for other images.

    Args:
        workspace: the data set.
        image_ids: images to be masked, in any order; those that the recipe has already covered,
            with or without masks, are left out.
        recipe: what to mask them with.
        images_per_shard: at least 1; a resumed run keeps the size it was planned with.
        now: UTC; start of the new run.
        kind: of the new run; always the same for one recipe.
        stage: of the new run's masks; likewise.

    Returns:
        Runs to complete and commit, in this order; empty when nothing is left to do. A run whose
        shards are all there still has to be committed.

    Raises:
        BadInputError: `images_per_shard` below 1.
        WorkspaceError: a manifest that is damaged, or a workspace that cannot be written.
    """
    if images_per_shard < 1:
        raise BadInputError(f"got {images_per_shard} images per shard; expected at least 1")
    settle(workspace)
    while True:
        releases = list_releases(workspace)
        published = {run_id for release in releases for run_id in release.runs}
        runs = _runs_of(workspace.store, recipe, published, kind)
        unfinished = [load_run(workspace.store, run) for run in runs if run not in published]
        # Coverage is the latest release's: images of a run that was rolled back are free again.
        # What is published meanwhile still counts as unfinished.
        covered = _covered(workspace, releases[-1], recipe) if releases else _NO_IDS
        left = _left(image_ids, covered, unfinished)
        if not left:
            return unfinished
        run_id = _run_id(recipe, len(runs) + 1, kind)
        manifest = _new_run(run_id, recipe, left[:MOST_IMAGES_OF_A_RUN], images_per_shard, now)
        manifest = replace(manifest, kind=kind, stage=stage)
        created = workspace.store.put_if_absent(_key(manifest.run_id), _to_json(manifest))
        if created and len(left) <= MOST_IMAGES_OF_A_RUN:
            return [*unfinished, manifest]


def shard_size(images: int) -> int:
    """Return how many images a shard of a run should hold.

    A kill costs at most the shard that was being made, so small runs have small shards; large runs
    have large ones, so that there are never too many files.
    """
    return min(max(images // _SHARDS, _MIN_SHARD), _MAX_SHARD)


def run_exists(store: ObjectStore, run_id: str) -> bool:
    """Return whether a run of the automatic stage was planned under this id."""
    return store.exists(_key(run_id))


def keep_run(store: ObjectStore, manifest: RunManifest) -> RunManifest:
    """Write the plan of a run whose id says what it is, unless there is one; return the plan.

    Raises:
        WorkspaceError: the plan that is there is damaged.
    """
    store.put_if_absent(_key(manifest.run_id), _to_json(manifest))
    return load_run(store, manifest.run_id)


def load_run(store: ObjectStore, run_id: str) -> RunManifest:
    """Return a run's manifest.

    Raises:
        WorkspaceError: it does not exist or is damaged.
    """
    try:
        fields = json.loads(store.get(_key(run_id)))
        return RunManifest(
            run_id=fields["run_id"],
            recipe=Recipe.of(fields["model_id"], fields["config"]),
            created_at=datetime.fromisoformat(fields["created_at"]),
            shards=tuple(
                Shard(fields["run_id"], index, tuple(image_ids))
                for index, image_ids in enumerate(fields["shards"])
            ),
            kind=fields.get("kind", "auto"),
            stage=fields.get("stage", "auto"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WorkspaceError(f"{store.uri(_key(run_id))} is damaged: {error!r}") from error


def pending_shards(store: ObjectStore, manifest: RunManifest) -> list[Shard]:
    """Return the shards of a run that have not been written, in order."""
    written = set(store.list(f"runs/{manifest.run_id}/"))
    return [shard for shard in manifest.shards if shard.key not in written]


def run_statuses(store: ObjectStore, manifest: RunManifest) -> Iterator[ImageStatus]:
    """Yield what became of each image of a run whose shards are all written, ascending.

    Raises:
        WorkspaceError: a shard that is missing or damaged.
    """
    for shard in manifest.shards:
        yield from read_shard_statuses(store, shard)


def record_unusable(store: ObjectStore, run_id: str, files: Sequence[SkippedImage]) -> None:
    """Keep beside a run which listed files could not become images; the first call counts."""
    text = json.dumps([asdict(file) for file in files], indent=1, ensure_ascii=False)
    store.put_if_absent(f"runs/{run_id}/{_UNUSABLE}", text.encode())


def unusable_files(store: ObjectStore, run_ids: Sequence[str]) -> tuple[SkippedImage, ...]:
    """Return the files that could not become images when these runs were planned, each once.

    Raises:
        WorkspaceError: a record that is damaged.
    """
    found: dict[str, SkippedImage] = {}
    for run_id in run_ids:
        key = f"runs/{run_id}/{_UNUSABLE}"
        if not store.exists(key):
            continue
        try:
            files = [SkippedImage(**item) for item in json.loads(store.get(key))]
        except (TypeError, ValueError) as error:
            raise WorkspaceError(f"{store.uri(key)} is damaged: {error!r}") from error
        found |= {file.uri: file for file in files}
    return tuple(found.values())


def commit_run(
    workspace: Workspace,
    manifest: RunManifest,
    gate: Gate | None = None,
    *,
    accepted: str | None = None,
    note: str = "",
    announce: Announce | None = None,
) -> Release:
    """Publish a complete run. Replayable, also concurrently; arguments as of `publish`.

    Returns:
        The run's release; the same one however often and from wherever it is committed.

    Raises:
        RefusedError: the gate refused and nobody accepted it; nothing is published.
        WorkspaceError: shards that are missing, or a workspace that cannot be written.
        TransientError: the catalog stayed busy.
    """
    # Asked before the footers are read, which takes long for a large run.
    latest = latest_release(workspace)
    if latest is not None and manifest.run_id in latest.runs:
        done = published_as(list_releases(workspace), manifest.run_id)
        if done is not None:
            settle(workspace)
            return done
    if pending := pending_shards(workspace.store, manifest):
        raise WorkspaceError(
            f"run {manifest.run_id} lacks {len(pending)} of {len(manifest.shards)} shards; run "
            "the same command again to make them"
        )
    publication = replace(publication_of(workspace.store, manifest), note=note)
    return publish(workspace, publication, gate, accepted=accepted, announce=announce)


def publish_run(
    workspace: Workspace,
    run_id: str,
    gate: Gate | None = None,
    *,
    accepted: str | None = None,
    announce: Announce | None = None,
) -> Release:
    """Publish a run by its id, e.g. one that the gate refused and a person accepts.

    Raises:
        BadInputError: there is no such run.
        RefusedError, WorkspaceError, TransientError: as `commit_run`.
    """
    if not run_exists(workspace.store, run_id):
        raise BadInputError(
            f"got the run {run_id!r}, which this workspace does not have; its runs are the folders "
            f"in {workspace.store.uri('runs')}"
        )
    manifest = load_run(workspace.store, run_id)
    return commit_run(workspace, manifest, gate, accepted=accepted, announce=announce)


def publication_of(store: ObjectStore, manifest: RunManifest) -> Publication:
    """Return what a complete run publishes, from its plan and its shards.

    Raises:
        WorkspaceError: a shard that is missing or damaged.
    """

    def image_runs(shard: Shard) -> pa.Table:
        rows = [{**asdict(status), **common} for status in read_shard_statuses(store, shard)]
        return pa.Table.from_pylist(rows, schema=arrow_schema("image_runs"))

    common = {
        "run_id": manifest.run_id,
        "recipe_id": manifest.recipe.recipe_id,
        "created_at": manifest.created_at,
    }
    with ThreadPoolExecutor(_READERS) as pool:
        rows = list(pool.map(image_runs, manifest.shards))
    with_masks = (
        shard
        for shard, of_shard in zip(manifest.shards, rows, strict=True)
        if pc.any(pc.greater(of_shard["masks"], 0)).as_py()
    )
    return Publication(
        commit_id=manifest.run_id,
        kind="run" if manifest.kind == "auto" else manifest.kind,
        created_at=manifest.created_at,
        files=tuple(store.uri(shard.key) for shard in with_masks),
        image_runs=pa.concat_tables(rows),
        runs=(manifest.run_id,),
        models=(manifest.recipe.model_id,) if manifest.recipe.model_id else (),
        configs={manifest.run_id: manifest.recipe.config_json},
    )


def _covered(workspace: Workspace, release: Release, recipe: Recipe) -> NDArray[np.int64]:
    """Return the images that a recipe has masked, or tried in vain, in a release."""
    rows = scan(
        workspace,
        release,
        "image_runs",
        ("image_id", "reason"),
        EqualTo(term=Reference("recipe_id"), value=literal(recipe.recipe_id)),
    )
    may_pass = pc.is_in(rows["reason"], value_set=pa.array(_PASSING_REASONS))
    image_ids: NDArray[np.int64] = rows.filter(pc.invert(may_pass))["image_id"].to_numpy()
    return image_ids


def _left(
    image_ids: Collection[int], covered: NDArray[np.int64], unfinished: Sequence[RunManifest]
) -> list[int]:
    planned = [i for run in unfinished for shard in run.shards for i in shard.image_ids]
    taken = np.union1d(covered, np.asarray(planned, dtype=np.int64))
    wanted = np.fromiter(image_ids, dtype=np.int64, count=len(image_ids))
    left: list[int] = np.setdiff1d(wanted, taken).tolist()
    return left


def _runs_of(
    store: ObjectStore, recipe: Recipe, published: Collection[str], kind: RunKind
) -> list[str]:
    """Return the ids of a recipe's runs: numbered without gaps, as each takes the first free.

    The number of a published run stays taken even if its manifest was removed.
    """
    runs: list[str] = []
    while True:
        run_id = _run_id(recipe, len(runs) + 1, kind)
        if run_id not in published and not store.exists(_key(run_id)):
            return runs
        runs.append(run_id)


def _new_run(
    run_id: str, recipe: Recipe, image_ids: Sequence[int], images_per_shard: int, now: datetime
) -> RunManifest:
    starts = range(0, len(image_ids), images_per_shard)
    shards = (
        Shard(run_id, index, tuple(image_ids[start : start + images_per_shard]))
        for index, start in enumerate(starts)
    )
    return RunManifest(run_id, recipe, now, tuple(shards))


def _run_id(recipe: Recipe, number: int, kind: RunKind) -> str:
    return f"{kind}-{recipe.recipe_id}-{number:04d}"


def _key(run_id: str) -> str:
    return f"runs/{run_id}/run.json"


def _to_json(manifest: RunManifest) -> bytes:
    fields = {
        "format": 1,
        "run_id": manifest.run_id,
        "recipe_id": manifest.recipe.recipe_id,
        "model_id": manifest.recipe.model_id,
        "config": json.loads(manifest.recipe.config_json),
        "created_at": manifest.created_at.isoformat(),
        "kind": manifest.kind,
        "stage": manifest.stage,
        "shards": [shard.image_ids for shard in manifest.shards],
    }
    return json.dumps(fields).encode()
