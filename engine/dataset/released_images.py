"""An image of a release with its masks, as one value; and how it is made of rows.

>>> image = reader[image_id]
>>> image.record.uri, len(image.masks), image.masks[0].area, image.origins[0].model_id
>>> pixels_HWC3 = image.read()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.dataset.shards import RECORD_COLUMNS, masks_from_arrow
from engine.errors import ImageError
from engine.images import decode_image, read_image_bytes
from engine.records import ImageRecord, MaskRecord

__all__ = ["MASK_COLUMNS", "MaskOrigin", "OriginatedMask", "ReleasedImage", "originated_masks"]

_ORIGIN_COLUMNS = (
    "stage",
    "model_id",
    "run_id",
    "annotator_id",
    "active_seconds",
    "created_at",
)
MASK_COLUMNS = ("image_id", "mask_id", *RECORD_COLUMNS, *_ORIGIN_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskOrigin:
    """Where a mask comes from. The masks of one run share one value.

    Attributes:
        stage: how it was made.
        model_id: the model that made it.
        run_id: the run that wrote it.
        annotator_id: the person who confirmed it, if any.
        active_seconds: the person's time on it.
        created_at: start of the run, UTC.
    """

    stage: Literal["manual", "semi", "auto"]
    model_id: str
    run_id: str
    annotator_id: str | None
    active_seconds: float | None
    created_at: datetime


OriginatedMask: TypeAlias = tuple[MaskRecord, int, MaskOrigin]


@dataclass(frozen=True, slots=True)
class ReleasedImage:
    """An image of a release; the pixels stay where they are until asked for.

    Attributes:
        record: its row of table ``images``.
        masks: all of its masks, of every run in the release; maybe none.
        mask_ids: their ids, in the same order.
        origins: where each comes from, in the same order.
    """

    record: ImageRecord
    masks: tuple[MaskRecord, ...] = ()
    mask_ids: tuple[int, ...] = ()
    origins: tuple[MaskOrigin, ...] = ()

    @classmethod
    def of(cls, record: ImageRecord, masks: Sequence[OriginatedMask]) -> ReleasedImage:
        """Put an image and what `originated_masks` returned together."""
        return cls(record, *zip(*masks, strict=True)) if masks else cls(record)

    @property
    def image_id(self) -> int:
        """The image's id."""
        return self.record.image_id

    def read(self) -> NDArray[np.uint8]:
        """Decode the image: (H, W, 3) RGB.

        Raises:
            ImageError: it is missing, damaged, or not of the size that its masks were made at.
        """
        record = self.record
        pixels_HWC3 = decode_image(read_image_bytes(record.uri))
        if pixels_HWC3.shape[:2] != (record.height, record.width):
            raise ImageError(
                "changed",
                f"{record.uri} has {pixels_HWC3.shape[1]} x {pixels_HWC3.shape[0]} pixels, its "
                f"masks were made on {record.width} x {record.height}",
            )
        return pixels_HWC3


def originated_masks(rows: pa.Table) -> list[OriginatedMask]:
    """Return rows with the columns `MASK_COLUMNS` as masks with their ids and origins."""
    return list(
        zip(masks_from_arrow(rows), rows["mask_id"].to_pylist(), _origins(rows), strict=True)
    )


def _origins(rows: pa.Table) -> list[MaskOrigin]:
    made: dict[tuple[object, ...], MaskOrigin] = {}
    origins = []
    for values in zip(*(_repeated(rows[name]) for name in _ORIGIN_COLUMNS), strict=True):
        if values not in made:
            made[values] = MaskOrigin(**dict(zip(_ORIGIN_COLUMNS, values, strict=True)))
        origins.append(made[values])
    return origins


def _repeated(column: pa.ChunkedArray) -> Sequence[object]:
    """Return the values of a column that has few different ones; each is converted once."""
    encoded = column.combine_chunks().dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    missing = len(values) - 1
    return [values[i] for i in encoded.indices.fill_null(missing).to_pylist()]
