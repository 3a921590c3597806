"""What a model is evaluated on: COCO files and releases, cut to what training never saw.

sets = evaluation_sets(["bsds/annotations.json", "r3"], workspace, split="val", hold_out=40)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import LabelledSet, hold_out
from engine.errors import BadInputError
from engine.learning.training_data import DataSource, is_coco_file, open_data


def evaluation_sets(
    names: Sequence[str],
    workspace: Workspace | None,
    split: str | None = None,
    held_out: int | None = None,
) -> tuple[LabelledSet, ...]:
    """Open labelled sets; see `evaluation_sources`."""
    return tuple(source.images for source in evaluation_sources(names, workspace, split, held_out))


def evaluation_sources(
    names: Sequence[str],
    workspace: Workspace | None,
    split: str | None = None,
    held_out: int | None = None,
    stages: Collection[str] | None = None,
) -> tuple[DataSource, ...]:
    """Open labelled sets, with what identifies them.

    Args:
        names: paths of COCO files, folders with an ``annotations.json``, names of releases.
        workspace: where the releases are; may be closed afterwards.
        split: keep the images of this split, in sets that know splits.
        held_out: keep so many evenly spaced images, the ones that training leaves out; with `split`
            in sets that know no splits.
        stages: of releases keep the masks that were made in these stages; None: all.

    Raises:
        BadInputError: an unknown name, no such split, or fewer images than are to be held out.
    """
    return tuple(_open(_path_or_name(name), workspace, split, held_out, stages) for name in names)


def _open(
    name: str,
    workspace: Workspace | None,
    split: str | None,
    held_out: int | None,
    stages: Collection[str] | None,
) -> DataSource:
    if split is not None and is_coco_file(name) and not _knows_splits(Path(name)):
        if held_out is None:
            raise BadInputError(
                f"no image of {name} says which split it belongs to, so there is no {split!r}; "
                "leave --split out, or say with --hold-out how many images training left out"
            )
        split = None
    elif split is not None:
        held_out = None
    source = open_data([name], workspace, split, stages=stages)[0]
    if held_out is None:
        return source
    if held_out < 1:
        raise BadInputError(
            f"expected at least one image to evaluate on; got --hold-out {held_out}"
        )
    return replace(
        source,
        images=hold_out(source.images, held_out)[1],
        fingerprint=f"{source.fingerprint}/{held_out}",
    )


def _path_or_name(name: str) -> str:
    inside = Path(name) / "annotations.json"
    return str(inside) if inside.is_file() else name


def _knows_splits(annotations: Path) -> bool:
    try:
        images = json.loads(annotations.read_bytes())["images"]
        return any(image.get("split") for image in images)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True  # whoever opens the file says what is wrong with it
