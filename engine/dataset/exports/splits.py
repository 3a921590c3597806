"""Names of splits in an export.

split_names((None, "val"), alone="train")        # {None: "unsplit", "val": "val"}
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.errors import BadInputError

__all__ = ["split_names"]

_SPLIT = re.compile(r"[A-Za-z0-9_]+([.-][A-Za-z0-9_]+)*")
_WITHOUT = "unsplit"


def split_names(splits: Sequence[str | None], alone: str) -> dict[str | None, str]:
    """Name the splits of an export, which become parts of paths.

    Args:
        splits: of its images; None stands for images without a split.
        alone: the name of images without a split where no image has one.

    Raises:
        BadInputError: a split that no file can be named after.
    """
    for split in splits:
        if split is not None and (not _SPLIT.fullmatch(split) or split == _WITHOUT):
            raise BadInputError(
                f"got the split {split!r}, which files cannot be named after; expected letters, "
                f"digits, '_', '-' and '.', but not {_WITHOUT!r}; name the splits to export"
            )
    without = alone if len(splits) == 1 else _WITHOUT
    return {split: split if split is not None else without for split in splits}
