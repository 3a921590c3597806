"""Weight files as immutable, numbered versions: ``models/m3/``, ``proposers/p2/``.

    files = VersionFiles("models", "m", TypeAdapter(ModelVersion))
    version = files.keep(store, weights, draft, same=lambda known: known.sha256 == draft.sha256)
    with files.weights(store, version) as path: ...

A version is two objects, written once: the weights, then ``version.json``. The second makes it
visible, so a crash between them leaves nothing but weights that no version names; the same call
again takes them up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, ClassVar, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from engine.errors import WorkspaceError
from engine.objects import ObjectStore

__all__ = ["VersionFiles", "file_digest"]

_CHUNK_BYTES = 4 * 1024 * 1024


class _Version(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def name(self) -> str: ...

    @property
    def sha256(self) -> str: ...


V = TypeVar("V", bound=_Version)


@dataclass(frozen=True, slots=True)
class VersionFiles(Generic[V]):
    """Where versions of one kind lie in a workspace's store.

    Attributes:
        folder: the first part of their keys.
        letter: what their names begin with; a number follows.
        record: reads and writes ``version.json``.
    """

    folder: str
    letter: str
    record: TypeAdapter[V]

    def versions(self, store: ObjectStore) -> list[V]:
        """Return all versions, oldest first.

        Raises:
            WorkspaceError: a record is damaged.
        """
        numbers = []
        for key in store.list(f"{self.folder}/"):
            parts = key.split("/")
            if len(parts) == 3 and parts[2] == "version.json" and self._is_name(parts[1]):
                numbers.append(int(parts[1].removeprefix(self.letter)))
        return [self._read(store, f"{self.letter}{number}") for number in sorted(numbers)]

    def keep(
        self,
        store: ObjectStore,
        weights: Path,
        draft: V,
        *,
        same: Callable[[V], bool],
        check: Callable[[Sequence[V]], None] = lambda versions: None,
    ) -> V:
        """Keep weights as a new version, or return the one that is the same.

        Args:
            store: of the workspace.
            weights: the file.
            draft: the record, still without a name.
            same: whether a known version is what is to be kept.
            check: raises where the draft does not fit the known versions.

        Raises:
            WorkspaceError: the store cannot be written, or a record in it is damaged.
        """
        while True:
            versions = self.versions(store)
            check(versions)
            for version in versions:
                if same(version):
                    return version
            name = self._free_name(store, versions, draft.sha256)
            key = self._weights_key(name)
            if not (store.put_file_if_absent(key, weights) or _stored(store, key) == draft.sha256):
                continue  # another writer was faster, with other weights
            version = replace(draft, name=name)
            record = self.record.dump_json(version, indent=2)
            if store.put_if_absent(self._record_key(name), record):
                return version

    @contextmanager
    def weights(self, store: ObjectStore, version: V) -> Iterator[Path]:
        """Lend a version's weights as a local file, checked while they are copied.

        Raises:
            WorkspaceError: they are missing, or not those that were registered.
        """
        key = self._weights_key(version.name)
        with TemporaryDirectory(prefix="maskwheel-") as folder:
            path = Path(folder) / "weights.safetensors"
            with store.open(key) as source, path.open("xb") as copy:
                digest = _digest(source, copy)
            if digest != version.sha256:
                raise WorkspaceError(
                    f"{key} is not what was registered (sha256 {digest[:12]}, expected "
                    f"{version.sha256[:12]}): tampered with or damaged; restore it from a backup, "
                    "or go back to another version"
                )
            yield path

    def _read(self, store: ObjectStore, name: str) -> V:
        key = self._record_key(name)
        try:
            version = self.record.validate_json(store.get(key))
        except ValidationError as error:
            raise WorkspaceError(f"{key} is damaged: {error}; restore it from a backup") from error
        if version.name != name:
            raise WorkspaceError(f"{key} is damaged: it is the record of {version.name!r}")
        return version

    def _free_name(self, store: ObjectStore, versions: Sequence[V], sha256: str) -> str:
        """Return the first number after the versions that no other weights have taken.

        Weights without a version are those of a writer that was killed, or is about to write it.
        """
        numbers = (int(version.name.removeprefix(self.letter)) for version in versions)
        number = 1 + max(numbers, default=0)
        while (
            store.exists(key := self._weights_key(f"{self.letter}{number}"))
            and _stored(store, key) != sha256
        ):
            number += 1
        return f"{self.letter}{number}"

    def _is_name(self, text: str) -> bool:
        number = text.removeprefix(self.letter)
        return number != text and number.isascii() and number.isdigit() and number[0] != "0"

    def _record_key(self, name: str) -> str:
        return f"{self.folder}/{name}/version.json"

    def _weights_key(self, name: str) -> str:
        return f"{self.folder}/{name}/weights.safetensors"


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as stream:
        return _digest(stream)


def _stored(store: ObjectStore, key: str) -> str:
    with store.open(key) as stream:
        return _digest(stream)


def _digest(source: BinaryIO, copy: BinaryIO | None = None) -> str:
    """Return the sha256 of a stream, copying it on the way."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        digest.update(chunk)
        if copy is not None:
            copy.write(chunk)
    return digest.hexdigest()
