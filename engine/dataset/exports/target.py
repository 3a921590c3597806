"""Where an export goes: a folder or ``s3://bucket/prefix``, written so that it can be resumed.

    target = ExportTarget.claim(open_store("exports/r3"), identity, now)
    file = target.put("images/7.jpg", data)
    target.keep(record); ...; target.complete(summary)

What stands there, in the order in which it is written: ``.export/start.json`` (what this export
is), the files of each part and then its record in ``.export/``, ``SHA256SUMS``, and last
``export.json``: an export without that is not complete. Then the folder ``.export`` goes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from engine.dataset.exports.protocol import ExportedImage, Part, Problem
from engine.dataset.release_checksums import hash_stream
from engine.errors import BadInputError, WorkspaceError
from engine.objects import ObjectStore

__all__ = ["ExportTarget", "PartRecord", "WrittenFile"]

EXPORT_FILE = "export.json"
_WORK = ".export/"
_START = f"{_WORK}start.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of the export.

    Attributes:
        path: below the export's folder.
        size_bytes: its length.
        sha256: hex digest of its bytes.
    """

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRecord:
    """What became of a part that is written.

    Attributes:
        part: which one.
        last_image_id: the part after it begins above this id.
        images: those that are in the export, by id.
        files: what was written.
        problems: what is not in the export.
    """

    part: Part
    last_image_id: int
    images: tuple[ExportedImage, ...]
    files: tuple[WrittenFile, ...]
    problems: tuple[Problem, ...]


class ExportTarget:
    """A folder or bucket that belongs to one export.

    Attributes:
        store: writes and reads it.
        created_at: when the export was begun, UTC; the same after it was resumed.
    """

    def __init__(self, store: ObjectStore, created_at: datetime) -> None:
        self.store = store
        self.created_at = created_at

    @classmethod
    def claim(
        cls, store: ObjectStore, identity: Mapping[str, object], now: datetime
    ) -> ExportTarget:
        """Take a place for an export, or find it taken by the same export.

        Args:
            store: the place.
            identity: what makes two exports the same; JSON-ready.
            now: UTC.

        Raises:
            BadInputError: something else is there.
            WorkspaceError: the place cannot be written.
        """
        if not store.exists(_START) and not store.exists(EXPORT_FILE):
            if (found := next(iter(store.list("")), None)) is not None:
                raise BadInputError(
                    f"{store.uri(found)} is in the way: an export needs a place of its own; name "
                    "a new or an empty folder"
                )
            start = {"format": _FORMAT, "created_at": now.isoformat(), "identity": identity}
            store.put_if_absent(_START, _json(start))
        key = EXPORT_FILE if store.exists(EXPORT_FILE) else _START
        try:
            there = json.loads(store.get(key))
            created_at, known = datetime.fromisoformat(there["created_at"]), there["identity"]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(f"{store.uri(key)} is of no export: {error!r}") from error
        wanted = json.loads(_json(identity))
        if different := sorted(name for name in wanted if known.get(name) != wanted[name]):
            raise BadInputError(
                f"{store.uri(key)} belongs to another export, with another "
                f"{', '.join(different)}; name a new folder, or delete that one"
            )
        return cls(store, created_at)

    def summary(self) -> dict[str, object] | None:
        """Return what a complete export says about itself; None while it is not complete."""
        if not self.store.exists(EXPORT_FILE):
            return None
        found: dict[str, object] = json.loads(self.store.get(EXPORT_FILE))
        return found

    def put(self, path: str, data: bytes) -> WrittenFile:
        """Write a file, or find it written by this export before it was interrupted.

        Raises:
            WorkspaceError: the place cannot be written, or holds another file of that name.
        """
        digest = hashlib.sha256(data).hexdigest()
        if not self.store.put_if_absent(path, data):
            self._must_equal(path, digest)
        return WrittenFile(path, len(data), digest)

    def put_file(self, path: str, local_path: Path) -> WrittenFile:
        """Write a local file; as `put`."""
        with local_path.open("rb") as stream:
            size_bytes, digest = hash_stream(stream)
        if not self.store.put_file_if_absent(path, local_path):
            self._must_equal(path, digest)
        return WrittenFile(path, size_bytes, digest)

    def keep(self, record: PartRecord) -> None:
        """Note that a part is written; it will not be made again."""
        self.store.put_if_absent(_record_key(record.part), _json(asdict(record)))

    def records(self, split: str | None) -> Iterator[PartRecord]:
        """Yield the parts of a split that are written, by number."""
        number = 0
        while (record := self.record(Part(split, number))) is not None:
            yield record
            number += 1

    def record(self, part: Part) -> PartRecord | None:
        """Return what became of a part; None when it is not written.

        Raises:
            WorkspaceError: its record is damaged.
        """
        key = _record_key(part)
        if not self.store.exists(key):
            return None
        try:
            fields = json.loads(self.store.get(key))
            return PartRecord(
                part=Part(**fields["part"]),
                last_image_id=fields["last_image_id"],
                images=tuple(ExportedImage(**image) for image in fields["images"]),
                files=tuple(WrittenFile(**file) for file in fields["files"]),
                problems=tuple(Problem(**problem) for problem in fields["problems"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WorkspaceError(
                f"{self.store.uri(key)} is damaged: {error!r}; export to a new folder"
            ) from error

    def complete(self, identity: Mapping[str, object], summary: Mapping[str, object]) -> None:
        """Write ``export.json``; from now on the export is complete."""
        fields = {
            "format": _FORMAT,
            "created_at": self.created_at.isoformat(),
            **summary,
            "identity": identity,
        }
        self.put(EXPORT_FILE, _json(fields))

    def tidy(self) -> None:
        """Remove the records of a complete export's parts."""
        for key in list(self.store.list(_WORK)):
            self.store.delete(key)

    def _must_equal(self, path: str, digest: str) -> None:
        with self.store.open(path) as stream:
            found = hash_stream(stream)[1]
        if found != digest:
            raise WorkspaceError(
                f"{self.store.uri(path)} holds something else than this export writes; export to "
                "a new folder"
            )


def _record_key(part: Part) -> str:
    return f"{_WORK}{part.folder}{part.number:06d}.json"


def _json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, indent=1, ensure_ascii=False).encode()
