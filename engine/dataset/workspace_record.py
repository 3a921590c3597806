"""``workspace.json``: what makes a folder or a bucket's prefix a workspace.

    record = claim_workspace("s3://team-data/birds", create=True)

It is written once, before anything else, and says who the workspace is and where it was made: the
tables hold absolute addresses, so that one that was moved or copied must not be opened.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from engine.config import load_settings
from engine.errors import BadInputError, MissingObjectError, WorkspaceError
from engine.objects import LocalStore, ObjectStore, open_store

__all__ = ["WORKSPACE_FILE", "WorkspaceRecord", "claim_workspace", "is_workspace"]

WORKSPACE_FILE = "workspace.json"
_FORMAT = 2
_TYPO = re.compile(r"s3(:|//)(?!//[^/])")


@dataclass(frozen=True, slots=True)
class WorkspaceRecord:
    """Who a workspace is.

    Attributes:
        workspace_id: 32 hex digits, unique.
        store: its objects, at the address that it was made at.
    """

    workspace_id: str
    store: ObjectStore

    @property
    def local_folder(self) -> Path:
        """What is of this machine only: the folder itself, or one in the user's data folder."""
        if isinstance(self.store, LocalStore):
            return self.store.root
        return load_settings().local_folder.expanduser().resolve() / self.workspace_id


def claim_workspace(address: str | Path, *, create: bool) -> WorkspaceRecord:
    """Return the record of the workspace at an address, creating it where there is nothing.

    Raises:
        WorkspaceError: the place holds something else, cannot be written, was moved or copied, is
            damaged, or comes from a newer version; or there is no workspace and not `create`.
        BadInputError: an address that is none, or that data-set addresses cannot hold.
        TransientError: the storage cannot be reached for now.
    """
    if _TYPO.match(str(address)):
        raise BadInputError(
            f"got the workspace {str(address)!r}; expected a folder or s3://bucket/prefix"
        )
    store = open_store(address)
    if (record := _read(store)) is not None:
        return record
    # Listed before the record is looked for again: a concurrent creator writes the record first.
    others = _visible_names(store)
    if (record := _read(store)) is not None:
        return record
    if not create:
        raise WorkspaceError(
            f"{store.address} holds no workspace; make one with `maskwheel auto` or ingest"
        )
    if others:
        raise WorkspaceError(
            f"{store.address} is not a workspace: it holds {', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}; name a new or an empty folder"
        )
    store.check()
    fields = {"format": _FORMAT, "id": uuid.uuid4().hex, "address": store.address}
    store.put_if_absent(WORKSPACE_FILE, json.dumps(fields, indent=2).encode())
    return claim_workspace(store.address, create=False)


def is_workspace(address: str | Path) -> bool:
    """Return whether there is a workspace at an address.

    Raises:
        BadInputError: no address.
        TransientError: the storage cannot be reached for now.
        WorkspaceError: it may not be asked.
    """
    return open_store(address).exists(WORKSPACE_FILE)


def _visible_names(store: ObjectStore) -> list[str]:
    if not isinstance(store, LocalStore):
        return list(islice(store.list(""), 4))
    folder = store.root
    try:
        return sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise WorkspaceError(f"{folder} is a file; expected a folder for the workspace") from None
    except OSError as error:
        raise WorkspaceError(f"{folder} cannot be read: {error}") from error


def _read(store: ObjectStore) -> WorkspaceRecord | None:
    where = store.uri(WORKSPACE_FILE)
    try:
        text = store.get(WORKSPACE_FILE)
    except MissingObjectError:
        return None
    try:
        fields = json.loads(text)
        version = int(fields["format"])
        if version == 1:  # folders only, without an id
            address = str(Path(fields["root"]))
            workspace_id = hashlib.sha256(address.encode()).hexdigest()[:32]
        elif version == _FORMAT:
            address, workspace_id = str(fields["address"]), str(fields["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(f"{where} is damaged ({error!r}); restore it from a backup") from error
    if version not in (1, _FORMAT):
        raise WorkspaceError(
            f"{where} has format {version}, this version reads up to {_FORMAT}; update maskwheel"
        )
    record = WorkspaceRecord(workspace_id, store)
    if not isinstance(store, LocalStore):
        if address != store.address:
            raise WorkspaceError(
                f"the workspace in {store.address} was made in {address} and its tables point "
                "there: copy it back"
            )
        return record
    # A link or mount that leads from the old place to this one keeps the addresses right, so the
    # recorded folder is used, not the path that was given.
    root = Path(address)
    if not root.is_dir() or not root.samefile(store.root):
        raise WorkspaceError(
            f"the workspace in {store.root} was made in {root} and its tables point there: move "
            f"it back, or make {root} a symbolic link to {store.root}"
        )
    return replace(record, store=LocalStore(root))
