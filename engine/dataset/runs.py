"""Runs of the automatic stage: plan, resume, commit.

    for run in plan_runs(workspace, image_ids, recipe, images_per_shard=64, now=now):
        for shard in pending_shards(workspace.store, run): ...       # the workers' part
        release = commit_run(workspace, run)

A run is a manifest, ``runs/<run_id>/run.json``, written once. The runs of one recipe are numbered,
and only one planner can take a number: the others plan again, now knowing its images. So no image
is masked twice by the same recipe, whoever plans when.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import EqualTo, Reference
from pyiceberg.expressions.literals import literal

from engine.dataset.catalog import Commit, Workspace, commit_history
from engine.dataset.releases import list_releases, next_release_name, tag_releases, write_release
from engine.dataset.schemas import arrow_schema
from engine.dataset.shards import ImageStatus, Provenance, read_shard_statuses
from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import Release, Shard, SkippedImage

__all__ = [
    "Recipe",
    "RunManifest",
    "commit_run",
    "load_run",
    "pending_shards",
    "plan_runs",
    "record_unusable",
    "run_statuses",
    "shard_size",
    "unusable_files",
]

_SHARDS, _MIN_SHARD, _MAX_SHARD = 200, 4, 512
_UNUSABLE = "unusable.json"

# Reasons to skip an image that may be gone the next time: a drive that was not mounted, a file that
# was put back. Such an image is tried again; all other images count as done, masks or not.
_PASSING_REASONS = ("not-found", "unreadable", "changed")


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
        run_id: ``"auto-<recipe id>-<number>"``.
        recipe: what the images are masked with.
        created_at: UTC; the time on everything that the run makes.
        shards: the images, cut into tasks, ascending.
    """

    run_id: str
    recipe: Recipe
    created_at: datetime
    shards: tuple[Shard, ...]

    @property
    def provenance(self) -> Provenance:
        """What all masks of the run have in common."""
        return Provenance(
            run_id=self.run_id,
            recipe_id=self.recipe.recipe_id,
            model_id=self.recipe.model_id,
            created_at=self.created_at,
        )


def plan_runs(
    workspace: Workspace,
    image_ids: Collection[int],
    recipe: Recipe,
    images_per_shard: int,
    now: datetime,
) -> list[RunManifest]:
    """Return what is to be done: the recipe's unfinished runs, then one for the other images.

    Args:
        workspace: the data set.
        image_ids: images to be masked, in any order; those that the recipe has already covered,
            with or without masks, are left out.
        recipe: what to mask them with.
        images_per_shard: at least 1; a resumed run keeps the size it was planned with.
        now: UTC; start of the new run.

    Returns:
        Runs to complete and commit, in this order; empty when nothing is left to do. A run whose
        shards are all there still has to be committed.

    Raises:
        BadInputError: `images_per_shard` below 1.
        WorkspaceError: a manifest that is damaged, or a workspace that cannot be written.
    """
    if images_per_shard < 1:
        raise BadInputError(f"got {images_per_shard} images per shard; expected at least 1")
    while True:
        runs = _runs_of(workspace.store, recipe)
        releases = list_releases(workspace)
        tag_releases(workspace, releases)
        released = {run_id for release in releases for run_id in release.runs}
        unfinished = [load_run(workspace.store, run) for run in runs if run not in released]
        # Read after the releases: what was committed meanwhile is then in one of the two.
        left = _uncovered(workspace, image_ids, recipe, unfinished)
        if not left:
            return unfinished
        manifest = _new_run(_run_id(recipe, len(runs) + 1), recipe, left, images_per_shard, now)
        if workspace.store.put_if_absent(_key(manifest.run_id), _to_json(manifest)):
            return [*unfinished, manifest]


