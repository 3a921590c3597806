"""What of a table is still needed: the snapshots, and the objects that they lead to.

    keep = needed_snapshots(table, "masks", pinned, older_than)
    needed_objects(table, keep, pool)             # addresses; everything else may go

Needed are what releases pin, what branches and tags point to, what a branch has gone through (a
publisher that goes on looks its commits up there), and whatever is young.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType

from engine.dataset.history import MAIN, ancestors
from engine.dataset.schemas import TableName

__all__ = ["needed_objects", "needed_snapshots"]


def needed_snapshots(
    table: Table, name: TableName, pinned: Collection[int], older_than: datetime
) -> set[int]:
    """Return the ids of the snapshots that must stay.

    Args:
        table: the table; its state when it was loaded.
        name: its name.
        pinned: snapshots that releases pin.
        older_than: younger snapshots stay, as a job may be about to refer to them.
    """
    youngest_ms = older_than.timestamp() * 1000
    keep = {s.snapshot_id for s in table.metadata.snapshots if s.timestamp_ms >= youngest_ms}
    keep |= set(pinned)
    for branch, ref in table.refs().items():
        head = table.snapshot_by_id(ref.snapshot_id)
        keep.add(ref.snapshot_id)
        # Ingesting finds what it has done by the rows themselves; every other commit is looked up
        # in the history of its branch.
        if ref.snapshot_ref_type == SnapshotRefType.BRANCH and (branch, name) != (MAIN, "images"):
            keep |= {snapshot.snapshot_id for snapshot in ancestors(table, head)}
    return keep & {snapshot.snapshot_id for snapshot in table.metadata.snapshots}


def needed_objects(table: Table, snapshots: Collection[int], pool: ThreadPoolExecutor) -> set[str]:
    """Return the addresses of all that these snapshots, and the table itself, consist of.

    That is: the current and the logged metadata files, manifest lists, manifests, data and delete
    files, statistics.
    """
    metadata = table.metadata
    needed = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    needed |= {file.statistics_path for file in metadata.statistics}
    kept = [s for s in metadata.snapshots if s.snapshot_id in set(snapshots)]
    needed |= {snapshot.manifest_list for snapshot in kept}
    # Snapshots share most of their manifests: each is read once.
    manifests: dict[str, ManifestFile] = {}
    for found in pool.map(lambda snapshot: snapshot.manifests(table.io), kept):
        manifests.update((manifest.manifest_path, manifest) for manifest in found)
    needed |= manifests.keys()
    for paths in pool.map(lambda manifest: set(_paths(manifest, table)), manifests.values()):
        needed |= paths
    return needed


def _paths(manifest: ManifestFile, table: Table) -> Iterator[str]:
    for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
        yield entry.data_file.file_path
