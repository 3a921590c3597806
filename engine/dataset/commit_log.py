"""The order of a table's states, decided where the data is: one small object per commit.

    log = CommitLog(store, "masks")
    log.claim(13, metadata_location)        # False: another commit is number 13

``tables/masks/commits/00000013`` names the metadata file of the table's state 13. It is created
once and never removed or changed, so whoever creates it has committed, and no two commits follow
the same state. SQL catalogs only follow: one that is new (a second laptop), lost, restored from a
backup, or behind after a crash is brought up to date from here, and none can diverge.
See infra/decisions/0008.
"""

from __future__ import annotations

from engine.dataset.schemas import TableName
from engine.errors import MissingObjectError, WorkspaceError
from engine.objects import ObjectStore

__all__ = ["CommitLog", "state_number"]


class CommitLog:
    """The log of one table."""

    def __init__(self, store: ObjectStore, table: TableName) -> None:
        self._store = store
        self._prefix = f"tables/{table}/commits/"
        self._root = store.uri("x").removesuffix("x")

    def claim(self, number: int, location: str) -> bool:
        """Make a metadata file the table's state of that number, unless there is one.

        Returns:
            Whether this location is the state now; also when an earlier call made it so.

        Raises:
            WorkspaceError: the location lies outside the workspace.
        """
        key = location.removeprefix(self._root)
        if key == location:
            raise WorkspaceError(f"{location} lies outside of the workspace in {self._root}")
        created = self._store.put_if_absent(self._key(number), key.encode())
        return created or self.location(number) == location

    def location(self, number: int) -> str | None:
        """Return the address of the metadata file of a state, None for one not in the log."""
        try:
            return self._root + self._store.get(self._key(number)).decode()
        except MissingObjectError:
            return None

    def newest(self, known: int | None) -> int | None:
        """Return the number of the table's newest state.

        Args:
            known: a state in the log that has no gap after it: one request when nothing is newer;
                None: nothing is known.

        Returns:
            None for a table without any commit.
        """
        if known is not None and not self._store.exists(self._key(known + 1)):
            return known
        keys = list(self._store.list(self._prefix))
        return int(keys[-1].removeprefix(self._prefix)) if keys else None

    def _key(self, number: int) -> str:
        return f"{self._prefix}{number:08d}"


def state_number(location: str) -> int:
    """Return a state's number from the name of its metadata file, ``00013-<uuid>.metadata.json``.

    Raises:
        WorkspaceError: a file that is named differently.
    """
    name = location.rpartition("/")[2]
    digits = name.partition("-")[0]
    if not digits.isdecimal() or not name.endswith(".metadata.json"):
        raise WorkspaceError(
            f"{location} is not named like a table's metadata (00013-....metadata.json): the "
            "catalog was changed by another program"
        )
    return int(digits)