def shard_size(images: int) -> int:
    """Return how many images a shard of a run should hold.

    A kill costs at most the shard that was being made, so small runs have small shards; large runs
    have large ones, so that there are never too many files.
    """
    return min(max(images // _SHARDS, _MIN_SHARD), _MAX_SHARD)


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


def commit_run(workspace: Workspace, manifest: RunManifest) -> Release:
    """Add a complete run to the tables and make its release. Replayable, also concurrently.

    Runs enter table ``masks`` one after another; ``image_runs`` and the releases follow in that
    order. A commit first completes the runs before its own that were interrupted: everything that
    it takes is in the store. So a release always has both tables at the same run.

    Returns:
        The run's release; the same one however often and from wherever it is committed.

    Raises:
        WorkspaceError: shards that are missing, or a workspace that cannot be written.
        TransientError: the catalog stayed busy.
    """
    store = workspace.store
    if pending := pending_shards(store, manifest):
        raise WorkspaceError(
            f"run {manifest.run_id} lacks {len(pending)} of {len(manifest.shards)} shards; run "
            "the same command again to make them"
        )
    uris = [
        store.uri(shard.key)
        for shard in manifest.shards
        if any(status.masks for status in read_shard_statuses(store, shard))
    ]
    workspace.add_shards("masks", uris, commit_id=manifest.run_id)
    while True:
        releases = list_releases(workspace)
        released = {run_id for release in releases for run_id in release.runs}
        if manifest.run_id in released:
            tag_releases(workspace, releases)
            return next(r for r in releases if manifest.run_id in r.runs)
        history = commit_history(workspace.table("masks"))
        due = next(commit for commit in history if commit.commit_id not in released)
        _publish(workspace, due, releases)


def _publish(workspace: Workspace, masks: Commit, releases: Sequence[Release]) -> None:
    """Bring a run of table ``masks`` into ``image_runs`` and write its release.

    Another process may do the same, or be ahead: then the release's name is taken.
    """
    manifest = load_run(workspace.store, masks.commit_id)
    image_runs = workspace.append_rows(
        "image_runs", _image_run_rows(workspace.store, manifest), commit_id=manifest.run_id
    )
    images = commit_history(workspace.table("images"))
    if image_runs is None or not images:
        raise WorkspaceError(f"run {manifest.run_id} is about images that were never ingested")
    parent = releases[-1] if releases else None
    models = (*(parent.models if parent else ()), manifest.recipe.model_id)
    release = Release(
        name=next_release_name(releases),
        snapshots={
            "images": images[-1].snapshot_id,
            "masks": masks.snapshot_id,
            "image_runs": image_runs,
        },
        runs=(*(parent.runs if parent else ()), manifest.run_id),
        models=tuple(dict.fromkeys(models)),
        parent=parent.name if parent else None,
        images=images[-1].rows,
        masks=masks.rows,
        created_at=manifest.created_at,
    )
    write_release(workspace, release)


def _image_run_rows(store: ObjectStore, manifest: RunManifest) -> pa.Table:
    common = {
        "run_id": manifest.run_id,
        "recipe_id": manifest.recipe.recipe_id,
        "created_at": manifest.created_at,
    }
    rows = [{**asdict(status), **common} for status in run_statuses(store, manifest)]
    return pa.Table.from_pylist(rows, schema=arrow_schema("image_runs"))


def _uncovered(
    workspace: Workspace,
    image_ids: Collection[int],
    recipe: Recipe,
    unfinished: Sequence[RunManifest],
) -> list[int]:
    committed = (
        workspace.table("image_runs")
        .scan(
            row_filter=EqualTo(term=Reference("recipe_id"), value=literal(recipe.recipe_id)),
            selected_fields=("image_id", "reason"),
        )
        .to_arrow()
    )
    may_pass = pc.is_in(committed["reason"], value_set=pa.array(_PASSING_REASONS))
    committed = committed.filter(pc.invert(may_pass))
    planned = [i for run in unfinished for shard in run.shards for i in shard.image_ids]
    covered = np.union1d(committed["image_id"].to_numpy(), np.asarray(planned, dtype=np.int64))
    wanted = np.fromiter(image_ids, dtype=np.int64, count=len(image_ids))
    left: list[int] = np.setdiff1d(wanted, covered).tolist()
    return left


def _runs_of(store: ObjectStore, recipe: Recipe) -> list[str]:
    """Return the ids of a recipe's runs: numbered without gaps, as each takes the first free."""
    runs: list[str] = []
    while store.exists(_key(run_id := _run_id(recipe, len(runs) + 1))):
        runs.append(run_id)
    return runs


def _new_run(
    run_id: str, recipe: Recipe, image_ids: Sequence[int], images_per_shard: int, now: datetime
) -> RunManifest:
    starts = range(0, len(image_ids), images_per_shard)
    shards = (
        Shard(run_id, index, tuple(image_ids[start : start + images_per_shard]))
        for index, start in enumerate(starts)
    )
    return RunManifest(run_id, recipe, now, tuple(shards))


def _run_id(recipe: Recipe, number: int) -> str:
    return f"auto-{recipe.recipe_id}-{number:04d}"


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
        "shards": [shard.image_ids for shard in manifest.shards],
    }
    return json.dumps(fields).encode()
