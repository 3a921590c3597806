"""Photos with their masks, a few at a time, from a release or from a run.

    for picture in iter_pictures(workspace, release, sample_image_ids(workspace, release, 24)):
        ...

Memory: one decoded photo, and the masks of a few images as RLE.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyiceberg.expressions import In, Reference
from pyiceberg.expressions.literals import literal

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import load_images
from engine.dataset.releases import scan, scan_batches
from engine.dataset.runs import RunManifest, pending_shards
from engine.dataset.shards import iter_image_masks, masks_from_arrow, read_shard_statuses
from engine.errors import BadInputError, ImageError
from engine.images import content_id, decode_image, read_image_bytes, resize_to_fit
from engine.records import ImageRecord, MaskRecord, Release, Shard

__all__ = ["Picture", "iter_pictures", "sample_image_ids"]

# Iceberg prunes files by a list of up to 200 values; a few keep their masks small in memory.
_IMAGES_PER_SCAN = 32


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A photo with its masks.

    Attributes:
        image: what the data set knows of it.
        masks: largest first, at the photo's original size.
        image_HWC3: uint8 RGB, shrunk as asked; None when the photo cannot be shown.
        problem: why it cannot be shown, a sentence; else None.
    """

    image: ImageRecord
    masks: tuple[MaskRecord, ...]
    image_HWC3: NDArray[np.uint8] | None
    problem: str | None = None


def sample_image_ids(
    workspace: Workspace, source: Release | RunManifest, max_images: int
) -> list[int]:
    """Choose images that have masks, evenly spread over the image ids, ascending.

    Ids come from hashes of the files, so the choice is as good as random, and always the same.

    Raises:
        BadInputError: `max_images` below 1.
        WorkspaceError: the release's snapshots, or objects of the run, are gone.
    """
    if max_images < 1:
        raise BadInputError(f"got max_images={max_images}; expected at least 1")
    if isinstance(source, Release):
        batches = scan_batches(
            workspace, source, "image_runs", ("image_id", "masks"), row_filter="masks > 0"
        )
        parts = [batch.column("image_id").to_numpy() for batch in batches]
        ids = np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)
    else:
        ids = np.array(
            [
                status.image_id
                for shard in _written_shards(workspace, source)
                for status in read_shard_statuses(workspace.store, shard)
                if status.masks
            ],
            dtype=np.int64,
        )
    chosen = np.arange(min(max_images, ids.size)) * ids.size // max(1, min(max_images, ids.size))
    sample: list[int] = ids[chosen].tolist()
    return sample


def iter_pictures(
    workspace: Workspace,
    source: Release | RunManifest,
    image_ids: Sequence[int],
    max_side: int | None = None,
) -> Iterator[Picture]:
    """Yield photos with their masks, in the order of the ids as given.

    An image that several runs of a release have masked comes with the masks of the newest.

    Args:
        workspace: where the source is.
        source: a release, or a run of which some shards are written.
        image_ids: images of the data set, with or without masks.
        max_side: shrink photos to this longer side, in pixels; None: as they are.

    Raises:
        WorkspaceError: an id that the data set does not have, or objects that are gone.
        TransientError: the catalog stayed busy.
    """
    for start in range(0, len(image_ids), _IMAGES_PER_SCAN):
        chunk = image_ids[start : start + _IMAGES_PER_SCAN]
        if isinstance(source, Release):
            masks = _masks_of_release(workspace, source, chunk)
        else:
            masks = _masks_of_run(workspace, source, chunk)
        for image in load_images(workspace, chunk):
            found = sorted(masks.get(image.image_id, ()), key=lambda mask: -mask.area)
            yield _picture(image, tuple(found), max_side)


def _picture(image: ImageRecord, masks: tuple[MaskRecord, ...], max_side: int | None) -> Picture:
    try:
        data = read_image_bytes(image.uri)
        if content_id(data)[0] != image.image_id:
            return Picture(
                image, masks, None, f"{image.uri} has changed since its masks were made."
            )
        image_HWC3 = decode_image(data)
    except (ImageError, BadInputError) as error:
        return Picture(image, masks, None, f"The photo cannot be shown: {error}.")
    sizes = {(mask.rle.height, mask.rle.width) for mask in masks}
    if sizes - {image_HWC3.shape[:2]}:
        return Picture(
            image, masks, None, f"The masks do not have the size of {image.uri}: {sorted(sizes)}."
        )
    return Picture(
        image, masks, image_HWC3 if max_side is None else resize_to_fit(image_HWC3, max_side)
    )


def _masks_of_release(
    workspace: Workspace, release: Release, image_ids: Sequence[int]
) -> dict[int, list[MaskRecord]]:
    age = {run_id: number for number, run_id in enumerate(release.runs)}
    chosen = In(term=Reference("image_id"), values={literal(i) for i in image_ids})
    rows = scan(workspace, release, "masks", row_filter=chosen)
    # A scan promises no order; equal areas would otherwise change places.
    rows = rows.sort_by([("image_id", "ascending"), ("mask_id", "ascending")])
    newest: dict[int, int] = {}
    found: dict[int, list[MaskRecord]] = defaultdict(list)
    identity = zip(rows["image_id"].to_pylist(), rows["run_id"].to_pylist(), strict=True)
    for (image_id, run_id), mask in zip(identity, masks_from_arrow(rows), strict=True):
        number = age.get(run_id, -1)
        if number > newest.get(image_id, -2):
            newest[image_id] = number
            found[image_id].clear()
        if number == newest[image_id]:
            found[image_id].append(mask)
    return found


def _masks_of_run(
    workspace: Workspace, run: RunManifest, image_ids: Sequence[int]
) -> dict[int, list[MaskRecord]]:
    wanted = set(image_ids)
    return {
        image_id: masks
        for shard in _written_shards(workspace, run)
        if not wanted.isdisjoint(shard.image_ids)
        for image_id, masks in iter_image_masks(workspace.store, shard, wanted)
    }


def _written_shards(workspace: Workspace, run: RunManifest) -> list[Shard]:
    pending = {shard.index for shard in pending_shards(workspace.store, run)}
    return [shard for shard in run.shards if shard.index not in pending]
