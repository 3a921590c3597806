"""The retrainings of a workspace: what each was to be, written before it began, and what it gave.

    for retraining in list_retrainings(store):
        print(retraining.release, retraining.human_masks, retraining.version)

A retraining is known by its content: the files with the masks, the recipe, where it starts. So the
same call again, on whatever machine, finds what was planned, and the version that came out of it.
"Start from the champion" is settled when it is planned: a later promotion does not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = [
    "Retraining",
    "content_key",
    "find_retraining",
    "finish_retraining",
    "keep_retraining",
    "list_retrainings",
    "log_key",
]

_PREFIX = "models/retrainings/"
_PLAN, _RESULT = "plan.json", "result.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """A training on the masks of a release.

    Attributes:
        key: 16 hex digits, of all that decides what comes out.
        release: whose masks it learns from; others may hold the same ones.
        data_key: 16 hex digits, of the files with these masks.
        stages: what was learned from: ``manual``, ``semi``, ``auto``.
        images: with such masks.
        human_masks: masks of these stages in the release.
        held_out: images that are compared on and never trained on.
        held_out_below: their `engine.learning.held_out.place` is smaller than this.
        init: what training starts from: a version's name, or as it was asked for.
        init_asked: as it was asked for, e.g. ``champion``.
        recipe: its name.
        recipe_json: its settings as canonical JSON.
        steps: optimiser steps.
        reason: why, in the words of who asked first.
        planned_at: UTC.
        version: the model that came out; None: it is not finished.
    """

    key: str
    release: str
    data_key: str
    stages: tuple[str, ...]
    images: int
    human_masks: int
    held_out: int
    held_out_below: int
    init: str
    init_asked: str
    recipe: str
    recipe_json: str
    steps: int
    reason: str
    planned_at: datetime
    version: str | None = None


_RECORD = TypeAdapter(Retraining)


def content_key(content: Mapping[str, object]) -> str:
    """Return 16 hex digits of values that JSON holds."""
    text = json.dumps(dict(content), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_retraining(store: ObjectStore, key: str) -> Retraining | None:
    """Return what was planned under a key, with what it gave; None: nothing was.

    Raises:
        WorkspaceError: a record is damaged.
    """
    if not store.exists(_key(key, _PLAN)):
        return None
    plan = _read(store, _key(key, _PLAN))
    done = _key(key, _RESULT)
    return replace(plan, version=_read(store, done).version) if store.exists(done) else plan


def keep_retraining(store: ObjectStore, planned: Retraining) -> Retraining:
    """Write a plan unless there is one under its key; return the one that counts.

    Raises:
        WorkspaceError: the store cannot be written, or a record is damaged.
    """
    store.put_if_absent(_key(planned.key, _PLAN), _to_json(planned))
    found = find_retraining(store, planned.key)
    if found is None:
        raise WorkspaceError(f"{store.uri(_key(planned.key, _PLAN))} was written and is gone")
    return found


def finish_retraining(store: ObjectStore, retraining: Retraining, version: str) -> Retraining:
    """Write what a retraining gave, unless another process has; return what counts.

    Raises:
        WorkspaceError: the store cannot be written, or the record is damaged.
    """
    done = replace(retraining, version=version)
    store.put_if_absent(_key(retraining.key, _RESULT), _to_json(done))
    return _read(store, _key(retraining.key, _RESULT))


def list_retrainings(store: ObjectStore) -> tuple[Retraining, ...]:
    """Return all retrainings, the first planned first.

    Raises:
        WorkspaceError: a record is damaged.
    """
    found: dict[str, Retraining] = {}
    for key in store.list(_PREFIX):
        name, _, file = key.removeprefix(_PREFIX).partition("/")
        # A folder's result follows its plan in the listing, and has all that is in the plan.
        if file in (_PLAN, _RESULT):
            found[name] = _read(store, key)
    return tuple(sorted(found.values(), key=lambda one: (one.planned_at, one.key)))


def log_key(retraining: Retraining, file: str) -> str:
    """Return where a file of the training's log is kept, for machines that did not train."""
    return _key(retraining.key, file)


def _key(key: str, file: str) -> str:
    return f"{_PREFIX}{key}/{file}"


def _to_json(retraining: Retraining) -> bytes:
    return _RECORD.dump_json(retraining, indent=2)


def _read(store: ObjectStore, key: str) -> Retraining:
    try:
        return _RECORD.validate_json(store.get(key))
    except ValidationError as error:
        raise WorkspaceError(
            f"{store.uri(key)} is damaged: {error}; restore it from a backup"
        ) from error
