"""The Iceberg tables of a workspace: found through SQL, committed in the object store.

    catalog = TableCatalog("maskwheel", store, "sqlite:///catalog.db")
    table = catalog.load_table(("dataset", "masks"))

It is pyiceberg's SQL catalog, and other programs may read its database as such. But where that
decides by the database row which of two commits was first, here `CommitLog` does, and the row
follows: any number of databases, also none, agree on the tables of one workspace.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import cast

from pyiceberg.catalog.sql import (
    IcebergNamespaceProperties,
    IcebergTables,
    SqlCatalog,
)
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchTableError,
)
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.update import AddSnapshotUpdate, TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from engine.dataset.commit_log import CommitLog, state_number
from engine.dataset.schemas import TableName
from engine.dataset.table_io import TableIO
from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["NAMESPACE", "TableCatalog"]

log = logging.getLogger(__name__)

NAMESPACE = "dataset"


class TableCatalog(SqlCatalog):
    """The tables of one workspace in one SQL database, which may hold those of others too."""

    def __init__(self, name: str, store: ObjectStore, url: str) -> None:
        """Connect to the database, creating the catalog's tables in it if absent.

        Args:
            name: keeps the workspaces in one database apart.
            store: the workspace's objects.
            url: the database, as SQLAlchemy takes it.
        """
        self._store = store
        # States that are known to be in the log: not asked for again.
        self._followed: dict[str, str] = {}
        try:
            super().__init__(name, uri=url, pool_pre_ping="true", warehouse=store.uri("tables"))
        except BaseException:
            self.close()  # of several that create the database's tables, all but one come here
            raise

    def load_table(self, identifier: str | Identifier) -> Table:
        """Return the newest state of a table.

        Raises:
            NoSuchTableError: neither the log nor the database knows it.
            FileNotFoundError: its metadata file is gone; perhaps a newer state has come.
            WorkspaceError: the log and the database contradict each other.
        """
        name = _name_of(self.identifier_to_tuple(identifier))
        location = self._newest_location(name)
        if location is None:
            raise NoSuchTableError(f"Table does not exist: {name}")
        io = self._load_file_io(location=location)
        metadata = FromInputFile.table_metadata(io.new_input(location))
        return Table((NAMESPACE, name), metadata, location, io, self)

    def make_table(self, name: TableName, schema: Schema, properties: Properties) -> None:
        """Create a table; nothing happens when another process does so first."""
        with suppress(NamespaceAlreadyExistsError, IntegrityError):
            if not self.namespace_exists(NAMESPACE):
                self.create_namespace(NAMESPACE)
        staged = self._create_staged_table(
            (NAMESPACE, name), schema, self._store.uri(f"tables/{name}"), properties=properties
        )
        if self._write_state(name, staged):
            self._point_to(name, None, staged.metadata_location)

    def commit_table(
        self,
        table: Table,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> CommitTableResponse:
        """Commit updates that were made from `table`.

        Raises:
            CommitFailedException: another commit was first; what was written for this one is of
                no use. No other error means that: then the outcome may be unknown.
        """
        name = _name_of(table.name())
        # Reading a long history takes time; mostly it has not changed since `table` was loaded.
        unchanged = self._newest_location(name) == table.metadata_location
        current = table if unchanged else self.load_table(table.name())
        if (
            any(isinstance(change, AddSnapshotUpdate) for change in updates)
            and current.last_sequence_number != table.last_sequence_number
        ):
            # pyiceberg looks at the target branch only. Two snapshots made from one state for
            # two branches would get the same sequence number, which orders the table's changes.
            raise CommitFailedException(f"table {name} has moved on")
        staged = self._update_and_stage_table(current, table.name(), requirements, updates)
        if staged.metadata == current.metadata:
            return _response(current)
        if not self._write_state(name, staged):
            raise CommitFailedException(f"table {name} was committed to by another process")
        self._point_to(name, current.metadata_location, staged.metadata_location)
        return _response(staged)

    def forget(self) -> None:
        """Remove the workspace from the database, not its tables."""
        with Session(self.engine) as session:
            for kind in (IcebergTables, IcebergNamespaceProperties):
                session.execute(delete(kind).where(kind.catalog_name == self.name))
            session.commit()
        self._followed.clear()

    def _load_file_io(
        self, properties: Properties = EMPTY_DICT, location: str | None = None
    ) -> FileIO:
        return TableIO(self._store, properties)

    def _write_state(self, name: TableName, staged: StagedTable) -> bool:
        """Write a metadata file and claim its number in the log; return whether it is the state."""
        location = staged.metadata_location
        self._write_metadata(staged.metadata, staged.io, location)
        if CommitLog(self._store, name).claim(state_number(location), location):
            self._followed[name] = location
            return True
        with suppress(FileNotFoundError):
            staged.io.delete(location)
        return False

    def _newest_location(self, name: TableName) -> str | None:
        """Return where the table's newest state is, and let the database follow."""
        states = CommitLog(self._store, name)
        row = self._row(name)
        if row is not None and row != self._followed.get(name):
            self._enter(states, name, row)
        known = self._followed.get(name)
        number = states.newest(None if known is None else state_number(known))
        if number is None:
            return None
        location = known if known and state_number(known) == number else states.location(number)
        if location is None:
            raise WorkspaceError(f"state {number} of table {name} has vanished from the commit log")
        if location != row:
            log.info("the catalog learns state %d of table %s from the workspace", number, name)
            self._point_to(name, row, location)
        self._followed[name] = location
        return location

    def _enter(self, states: CommitLog, name: TableName, row: str) -> None:
        """Make sure that the log has the state that the database names.

        It lacks those from before there was a log, and those of other programs.
        """
        number = state_number(row)
        recorded = states.location(number)
        if recorded is None:
            newest = states.newest(None)
            if newest is not None and number < newest:
                return  # a backup from before there was a log
            for missing, location in self._states_since(row, newest).items():
                states.claim(missing, location)
            recorded = states.location(number)
        if recorded != row:
            raise WorkspaceError(
                f"state {number} of table {name} is {recorded}, but the catalog says {row}: "
                "another program wrote to it at the same time; remove the catalog's database, and "
                "it is made again from the workspace"
            )
        self._followed[name] = row

    def _states_since(self, row: str, newest: int | None) -> dict[int, str]:
        """Return the states that led from the log's newest to `row`, by number, ascending."""
        number = state_number(row)
        if newest is None:
            return {number: row}
        metadata = FromInputFile.table_metadata(self._load_file_io().new_input(row))
        before = {state_number(e.metadata_file): e.metadata_file for e in metadata.metadata_log}
        # The log has no gap, as that would look like its end. What is forgotten already is not
        # asked for any more: there `row` stands in.
        return {n: before.get(n, row) for n in range(newest + 1, number + 1)}

    def _row(self, name: TableName) -> str | None:
        with Session(self.engine) as session:
            return session.scalar(
                select(IcebergTables.metadata_location).where(
                    IcebergTables.catalog_name == self.name,
                    IcebergTables.table_namespace == NAMESPACE,
                    IcebergTables.table_name == name,
                )
            )

    def _point_to(self, name: TableName, before: str | None, location: str) -> None:
        """Let the database name a state. When its row is no longer `before`, others were here."""
        with Session(self.engine) as session:
            if before is None:
                row = self._create_table_row(NAMESPACE, name, location)
                with suppress(IntegrityError):
                    session.execute(insert(IcebergTables).values(**row))
                    session.commit()
                return
            session.execute(
                update(IcebergTables)
                .where(
                    IcebergTables.catalog_name == self.name,
                    IcebergTables.table_namespace == NAMESPACE,
                    IcebergTables.table_name == name,
                    IcebergTables.metadata_location == before,
                )
                .values(metadata_location=location, previous_metadata_location=before)
            )
            session.commit()


def _response(table: Table) -> CommitTableResponse:
    return CommitTableResponse(
        metadata=table.metadata, **{"metadata-location": table.metadata_location}
    )


def _name_of(identifier: Identifier) -> TableName:
    return cast(TableName, identifier[-1])
