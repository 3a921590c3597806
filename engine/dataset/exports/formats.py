"""The formats that a release can be exported to, by name.

make_format(ExportOptions(format="coco"), splits=(None,))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from engine.dataset.exports.coco import CocoFormat
from engine.dataset.exports.huggingface import HuggingFaceFormat
from engine.dataset.exports.png import PngFormat
from engine.dataset.exports.protocol import ExportFormat, ExportOptions
from engine.dataset.exports.sa1b import Sa1bFormat
from engine.dataset.exports.webdataset import WebDatasetFormat
from engine.dataset.exports.yolo import YoloFormat
from engine.errors import BadInputError

__all__ = ["FORMATS", "make_format"]

FORMATS: Mapping[str, Callable[[ExportOptions, Sequence[str | None]], ExportFormat]] = {
    "sa1b": Sa1bFormat,
    "coco": CocoFormat,
    "webdataset": WebDatasetFormat,
    "huggingface": HuggingFaceFormat,
    "yolo": YoloFormat,
    "png": PngFormat,
}


def make_format(options: ExportOptions, splits: Sequence[str | None]) -> ExportFormat:
    """Return the format for an export with these splits.

    Raises:
        BadInputError: a format that there is not, or splits that it cannot name.
    """
    if options.format not in FORMATS:
        raise BadInputError(f"got the format {options.format!r}; expected one of {list(FORMATS)}")
    return FORMATS[options.format](options, splits)
