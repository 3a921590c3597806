"""The data set: images, masks, runs and releases in one workspace.

    from engine.dataset import open_release

    with open_release("maskwheel-data", "r3") as reader:
        for image in reader:
            print(image.record.uri, [mask.area for mask in image.masks])

This name is for users. The engine imports from the modules, so that a worker loads only what it
uses:

    with Workspace.open("maskwheel-data") as workspace:
        found = ingest(workspace, expand_inputs(["photos"]), limits, now)
        for run in plan_runs(workspace, found.image_ids, recipe, 64, now):
            for shard in pending_shards(workspace.store, run):
                write_shard(workspace.store, shard, results, run.provenance)
            release = commit_run(workspace, run)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.dataset.reader import ReleaseReader, open_release
    from engine.dataset.torch_reader import StreamConfig

__all__ = ["ReleaseReader", "StreamConfig", "open_release"]

_HOMES = {
    "ReleaseReader": "engine.dataset.reader",
    "StreamConfig": "engine.dataset.torch_reader",
    "open_release": "engine.dataset.reader",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
