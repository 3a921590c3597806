"""A workspace: an object store, and the Iceberg tables over what is in it.

    with Workspace.open("maskwheel-data") as workspace:            # or "s3://bucket/prefix"
        workspace.add_shards("masks", uris, commit_id="run-7")     # again: nothing happens

Commits are idempotent: each snapshot carries its ``commit-id``, and a commit whose id is already
in the branch's history does nothing. The look-up and the commit see the same snapshot (a commit
fails when the table has moved since), so two processes with the same commit id add its rows once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.table import Table, Transaction
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update.snapshot import ManageSnapshots

from engine.closing import Closing
from engine.config import load_settings
from engine.dataset.catalog_database import back_off, open_catalog, retry
from engine.dataset.catalog_rebuild import is_lost
from engine.dataset.history import (
    COMMIT_ID,
    MAIN,
    STAGED_ON,
    Commit,
    commit_history,
    find_commit,
    staged_commits,
)
from engine.dataset.schema_evolution import evolve
from engine.dataset.schemas import TABLE_PROPERTIES, TABLES, TableName, iceberg_schema
from engine.dataset.table_catalog import NAMESPACE, TableCatalog
from engine.dataset.workspace_record import (
    WORKSPACE_FILE,
    WorkspaceRecord,
    claim_workspace,
    is_workspace,
)
from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore

__all__ = ["WORKSPACE_FILE", "Commit", "Workspace", "commit_history", "is_workspace"]

_LOOKS = 5


class Workspace(Closing):
    """An open workspace; close it, or use it as a context manager.

    Attributes:
        address: where it is: an absolute folder, or ``s3://bucket/prefix``.
        name: the last part of the address, for people.
        workspace_id: unique.
        store: the objects below the address (runs, releases, models, tables).
        local_folder: where to keep what is of this machine only, such as training logs: the
            folder itself, or for a bucket one in the user's data folder. It may not exist yet.
    """

    def __init__(self, record: WorkspaceRecord, local_folder: Path, catalog: TableCatalog) -> None:
        self.address: str = record.store.address
        self.name: str = PurePosixPath(self.address).name
        self.workspace_id: str = record.workspace_id
        self.store: ObjectStore = record.store
        self.local_folder = local_folder
        self._catalog = catalog

    @classmethod
    def open(cls, address: str | Path, *, create: bool = True) -> Workspace:
        """Open the workspace in a folder or below a bucket's prefix; create it if there is none.

        Any number of processes may open, and create, the same one at once. The catalog is a SQLite
        file in the local folder unless the settings name a PostgreSQL database; one that does not
        know the tables learns them from the workspace.

        Raises:
            WorkspaceError: the place is a file, holds something else, cannot be written, was
                moved or copied, is damaged, or comes from a newer version; or there is no
                workspace and `create` is false.
            TransientError: the catalog or the storage stayed busy, or cannot be reached.
            BadInputError: an address that is none, or that data-set addresses cannot hold.
        """
        record = claim_workspace(address, create=create)
        folder = record.local_folder
        database = load_settings().database_url
        catalog = open_catalog(
            record.store,
            record.workspace_id,
            folder,
            None if database is None else database.get_secret_value(),
        )
        workspace = cls(record, folder, catalog)
        try:
            for table in TABLES:
                workspace._ensure_table(table)
        except BaseException:
            workspace.close()
            raise
        return workspace

    def close(self) -> None:
        """Release the catalog's connections."""
        self._catalog.close()

    def forget(self) -> None:
        """Take the workspace out of the catalog's database; whoever opens it next enters it again.

        For workspaces that are about to be deleted. Nothing in the workspace changes.
        """
        retry("forget the workspace", self._catalog.forget)

    def table(self, name: TableName) -> Table:
        """Return the table as it is now; it does not follow later commits.

        Raises:
            WorkspaceError: the table's metadata is missing.
            TransientError: the catalog stayed busy.
        """
        table = self._load(name)
        if table is None:
            raise WorkspaceError(f"{self.address}: the catalog has no table {name}")
        return table

    def append_rows(
        self, table: TableName, rows: pa.Table | Callable[[Table], pa.Table], commit_id: str
    ) -> int | None:
        """Append rows once per commit id.

        Args:
            table: the table's name.
            rows: rows with the table's columns; or a function that makes them from the table's
                state, called again when another process commits first. Its rows may depend on
                that state ("those that are not there yet"); no rows: nothing is committed.
            commit_id: what the commit is for.

        Returns:
            The snapshot that holds the rows; None when the function had no rows.

        Raises:
            TransientError: others committed first every time, or the catalog stayed busy.
        """

        def write(base: Table, properties: dict[str, str]) -> bool:
            if callable(rows):
                new_rows = rows(base)
                if new_rows.num_rows == 0:
                    return False
            else:
                new_rows = rows
            base.append(new_rows, snapshot_properties=properties)
            return True

        return self._commit(table, commit_id, write)

    def add_shards(self, table: TableName, uris: Sequence[str], commit_id: str) -> int:
        """Register Parquet files, where they are, as the table's data: once per commit id.

        Without any file, the commit still appears in the table's history.

        Returns:
            The snapshot that holds the files.

        Raises:
            TransientError: others committed first every time, or the catalog stayed busy.
        """

        def write(base: Table, properties: dict[str, str]) -> bool:
            # pyiceberg's own check for files that are already there is quadratic, and the
            # commit id answers the question.
            base.add_files(list(uris), snapshot_properties=properties, check_duplicate_files=False)
            return True

        snapshot_id = self._commit(table, commit_id, write)
        if snapshot_id is None:
            raise WorkspaceError(f"commit {commit_id} of table {table} left no snapshot")
        return snapshot_id

    def tag(self, table: TableName, name: str, snapshot_id: int) -> None:
        """Tag a snapshot, so that expiring old snapshots keeps it. Tags never move.

        Raises:
            WorkspaceError: the tag exists and points elsewhere.
            TransientError: others committed first every time, or the catalog stayed busy.
        """

        def attempt() -> None:
            base = self.table(table)
            existing = base.refs().get(name)
            if existing is None:
                # Fails, instead of moving it, when another process creates the tag meanwhile.
                base.manage_snapshots().create_tag(snapshot_id, name).commit()
            elif existing.snapshot_id != snapshot_id:
                raise WorkspaceError(
                    f"table {table}: tag {name} points to snapshot {existing.snapshot_id}, "
                    f"expected {snapshot_id}; something outside Maskwheel moved it"
                )

        retry(f"tag table {table}", attempt)

    def stage(
        self,
        table: TableName,
        branch: str,
        base_snapshot: int | None,
        data: pa.Table | Sequence[str],
        commit_id: str,
    ) -> int:
        """Add files or rows to a branch, once per commit id; main does not change.

        The branch then holds `base_snapshot`, what was staged on it since, and this commit. A
        branch that starts from another snapshot is started again: what was staged for a base that
        is no longer wanted is left to garbage collection.

        Args:
            table: the table's name.
            branch: made when it is not there, e.g. a run's id.
            base_snapshot: the state to build on; None: nothing.
            data: addresses of Parquet files, which become the table's where they are; or rows with
                the table's columns. None of either: the commit still appears in the history.
            commit_id: what the commit is for; nothing happens when it is part of the base.

        Returns:
            The snapshot that holds the base and the commit.

        Raises:
            BadInputError: the branch's name is ``main`` or a tag's.
            WorkspaceError: the base is not a snapshot of the table.
            TransientError: others committed first every time, or the catalog stayed busy.
        """

        def attempt() -> int:
            state = self.table(table)
            _check_branch(state, branch)
            if base_snapshot is not None and state.snapshot_by_id(base_snapshot) is None:
                raise WorkspaceError(f"table {table} has no snapshot {base_snapshot} to stage on")
            if find_commit(state, commit_id, base_snapshot) and base_snapshot is not None:
                return base_snapshot
            staged = staged_commits(state, branch, base_snapshot)
            for commit in staged or ():
                if commit.commit_id == commit_id:
                    return commit.snapshot_id
            if not state.metadata.snapshots:
                # Iceberg lets only main be written in a table without any snapshot.
                state.add_files([], branch=None)
            with state.transaction() as transaction:
                if staged is None:
                    _start_branch(transaction, branch, base_snapshot)
                properties = {COMMIT_ID: commit_id, STAGED_ON: branch}
                if isinstance(data, pa.Table):
                    transaction.append(data, properties, branch=branch)
                else:
                    transaction.add_files(
                        list(data), properties, check_duplicate_files=False, branch=branch
                    )
            return state.refs()[branch].snapshot_id

        return retry(f"stage {commit_id} on branch {branch} of table {table}", attempt)

    def set_main(self, table: TableName, snapshot_id: int) -> None:
        """Make a snapshot the table's main state; also one from before, or from a branch.

        Raises:
            WorkspaceError: the table has no such snapshot.
            TransientError: others committed first every time, or the catalog stayed busy.
        """

        def attempt() -> None:
            state = self.table(table)
            if state.snapshot_by_id(snapshot_id) is None:
                raise WorkspaceError(f"table {table} has no snapshot {snapshot_id} for its main")
            if state.metadata.current_snapshot_id != snapshot_id:
                state.manage_snapshots().set_current_snapshot(snapshot_id).commit()

        retry(f"set main of table {table}", attempt)

    def drop_branch(self, table: TableName, branch: str) -> None:
        """Forget a branch, if it is there; garbage collection may then take what only it held.

        Raises:
            BadInputError: the name is ``main`` or a tag's.
            TransientError: others committed first every time, or the catalog stayed busy.
        """

        def attempt() -> None:
            state = self.table(table)
            _check_branch(state, branch)
            if branch in state.refs():
                state.manage_snapshots().remove_branch(branch).commit()

        retry(f"drop branch {branch} of table {table}", attempt)

    def branches(self, table: TableName) -> dict[str, int]:
        """Return the head of each branch but main, by name."""
        return {
            name: ref.snapshot_id
            for name, ref in sorted(self.table(table).refs().items())
            if ref.snapshot_ref_type == SnapshotRefType.BRANCH and name != MAIN
        }

    def _commit(
        self,
        name: TableName,
        commit_id: str,
        write: Callable[[Table, dict[str, str]], bool],
    ) -> int | None:
        def attempt() -> int | None:
            base = self.table(name)
            for commit in commit_history(base):
                if commit.commit_id == commit_id:
                    return commit.snapshot_id
            if not write(base, {COMMIT_ID: commit_id}):
                return None
            return commit_history(base)[-1].snapshot_id

        return retry(f"commit {commit_id} to table {name}", attempt)

    def _load(self, name: TableName) -> Table | None:
        # A reader may come between two commits of others and find the metadata file that it was
        # told of already deleted: the next look finds the newer one.
        for number in range(_LOOKS):
            try:
                return retry(
                    f"load table {name}", lambda: self._catalog.load_table((NAMESPACE, name))
                )
            except NoSuchTableError:
                return None
            except FileNotFoundError as error:
                missing = error
                back_off(number)
        raise WorkspaceError(
            f"{self.address}: table {name} has lost its metadata ({missing}); restore the folder "
            "'tables' from a backup, or `maskwheel doctor --rebuild-catalog` takes an older state"
        ) from missing

    def _ensure_table(self, name: TableName) -> None:
        schema = iceberg_schema(name)

        def is_there() -> bool:
            table = self._load(name)
            if table is not None:
                evolve(table, schema)
            return table is not None

        what = f"bring table {name} up to date"
        if retry(what, is_there):
            return
        if is_lost(self.store, name) and not retry(what, is_there):
            raise WorkspaceError(
                f"{self.address}: table {name} is lost: it was there, but neither the catalog nor "
                "the commit log knows it; `maskwheel doctor --rebuild-catalog` finds it"
            )
        first = iceberg_schema(name, first_version=True)
        properties = {
            **TABLE_PROPERTIES,
            "schema.name-mapping.default": first.name_mapping.model_dump_json(),
        }
        retry(f"create table {name}", lambda: self._catalog.make_table(name, first, properties))
        if first.as_struct() != schema.as_struct():
            retry(what, is_there)


def _check_branch(table: Table, branch: str) -> None:
    taken = table.refs().get(branch)
    is_tag = taken is not None and taken.snapshot_ref_type == SnapshotRefType.TAG
    if not branch or branch == MAIN or is_tag:
        raise BadInputError(
            f"got the branch name {branch!r}; expected one that is neither {MAIN!r} nor a release's"
        )


def _start_branch(transaction: Transaction, branch: str, base: int | None) -> None:
    """Let the branch begin at `base`, from wherever it is; rivals that moved it meanwhile win."""
    change = ManageSnapshots(transaction)
    if base is not None:
        change.create_branch(base, branch).commit()
    elif branch in transaction.table_metadata.refs:
        change.remove_branch(branch).commit()
