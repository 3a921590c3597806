"""A workspace: a folder with the object store, and the Iceberg tables over what is in it.

    with Workspace.open(Path("maskwheel-data")) as workspace:
        workspace.add_shards("masks", uris, commit_id="run-7")     # again: nothing happens

Commits are idempotent: each snapshot carries its ``commit-id``, and a commit whose id is already
in main's history does nothing. The look-up and the commit see the same snapshot (a commit fails
when main has moved since), so two processes with the same commit id add its rows once.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.table import Table
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from engine.dataset.schemas import TABLE_PROPERTIES, TABLES, TableName, iceberg_schema
from engine.errors import TransientError, WorkspaceError
from engine.objects import LocalStore, ObjectStore, file_uri

__all__ = ["WORKSPACE_FILE", "Commit", "Workspace", "commit_history"]

log = logging.getLogger(__name__)

WORKSPACE_FILE = "workspace.json"
_FORMAT = 1
_NAMESPACE = "dataset"
_COMMIT_ID = "commit-id"
_BUSY_SECONDS = 30
_ATTEMPTS = 30
_LOOKS = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit in the history of a table's main branch.

    Attributes:
        commit_id: what the commit was for, e.g. a run's id; never twice in one history.
        snapshot_id: the table's state right after it.
        rows: rows of the table in that state.
    """

    commit_id: str
    snapshot_id: int
    rows: int


class Workspace:
    """An open workspace; close it, or use it as a context manager.

    Attributes:
        root: the folder, absolute, as recorded when the workspace was created.
        store: the objects below the root (runs, releases).
    """

    def __init__(self, root: Path, store: ObjectStore, catalog: SqlCatalog) -> None:
        self.root = root
        self.store = store
        self._catalog = catalog

    @classmethod
    def open(cls, root: Path, *, create: bool = True) -> Workspace:
        """Open the workspace in a folder, creating both where there is none.

        Any number of processes may open, and create, the same folder at once.

        Raises:
            WorkspaceError: the folder is a file, holds something else, cannot be written, was
                moved or copied, is damaged, or comes from a newer version; or there is no
                workspace and `create` is false.
            TransientError: the catalog stayed busy.
            BadInputError: a path that data-set addresses cannot hold.
        """
        root = _claim_folder(root, create=create)
        catalog = _retry("open the catalog", lambda: _open_catalog(root))
        workspace = cls(root, LocalStore(root), catalog)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def table(self, name: TableName) -> Table:
        """Return the table as it is now; it does not follow later commits.

        Raises:
            WorkspaceError: the table's metadata is missing.
            TransientError: the catalog stayed busy.
        """
        table = self._load(name)
        if table is None:
            raise WorkspaceError(f"{self.root}: the catalog has no table {name}")
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

        _retry(f"tag table {table}", attempt)

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
            if not write(base, {_COMMIT_ID: commit_id}):
                return None
            return commit_history(base)[-1].snapshot_id

        return _retry(f"commit {commit_id} to table {name}", attempt)

    def _load(self, name: TableName) -> Table | None:
        # A reader may come between two commits of others and find the metadata file that it was
        # told of already deleted: the next look finds the newer one.
        for number in range(_LOOKS):
            try:
                return _retry(
                    f"load table {name}", lambda: self._catalog.load_table((_NAMESPACE, name))
                )
            except NoSuchTableError:
                return None
            except FileNotFoundError as error:
                missing = error
                _back_off(number)
        raise WorkspaceError(
            f"{self.root}: table {name} has lost its metadata ({missing}); restore the folder "
            "'tables' from a backup"
        ) from missing

    def _ensure_table(self, name: TableName) -> None:
        if self._load(name) is not None:
            return
        schema = iceberg_schema(name)
        properties = {
            **TABLE_PROPERTIES,
            "schema.name-mapping.default": schema.name_mapping.model_dump_json(),
        }

        def attempt() -> None:
            # Another process may be first, between each question and its act.
            if not self._catalog.namespace_exists(_NAMESPACE):
                with suppress(NamespaceAlreadyExistsError, IntegrityError):
                    self._catalog.create_namespace(_NAMESPACE)
            with suppress(TableAlreadyExistsError):
                self._catalog.create_table(
                    (_NAMESPACE, name),
                    schema,
                    location=file_uri(self.root / "tables" / name),
                    properties=properties,
                )

        _retry(f"create table {name}", attempt)


