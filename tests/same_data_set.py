"""Whether two workspaces hold the same data set, byte for byte and row for row.

assert_same_data_set(workspace, reference)          # both made with SOURCE_DATE_EPOCH=CLOCK
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa

from engine.dataset.catalog import Workspace
from engine.dataset.releases import latest_release, scan
from engine.dataset.schemas import TableName
from engine.objects.store import TEMPORARY_PREFIX

__all__ = ["CLOCK", "assert_same_data_set", "shard_hashes", "tables"]

CLOCK = "1700000000"
_ORDER: dict[TableName, str] = {"images": "image_id", "masks": "mask_id", "image_runs": "image_id"}


def shard_hashes(workspace: Path) -> dict[str, str]:
    """Return the sha256 of all that the runs wrote, by path.

    A process that is killed while it writes leaves a hidden file, which `maskwheel releases gc`
    removes once nobody can be writing it any more: it is no part of the data set.
    """
    return {
        str(path.relative_to(workspace)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(workspace.glob("runs/*/*"))
        if not path.name.startswith(TEMPORARY_PREFIX)
    }


def tables(workspace: Path) -> dict[str, pa.Table]:
    """Return the tables of the newest release, sorted."""
    with Workspace.open(workspace, create=False) as opened:
        release = latest_release(opened)
        assert release is not None
        return {name: scan(opened, release, name).sort_by(order) for name, order in _ORDER.items()}


def assert_same_data_set(workspace: Path, reference: Path) -> None:
    """Compare what the runs wrote and what the newest releases hold."""
    assert shard_hashes(workspace) == shard_hashes(reference)
    expected = tables(reference)
    for name, table in tables(workspace).items():
        assert table.equals(expected[name]), name
