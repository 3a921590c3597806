"""What a training learns from: releases of a workspace and COCO files, by name.

>>> sources = open_data(["r3", "birds/annotations.json"], workspace)
>>> parts = split_off(sources, hold_out=None)
>>> parts.train, parts.held_out
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import CocoMasks, LabelledSet, hold_out
from engine.dataset.release_masks import ReleaseMasks
from engine.dataset.releases import load_release
from engine.errors import BadInputError

__all__ = ["DataParts", "DataSource", "held_out_number", "is_coco_file", "open_data", "split_off"]

_HELD_OUT_SHARE = 0.05
_HELD_OUT_MOST = 40


@dataclass(frozen=True, slots=True, eq=False)
class DataSource:
    """One labelled set, and what identifies it.

    Attributes:
        name: as it was asked for.
        fingerprint: of a COCO file its sha256, of a release the snapshots that it pins; 16 digits.
        images: its images with masks.
        is_release: whether it is a release of the workspace, not a file.
        held_out: images that `images` has not, to measure on; None: `split_off` chooses some.
    """

    name: str
    fingerprint: str
    images: LabelledSet
    is_release: bool = False
    held_out: LabelledSet | None = None

    @property
    def identity(self) -> str:
        """Name and fingerprint, for records."""
        return f"{self.images.name}@{self.fingerprint}"


@dataclass(frozen=True, slots=True, eq=False)
class DataParts:
    """Sources cut in two.

    Attributes:
        train: what is trained on, one set of each source.
        held_out: what is never trained on; no set where nothing was held out.
    """

    train: tuple[LabelledSet, ...]
    held_out: tuple[LabelledSet, ...]


def is_coco_file(name: str) -> bool:
    """Whether a name means a COCO file rather than a release."""
    return name.endswith(".json") or Path(name).is_file()


def open_data(
    names: Sequence[str],
    workspace: Workspace | None,
    split: str | None = None,
    photos: Path | None = None,
    *,
    stages: Collection[str] | None = None,
) -> tuple[DataSource, ...]:
    """Open labelled sets.

    Args:
        names: of releases (``r3``) and paths of COCO files.
        workspace: where the releases are; may be closed afterwards.
        split: keep the images of this split.
        photos: folder that file names in COCO files count from.
        stages: of releases keep the masks that were made in these stages; None: all.

    Raises:
        BadInputError: an unknown release, a file that is no COCO file, or a set without masks.
    """
    if not names:
        raise BadInputError("got no data; name releases and COCO files, e.g. --data r1")
    return tuple(
        _coco(name, split, photos)
        if is_coco_file(name)
        else _release(name, workspace, split, stages)
        for name in names
    )


def split_off(sources: Sequence[DataSource], count: int | None) -> DataParts:
    """Hold images out of every source, evenly spaced, to measure progress on.

    Args:
        sources: what there is; of one that brings its own held-out images nothing more is held out.
        count: images held out of each; None: 5 %, at most 40.

    Raises:
        BadInputError: nothing is left to train on.
    """
    train: list[LabelledSet] = []
    held: list[LabelledSet] = []
    for source in sources:
        if source.held_out is not None:
            train.append(source.images)
            held += [source.held_out] if len(source.held_out) else []
            continue
        total, number = len(source.images), held_out_number(source, count)
        if number >= total:
            raise BadInputError(
                f"holding {number} of the {total} images of {source.name} out leaves none to train "
                "on; lower --hold-out or give more data"
            )
        rest, part = hold_out(source.images, number)
        train.append(rest)
        held += [part] if number else []
    return DataParts(tuple(train), tuple(held))


def held_out_number(source: DataSource, count: int | None) -> int:
    """Return how many images `split_off` holds out of a source."""
    share = int(len(source.images) * _HELD_OUT_SHARE)
    return min(_HELD_OUT_MOST, share) if count is None else count


def _coco(name: str, split: str | None, photos: Path | None) -> DataSource:
    path = Path(name)
    images = CocoMasks.load(path, split, photos)
    if not len(images):
        which = f" in split {split!r}" if split else ""
        raise BadInputError(f"{name} has no image with masks{which}")
    digest = hashlib.sha256(path.read_bytes())
    digest.update(f"\n{split}".encode())
    return DataSource(name, digest.hexdigest()[:16], images)


def _release(
    name: str, workspace: Workspace | None, split: str | None, stages: Collection[str] | None
) -> DataSource:
    if workspace is None:
        raise BadInputError(
            f"got the data {name!r}, which is no COCO file; for a release name its --workspace"
        )
    release = load_release(workspace, name)
    which = [asdict(release), split, *([sorted(stages)] if stages is not None else [])]
    digest = hashlib.sha256(json.dumps(which, sort_keys=True, default=str).encode()).hexdigest()
    images = ReleaseMasks.open(workspace, release, split, stages)
    return DataSource(name, digest[:16], images, True)
