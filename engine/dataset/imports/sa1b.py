"""SA-1B folders: a JSON file per image, with the image beside it or in another folder.

    source = Sa1bSource("sa_000020")                # or s3://bucket/prefix

Every ``.json`` below the folder is looked at; those that are not SA-1B's are recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.dataset.imports.annotations import read_annotation
from engine.dataset.imports.protocol import ImportedMask, Rejected, SourceImage, UsableImage
from engine.errors import BadInputError
from engine.objects import ObjectStore, open_store

__all__ = ["Sa1bSource"]

_OURS = "export.json"


class Sa1bSource:
    """See the module; an `ImportSource`."""

    format = "sa1b"

    def __init__(self, address: str, images: str | None = None) -> None:
        """Take a folder.

        Args:
            address: folder or ``s3://bucket/prefix`` with the JSON files.
            images: folder or address with the image files; None: each is beside its JSON.

        Raises:
            BadInputError: there is no such folder.
        """
        if "://" not in address and not Path(address).expanduser().is_dir():
            raise BadInputError(f"got {address!r}; expected a folder with SA-1B's JSON files")
        self._store: ObjectStore = open_store(address)
        self.address = self._store.address
        if images is not None and "://" not in images:
            images = str(Path(images).expanduser().absolute())
        self._images = None if images is None else images.rstrip("/")
        self._digest = hashlib.sha256()

    def images(self) -> Iterator[SourceImage | Rejected]:
        """Yield an image per JSON file, by the files' names."""
        digest = hashlib.sha256()
        listed = 0
        for key in self._store.list(""):
            if not key.endswith(".json") or key == _OURS or key.startswith("."):
                continue
            listed += 1
            data = self._store.get(key)
            digest.update(f"{key}\n".encode() + hashlib.sha256(data).digest())
            try:
                yield self._image(key, json.loads(data))
            except (KeyError, TypeError, ValueError, RecursionError) as error:
                yield Rejected(key, None, "malformed", f"it is no file of SA-1B's: {error!r}")
        if not listed:
            raise BadInputError(f"{self.address} has no JSON file; expected SA-1B's sa_1.json, ...")
        self._digest = digest

    def fingerprint(self) -> str:
        """Return a hash of the JSON files' names and contents."""
        return self._digest.hexdigest()

    def notes(self) -> Mapping[str, object]:
        """Return nothing: SA-1B has no categories."""
        return {}

    def masks(
        self, images: Iterator[UsableImage], *, keep_crowd: bool, folder: Path
    ) -> Iterator[tuple[int | None, ImportedMask | Rejected]]:
        """Yield the annotations of each image's file."""
        for image in images:
            for annotation in json.loads(self._store.get(image.key))["annotations"]:
                yield (
                    image.image_id,
                    read_annotation(
                        annotation,
                        height=image.height,
                        width=image.width,
                        image_key=image.key,
                        keep_crowd=keep_crowd,
                    ),
                )

    def _image(self, key: str, content: Any) -> SourceImage:  # noqa: ANN401  (any JSON)
        about = content["image"]
        if not isinstance(content["annotations"], list):
            raise TypeError("its annotations are no list")
        name = about["file_name"]
        if not isinstance(name, str) or not name or name.startswith("/"):
            raise ValueError(f"got the file name {name!r}")
        folder = self._images or f"{self.address}/{key}".rpartition("/")[0]
        return SourceImage(key, f"{folder}/{name}", int(about["height"]), int(about["width"]))
