"""COCO instances files: polygons, compressed and uncompressed RLE, crowds.

    source = CocoSource("annotations.json", images="photos")

The file is read as a stream, several times; its annotations are brought into the order of the
images by DuckDB, on disk. So its size does not matter.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

import duckdb
import pyarrow as pa

from engine.dataset.imports.annotations import read_annotation
from engine.dataset.imports.json_stream import iter_array, read_members
from engine.dataset.imports.protocol import ImportedMask, Rejected, SourceImage, UsableImage
from engine.errors import BadInputError
from engine.objects import open_address

__all__ = ["CocoSource"]

_BATCH_ROWS = 1000
_SORT_MEMORY = "256MB"
_CHUNK_BYTES = 1 << 20

T = TypeVar("T")


class CocoSource:
    """See the module; an `ImportSource`."""

    format = "coco"

    def __init__(self, address: str, images: str | None = None) -> None:
        """Take a file.

        Args:
            address: path or address of the JSON file.
            images: folder or address that file names count from; None: ``images`` beside the file
                if there is such a folder, else the file's own folder.

        Raises:
            BadInputError: there is no such file.
        """
        self.address = address if "://" in address else str(Path(address).expanduser().absolute())
        self._images = (images or self._folder_of_images()).rstrip("/")
        if "://" not in self._images:
            self._images = str(Path(self._images).expanduser().absolute())
        if "://" not in self.address and not Path(self.address).is_file():
            raise BadInputError(f"got {address!r}; expected a COCO file (JSON)")

    def images(self) -> Iterator[SourceImage | Rejected]:
        """Yield the member ``images``."""
        licenses = self._licenses()
        for number, row in enumerate(self._array("images")):
            try:
                yield self._image(row, licenses)
            except (KeyError, TypeError, ValueError) as error:
                message = f"images[{number}] is no image of COCO's: {error!r}"
                yield Rejected(_key_of(row, "id"), None, "malformed", message)

    def fingerprint(self) -> str:
        """Return the file's sha256."""
        digest = hashlib.sha256()
        with open_address(self.address) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest()

    def notes(self) -> Mapping[str, object]:
        """Return categories, licences and what the file says about itself."""
        with self._text() as stream:
            return read_members(stream, {"info", "licenses", "categories"})

    def masks(
        self, images: Iterator[UsableImage], *, keep_crowd: bool, folder: Path
    ) -> Iterator[tuple[int | None, ImportedMask | Rejected]]:
        """Yield the member ``annotations``, ordered by image."""
        database = duckdb.connect(folder / "annotations.duckdb")
        try:
            database.execute(f"SET memory_limit = '{_SORT_MEMORY}'")
            database.execute("SET threads = 1")
            database.execute("SET temp_directory = ?", [str(folder / "spill")])
            _load(database, "images", _IMAGES, (_image_row(image) for image in images))
            _load(database, "annotations", _ANNOTATIONS, self._annotation_rows())
            rows = database.sql(
                "SELECT image_id, a.key, height, width, text FROM annotations a "
                "LEFT JOIN images i ON a.key = i.key ORDER BY image_id NULLS FIRST, place"
            ).to_arrow_reader(_BATCH_ROWS)
            for batch in rows:
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    yield _mask(*row, keep_crowd=keep_crowd)
        finally:
            database.close()

    def _image(self, row: object, licenses: Mapping[str, str]) -> SourceImage:
        if not isinstance(row, dict):
            raise TypeError(f"got {type(row).__name__}, expected an object")
        key, name = _key_of(row, "id"), row["file_name"]
        if key is None or not isinstance(name, str) or not name:
            raise ValueError("it has no id or no file name")
        absolute = "://" in name or name.startswith("/")
        height, width, split = row.get("height"), row.get("width"), row.get("split")
        return SourceImage(
            key,
            name if absolute else f"{self._images}/{name}",
            None if height is None else int(height),
            None if width is None else int(width),
            license=licenses.get(str(row.get("license"))),
            split=split if isinstance(split, str) else None,
        )

    def _licenses(self) -> dict[str, str]:
        with self._text() as stream:
            listed: Any = read_members(stream, {"licenses"}).get("licenses")
            if not isinstance(listed, list):
                listed = []
        found = [item for item in listed if isinstance(item, dict)]
        return {str(item.get("id")): str(item.get("name") or item.get("url")) for item in found}

    def _annotation_rows(self) -> Iterator[dict[str, object]]:
        for place, value in enumerate(self._array("annotations")):
            text = json.dumps(value, separators=(",", ":"))
            yield {"place": place, "key": _key_of(value, "image_id"), "text": text}

    def _array(self, name: str) -> Iterator[object]:
        with self._text() as stream:
            yield from iter_array(stream, name)

    @contextmanager
    def _text(self) -> Iterator[TextIO]:
        with open_address(self.address) as raw:
            try:
                yield io.TextIOWrapper(raw, encoding="utf-8-sig")
            except UnicodeDecodeError as error:
                raise BadInputError(f"{self.address} is not text in UTF-8: {error}") from error
            except BadInputError as error:
                raise BadInputError(f"{self.address} is not a COCO file: {error}") from error

    def _folder_of_images(self) -> str:
        folder, _, _ = self.address.rpartition("/")
        if "://" not in folder and (Path(folder) / "images").is_dir():
            return f"{folder}/images"
        return folder


_IMAGES = pa.schema(
    {"image_id": pa.int64(), "key": pa.string(), "height": pa.int32(), "width": pa.int32()}
)
_ANNOTATIONS = pa.schema({"place": pa.int64(), "key": pa.string(), "text": pa.string()})


def _image_row(image: UsableImage) -> dict[str, object]:
    return {
        "image_id": image.image_id,
        "key": image.key,
        "height": image.height,
        "width": image.width,
    }


def _load(
    database: duckdb.DuckDBPyConnection,
    table: str,
    schema: pa.Schema,
    rows: Iterable[dict[str, object]],
) -> None:
    def batches() -> Iterator[pa.RecordBatch]:
        for some in _batched(rows, _BATCH_ROWS):
            yield pa.RecordBatch.from_pylist(some, schema=schema)

    database.register("incoming", pa.RecordBatchReader.from_batches(schema, batches()))
    database.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming")  # noqa: S608
    database.unregister("incoming")


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _mask(
    image_id: int | None,
    key: str | None,
    height: int | None,
    width: int | None,
    text: str,
    *,
    keep_crowd: bool,
) -> tuple[int | None, ImportedMask | Rejected]:
    annotation = json.loads(text)
    if image_id is None or key is None or height is None or width is None:
        source_id = str(annotation.get("id", "")) if isinstance(annotation, dict) else None
        return None, Rejected(key, source_id, "no-image", "its image is not listed or not usable")
    return image_id, read_annotation(
        annotation, height=height, width=width, image_key=key, keep_crowd=keep_crowd
    )


def _key_of(row: object, name: str) -> str | None:
    """Return an id as text: numbers and names are both in use."""
    value: Any = row.get(name) if isinstance(row, dict) else None
    return str(value) if isinstance(value, int | str) else None