def commit_history(table: Table) -> list[Commit]:
    """Return the commits of the table's main branch that carry a commit id, oldest first."""
    snapshots = {snapshot.snapshot_id: snapshot for snapshot in table.metadata.snapshots}
    commits: list[Commit] = []
    snapshot = table.current_snapshot()
    while snapshot is not None:
        summary = snapshot.summary
        if summary is not None and (commit_id := summary.get(_COMMIT_ID)) is not None:
            rows = int(summary.get("total-records") or 0)
            commits.append(Commit(commit_id, snapshot.snapshot_id, rows))
        parent = snapshot.parent_snapshot_id
        snapshot = None if parent is None else snapshots.get(parent)
    return commits[::-1]


def _claim_folder(root: Path, *, create: bool) -> Path:
    """Return the recorded root of the workspace in `root`, creating its record if absent."""
    path = root.expanduser().resolve()
    store = LocalStore(path)
    # Listed before the record is looked for: a concurrent creator writes the record first.
    others = _visible_names(path)
    if store.exists(WORKSPACE_FILE):
        return _recorded_root(store)
    if not create:
        raise WorkspaceError(f"{path} holds no workspace; make one with `maskwheel auto` or ingest")
    if others:
        raise WorkspaceError(
            f"{path} is not a workspace: it holds {', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}; name a new or an empty folder"
        )
    record = {"format": _FORMAT, "root": str(path)}
    store.put_if_absent(WORKSPACE_FILE, json.dumps(record, indent=2).encode())
    return _recorded_root(store)


def _visible_names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise WorkspaceError(f"{folder} is a file; expected a folder for the workspace") from None
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be read: {error}") from error


def _recorded_root(store: LocalStore) -> Path:
    path = store.root / WORKSPACE_FILE
    try:
        record = json.loads(store.get(WORKSPACE_FILE))
        version, root = int(record["format"]), Path(record["root"])
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{path} is damaged ({error!r}); restore it from a backup") from error
    if version > _FORMAT:
        raise WorkspaceError(
            f"{path} has format {version}, this version reads up to {_FORMAT}; update maskwheel"
        )
    # The tables hold absolute addresses. A link or mount that leads from the old place to this
    # one keeps them right, so the recorded root is used, not the path that was given.
    if not root.is_dir() or not root.samefile(store.root):
        raise WorkspaceError(
            f"the workspace in {store.root} was made in {root} and its tables point there: move "
            f"it back, or make {root} a symbolic link to {store.root}"
        )
    return root


def _open_catalog(root: Path) -> SqlCatalog:
    database = root / "catalog.db"
    address = URL.create("sqlite", database=str(database), query={"timeout": str(_BUSY_SECONDS)})
    try:
        with closing(sqlite3.connect(database, timeout=_BUSY_SECONDS)) as connection:
            # Readers and the one writer do not wait for each other. The mode sticks to the file;
            # where the file system has no shared memory SQLite keeps its rollback journal.
            connection.execute("PRAGMA journal_mode=WAL")
        return SqlCatalog(
            "maskwheel",
            **{
                "uri": address.render_as_string(),
                "warehouse": file_uri(root / "tables"),
                "py-io-impl": "engine.dataset.durable_io.DurableFileIO",
            },
        )
    except (OperationalError, sqlite3.OperationalError) as error:
        if _is_passing(error):
            raise
        raise WorkspaceError(f"{database} cannot be opened: {error}") from error
    except (DatabaseError, sqlite3.DatabaseError) as error:
        raise WorkspaceError(
            f"{database} is not a catalog ({error}); restore it from a backup"
        ) from error


def _is_passing(error: Exception) -> bool:
    """Whether SQLite's error is one of company: a lock, or another's "create table"."""
    text = str(error)
    return "locked" in text or "busy" in text or "already exists" in text


def _retry(what: str, attempt: Callable[[], T]) -> T:
    for number in range(_ATTEMPTS):
        try:
            return attempt()
        except CommitFailedException as error:
            last: Exception = error
        except (OperationalError, sqlite3.OperationalError) as error:
            if not _is_passing(error):
                raise WorkspaceError(f"the catalog failed to {what}: {error}") from error
            last = error
        log.debug("%s: attempt %d lost to another process: %s", what, number + 1, last)
        _back_off(number)
    raise TransientError(
        f"could not {what}: other processes were first {_ATTEMPTS} times; run the command again"
    ) from last


def _back_off(attempt: int) -> None:
    ceiling = min(0.02 * 2**attempt, 2.0)
    time.sleep(random.uniform(ceiling / 4, ceiling))  # noqa: S311  (spreads rivals; no secret)
