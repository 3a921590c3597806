"""The images of a source that are in the data set, by their ids, on disk.

with ImageIndex(folder) as index:
index.fill(workspace, source, limits, now)
for image in index.usable(): ...
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa

from engine.closing import Closing
from engine.dataset.catalog import Workspace
from engine.dataset.imports.protocol import ImportSource, Rejected, SourceImage, UsableImage
from engine.dataset.ingest import ingest
from engine.dataset.inputs import ListedImage
from engine.images import ImageLimits
from engine.records import ImageRecord

__all__ = ["ImageIndex"]

log = logging.getLogger(__name__)

# Images whose records are in memory at once while they are read.
_IMAGES_AT_ONCE = 50_000
_FETCHED_ROWS = 1000
_SCHEMA = pa.schema(
    {"image_id": pa.int64(), "key": pa.string(), "height": pa.int32(), "width": pa.int32()}
)


class ImageIndex(Closing):
    """See the module.

    Attributes:
        rejected: images that cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.rejected: list[Rejected] = []
        self._database = duckdb.connect(folder / "images.duckdb")
        self._database.register("incoming", _SCHEMA.empty_table())
        self._database.execute("CREATE TABLE images AS SELECT * FROM incoming")

    def close(self) -> None:
        """Let go of what it reads or writes."""
        self._database.close()

    @property
    def reasons(self) -> dict[str, int]:
        """How many images cannot be used, by reason."""
        return dict(Counter(rejected.reason for rejected in self.rejected))

    def fill(
        self,
        workspace: Workspace,
        source: ImportSource,
        limits: ImageLimits,
        now: datetime,
        *,
        split: str | None = None,
        threads: int = 8,
        on_image: Callable[[str], None] | None = None,
    ) -> None:
        """Read the source's images into table ``images``, and remember which they are.

        Args:
            workspace: the data set.
            source: what lists them.
            limits: what is too large to be used.
            now: UTC.
            split: of images for which the source names none.
            threads: files read at the same time.
            on_image: called with each image's address when it has been read.
        """
        listed = source.images()
        while some := list(islice(listed, _IMAGES_AT_ONCE)):
            by_uri: dict[str, list[SourceImage]] = {}
            for item in some:
                if isinstance(item, Rejected):
                    self._reject(item)
                else:
                    by_uri.setdefault(item.uri, []).append(item)
            records: list[ImageRecord] = []
            result = ingest(
                workspace,
                [
                    ListedImage(uri, images[0].license, images[0].split or split)
                    for uri, images in by_uri.items()
                ],
                limits,
                now,
                on_image=on_image,
                threads=threads,
                on_record=records.append,
            )
            for skipped in result.skipped:
                for image in by_uri[skipped.uri]:
                    self._reject(Rejected(image.key, None, skipped.reason, skipped.message))
            self._add(_matched(image, r) for r in records for image in by_uri[r.uri])

    def image_ids(self) -> list[int]:
        """Return the ids of the images that can be used, ascending."""
        rows = self._database.execute("SELECT DISTINCT image_id FROM images ORDER BY 1").fetchall()
        return [int(row[0]) for row in rows]

    def usable(self) -> Iterator[UsableImage]:
        """Yield the images that can be used, by id and then by key."""
        cursor = self._database.cursor()
        try:
            rows = cursor.execute(
                "SELECT DISTINCT image_id, key, height, width FROM images ORDER BY image_id, key"
            )
            while some := rows.fetchmany(_FETCHED_ROWS):
                yield from (UsableImage(*row) for row in some)
        finally:
            cursor.close()

    def _add(self, found: Iterable[UsableImage | Rejected]) -> None:
        rows: list[dict[str, object]] = []
        for image in found:
            if isinstance(image, Rejected):
                self._reject(image)
                continue
            rows.append(
                {
                    "image_id": image.image_id,
                    "key": image.key,
                    "height": image.height,
                    "width": image.width,
                }
            )
        self._database.register("incoming", pa.Table.from_pylist(rows, schema=_SCHEMA))
        self._database.execute("INSERT INTO images SELECT * FROM incoming")

    def _reject(self, rejected: Rejected) -> None:
        log.info("rejected image %s: %s", rejected.image_key, rejected.message)
        self.rejected.append(rejected)


def _matched(image: SourceImage, record: ImageRecord) -> UsableImage | Rejected:
    said = (image.height or record.height, image.width or record.width)
    if said == (record.height, record.width):
        return UsableImage(record.image_id, image.key, record.height, record.width)
    return Rejected(
        image.key,
        None,
        "size",
        f"{image.uri} is {record.width} x {record.height} pixels, upright; its masks were drawn "
        f"on {said[1]} x {said[0]}",
    )
