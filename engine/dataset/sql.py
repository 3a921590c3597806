"""SQL over releases, by DuckDB: the views ``images``, ``masks`` and ``image_runs``.

    with open_database("maskwheel-data", ["r3"]) as database:
        table = database.query("select image_id, count(*) from masks group by 1").read_all()

The views name the very files of the release, so nothing is copied and later runs are not seen.
Local files are read by DuckDB itself, objects of a bucket through our store. Statements cannot
touch any other file, and nothing is ever downloaded.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from engine.closing import Closing
from engine.dataset.catalog import Workspace
from engine.dataset.release_files import DataFile, table_files
from engine.dataset.releases import LATEST, load_release
from engine.dataset.schemas import TABLES, TableName, arrow_schema
from engine.dataset.sql_files import StoredFiles
from engine.errors import BadInputError, EngineError, WorkspaceError
from engine.objects import ObjectStore
from engine.records import Release

__all__ = ["ReleaseDatabase", "open_database"]

BATCH_ROWS = 10_000

# Never a download; what a user's DuckDB has installed does not count either.
_CONFIG = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}
_LOCAL = "file://"
_PATTERN_CHARACTERS = frozenset("*?[")
_STORAGE_ERRORS = ("IO Error", "HTTP Error", "Out of Memory Error", "Internal Error")


def open_database(
    workspace: str | Path,
    names: Sequence[str] = (),
    *,
    other_files: bool = False,
    threads: int | None = None,
) -> ReleaseDatabase:
    """Open releases for queries.

    Args:
        workspace: a folder, or ``s3://bucket/prefix``.
        names: of the releases; none: the newest. The views are those of the first one; each
            release also has them in a schema of its name: ``r1.masks``.
        other_files: let statements read and write other files of this machine.
        threads: how many DuckDB may use; None: all cores.

    Raises:
        BadInputError: there is no such release.
        WorkspaceError: there is no workspace, or it is damaged.
    """
    with Workspace.open(workspace, create=False) as opened:
        releases = [load_release(opened, name) for name in names or (LATEST,)]
        database = ReleaseDatabase(opened.store, threads)
        try:
            for release in releases:
                database.add(opened, release)
            database.lock(other_files=other_files)
        except BaseException:
            database.close()
            raise
    return database


class ReleaseDatabase(Closing):
    """DuckDB in memory with the views of releases; close it, or use it as a context manager.

    Attributes:
        releases: in the order in which they were added; unqualified names mean the first.
    """

    def __init__(self, store: ObjectStore, threads: int | None = None) -> None:
        import duckdb

        self.releases: list[Release] = []
        self._store = store
        self._files = StoredFiles(store)
        self._uris: dict[str, str] = {}  # by the path that DuckDB knows the file by
        self._spill = tempfile.mkdtemp(prefix="maskwheel-sql-")
        self._connection = duckdb.connect(":memory:", config=dict(_CONFIG))
        for setting, value in {
            "temp_directory": _text(self._spill),
            "python_enable_replacements": "false",
            "TimeZone": "'UTC'",
            **({"threads": str(threads)} if threads else {}),
        }.items():
            self._connection.execute(f"set {setting} = {value}")
        self._connection.register_filesystem(self._files)

    def close(self) -> None:
        """Forget the views and whatever statements made."""
        self._connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def add(self, workspace: Workspace, release: Release) -> None:
        """Make the views of a release.

        Raises:
            WorkspaceError: its snapshots are gone, or a file of it is missing or damaged.
        """
        import duckdb

        if release in self.releases:
            return
        schema = _name(release.name)
        self._connection.execute(f"create schema {schema}")
        for table in TABLES:
            files = table_files(workspace, table, release.snapshots.get(table))
            view = f"{schema}.{_name(table)}"
            rows = self._rows(release, table, files)
            try:
                self._connection.execute(f"create view {view} as {rows}")
            except duckdb.Error as error:
                raise self._explained(error) from error
            if not self.releases:
                self._connection.execute(f"create view {_name(table)} as from {view}")
        self.releases.append(release)

    def lock(self, *, other_files: bool = False) -> None:
        """Forbid every other file, unless asked for, and further settings."""
        if not other_files:
            allowed = ", ".join(map(_text, self._uris))
            self._connection.execute(f"set allowed_paths = [{allowed}]")
            self._connection.execute("set enable_external_access = false")
        self._connection.execute("set lock_configuration = true")

    def query(self, statement: str) -> pa.RecordBatchReader:
        """Run SQL; of several statements the last one's rows are returned, batch by batch.

        Raises:
            BadInputError: DuckDB refuses the statement; its message says where. Also while the
                rows are read, where a value cannot be computed.
            WorkspaceError: a file that is missing or damaged; also while the rows are read.
            TransientError: the storage failed for now; likewise.
        """
        import duckdb

        try:
            relation = self._connection.sql(statement)
            if relation is None:
                raise BadInputError(f"got {statement!r}, which has no rows; expected e.g. a select")
            rows = relation.to_arrow_reader(BATCH_ROWS)
        except (duckdb.Error, OSError) as error:
            raise self._explained(error) from error
        return pa.RecordBatchReader.from_batches(rows.schema, self._read(rows))

    def _rows(self, release: Release, table: TableName, files: Sequence[DataFile]) -> str:
        """Return the select that gives a table's rows."""
        schema = arrow_schema(table)
        if not files:
            nothing = (f"null::{_type(field.type)} as {_name(field.name)}" for field in schema)
            return f"select {', '.join(nothing)} where false"
        paths = []
        for number, file in enumerate(files):
            uri = self._store.uri(file.key)
            path = (
                uri.removeprefix(_LOCAL)
                if _readable_by_duckdb(uri)
                else self._files.add(f"{release.name}/{table}/{number}", file)
            )
            paths.append(path)
            self._uris[path] = uri
        # By field id, as Iceberg finds columns: a file may be older than a column.
        columns = ", ".join(
            f"{field.metadata[b'PARQUET:field_id'].decode()}: "
            f"{{name: {_text(field.name)}, type: {_text(_type(field.type))}, default_value: null}}"
            for field in schema
        )
        listed = ", ".join(map(_text, paths))
        return f"from read_parquet([{listed}], schema = map {{{columns}}})"

    def _read(self, rows: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        import duckdb

        try:
            yield from rows
        except (duckdb.Error, OSError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> EngineError:
        failure, self._files.failure = self._files.failure, None
        if failure is not None:
            return failure
        message = str(error)
        # An error that names a file of the release is the file's fault.
        if uri := next((uri for path, uri in self._uris.items() if path in message), None):
            return WorkspaceError(
                f"{uri} cannot be read: {message.splitlines()[0]}; `maskwheel releases verify` "
                "tells how much is damaged"
            )
        if message.startswith(_STORAGE_ERRORS):
            return WorkspaceError(f"the query stopped: {message}")
        if message.startswith("Permission Error"):
            message += "\nstatements see the release only; --allow-files lets them use other files"
        return BadInputError(f"DuckDB refuses the statement: {message}")


def _readable_by_duckdb(uri: str) -> bool:
    """Whether a file is local and DuckDB takes its path literally."""
    return uri.startswith(_LOCAL) and not _PATTERN_CHARACTERS & set(uri)


def _type(data_type: pa.DataType) -> str:
    if pa.types.is_list(data_type):
        return f"{_type(data_type.value_type)}[]"
    return {
        pa.bool_(): "boolean",
        pa.int32(): "integer",
        pa.int64(): "bigint",
        pa.float64(): "double",
        pa.string(): "varchar",
        pa.timestamp("us", tz="UTC"): "timestamptz",
    }[data_type]


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
