"""Masks without people: regions that several superpixel hierarchies agree on.

    python -m engine.learning.pseudo_masks --images FOLDER --out FOLDER

writes ``annotations.json`` into the second folder, which training reads like human masks; the
photos stay where they are.

One hierarchy (`engine.learning.region_hierarchy`) holds hundreds of regions, and few of them are
things. So several are built, with randomly varied weights of colour, texture and contrast: regions
that most of them hold are stable, and much more often what a person would mark. Shapes: H, W rows
and columns of the image; h, w of the smaller image that is segmented; K regions.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import felzenszwalb

from engine.dataset.ingest import expand_inputs
from engine.dataset.labelled_sets import LabelledMask, folder_of_photos
from engine.errors import BadInputError, ImageError
from engine.files import write_atomically
from engine.images import decode_image, read_image_bytes, resize_to_fit
from engine.learning.region_hierarchy import MergeWeights, RegionHierarchy, merge_regions
from engine.masks import decode_mask, encode_mask, mask_area, mask_box_xyxy, mask_iou
from engine.records import Rle

__all__ = ["PseudoMaskConfig", "superpixel_hierarchy", "write_pseudo_labels"]

logger = logging.getLogger(__name__)

_CATEGORY = {"id": 1, "name": "region"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoMaskConfig:
    """Which regions become masks.

    Attributes:
        max_side_px: larger images are shrunk before they are segmented.
        scales: of the superpixels (felzenszwalb's `scale`), used in turn by the hierarchies.
        min_superpixel_px: smaller superpixels are joined to a neighbour.
        hierarchies: how many are built.
        weights: of the first hierarchy.
        variation: spread of the logarithm of the other hierarchies' weights.
        agreement: how many hierarchies must hold a region.
        same_iou: IoU from which two regions count as the same.
        regions_per_hierarchy: the most separate ones of each are looked at.
        min_area_share: of the image.
        max_area_share: of the image.
        max_frame_share: of the outline, that may be the image's frame.
        min_contrast: along the region's border, 0 to 1.
        min_width_px: mean width of a region in the smaller image; blurred borders between things
            are superpixels of their own, 2 to 3 pixels wide.
    """

    max_side_px: int = 480
    scales: tuple[float, ...] = (50.0, 100.0)
    min_superpixel_px: int = 30
    hierarchies: int = 4
    weights: MergeWeights = field(default_factory=MergeWeights)
    variation: float = 0.6
    agreement: int = 3
    same_iou: float = 0.7
    regions_per_hierarchy: int = 60
    min_area_share: float = 0.0015
    max_area_share: float = 0.9
    max_frame_share: float = 0.75
    min_contrast: float = 0.02
    min_width_px: float = 3.0

    def __post_init__(self) -> None:
        if not 1 <= self.agreement <= self.hierarchies or not self.scales:
            raise BadInputError(
                f"{self.agreement} of {self.hierarchies} hierarchies at {len(self.scales)} scales "
                "cannot agree; expected 1 <= agreement <= hierarchies and at least one scale"
            )
        if not 0 < self.same_iou <= 1 or not 0 <= self.min_area_share < self.max_area_share <= 1:
            raise BadInputError(
                f"same_iou {self.same_iou} and area shares {self.min_area_share} to "
                f"{self.max_area_share} are out of range; expected 0 < same_iou <= 1 and "
                "0 <= min_area_share < max_area_share <= 1"
            )


def superpixel_hierarchy(
    image_HWC3: NDArray[np.uint8], config: PseudoMaskConfig, random: np.random.Generator
) -> tuple[LabelledMask, ...]:
    """Find the regions of a photo that stay regions under varied rules of merging.

    Args:
        image_HWC3: uint8 RGB.
        config: which regions.
        random: varies the weights of the hierarchies.

    Returns:
        Masks at the image's size, the most separate first; they may lie in each other. Empty for
        an image without structure.
    """
    small_hwC3 = resize_to_fit(image_HWC3, config.max_side_px)
    superpixels = [_superpixels(small_hwC3, scale, config) for scale in config.scales]
    rles: list[Rle] = []
    sources: list[int] = []
    places: list[int] = []
    for number in range(config.hierarchies):
        weights = config.weights if number == 0 else _varied(config.weights, config, random)
        tree = merge_regions(small_hwC3, superpixels[number % len(superpixels)], weights)
        regions = _most_separate(tree, config)
        rles += [encode_mask(tree.mask(region)) for region in regions]
        sources += [number] * len(regions)
        places += range(len(regions))
    chosen = _agreed(rles, np.array(sources), np.array(places), config)
    return tuple(_labelled(rles[index], image_HWC3.shape[:2]) for index in chosen)


def _superpixels(
    image_hwC3: NDArray[np.uint8], scale: float, config: PseudoMaskConfig
) -> NDArray[np.intp]:
    """Cut an image into superpixels numbered from 0 without gaps: intp (h, w)."""
    found = felzenszwalb(image_hwC3, scale=scale, sigma=0.6, min_size=config.min_superpixel_px)
    _, numbers = np.unique(found, return_inverse=True)
    return np.asarray(numbers, dtype=np.intp).reshape(found.shape)


def _varied(
    weights: MergeWeights, config: PseudoMaskConfig, random: np.random.Generator
) -> MergeWeights:
    colour, texture, border = np.exp(random.normal(0, config.variation, 3))
    return MergeWeights(
        colour=weights.colour * colour,
        texture=weights.texture * texture,
        border=weights.border * border,
        size=weights.size,
    )


def _most_separate(tree: RegionHierarchy, config: PseudoMaskConfig) -> list[int]:
    """Regions of usable size and contrast, the most separate first, near-copies left out."""
    share = tree.area_M / tree.rank_HW.size
    usable = np.flatnonzero(
        (share >= config.min_area_share)
        & (share <= config.max_area_share)
        & (tree.frame_share_M <= config.max_frame_share)
        & (tree.contrast_M >= config.min_contrast)
        & (tree.width_M >= config.min_width_px)
    )
    # Of equals the one that was made last, which holds the others.
    order = usable[::-1][np.argsort(-tree.separation_M[usable[::-1]], kind="stable")]
    chosen: list[int] = []
    for region in order.tolist():
        if len(chosen) == config.regions_per_hierarchy:
            break
        ious = tree.nested_iou(region, np.array(chosen, dtype=np.intp))
        if not np.any(ious >= (1 + config.same_iou) / 2):
            chosen.append(region)
    return chosen


def _agreed(
    rles: Sequence[Rle],
    sources_K: NDArray[np.intp],
    places_K: NDArray[np.intp],
    config: PseudoMaskConfig,
) -> list[int]:
    """Choose regions that enough hierarchies hold, each once, the most separate first."""
    if not rles:
        return []
    same_KK = mask_iou(rles, rles) >= config.same_iou
    held_NK = [same_KK[sources_K == number].any(0) for number in range(config.hierarchies)]
    agreeing_K = np.sum(held_NK, axis=0)
    chosen: list[int] = []
    for index in np.argsort(places_K, kind="stable").tolist():
        if agreeing_K[index] >= config.agreement and not same_KK[index, chosen].any():
            chosen.append(index)
    return chosen


def _labelled(rle: Rle, size: tuple[int, ...]) -> LabelledMask:
    """Bring a mask to the image's size and measure it there."""
    if (rle.height, rle.width) != size:
        mask_hw = decode_mask(rle)
        rows = (np.arange(size[0]) + 0.5) * rle.height / size[0]
        columns = (np.arange(size[1]) + 0.5) * rle.width / size[1]
        rle = encode_mask(mask_hw[rows.astype(np.intp)[:, None], columns.astype(np.intp)])
    x0, y0, x1, y1 = mask_box_xyxy(rle) or (0, 0, -1, -1)
    box_xywh = (float(x0), float(y0), float(x1 - x0 + 1), float(y1 - y0 + 1))
    return LabelledMask(rle, box_xywh, float(mask_area(rle)), votes=1)


def write_pseudo_labels(
    images: Sequence[Path],
    out_annotations: Path,
    config: PseudoMaskConfig | None = None,
    seed: int = 0,
    on_image: Callable[[Path, int], None] | None = None,
) -> int:
    """Label photos and write a COCO file that `CocoMasks.load` reads.

    Photos that cannot be decoded are left out with a logged line; photos without a region too.

    Args:
        images: local files; the COCO file names them relative to where `CocoMasks.load` looks.
        out_annotations: the JSON file; written when all is done.
        config: which regions.
        seed: the masks of a photo depend on it and on the photo alone.
        on_image: called after each photo with its number of masks.

    Returns:
        How many masks were written.

    Raises:
        BadInputError: no photo gave a mask, or the file cannot be written.
    """
    config = config or PseudoMaskConfig()
    folder = folder_of_photos(out_annotations)
    rows: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for path, masks, size in _label_all(images, config, seed):
        if on_image is not None:
            on_image(path, len(masks))
        if masks:
            rows.append(_image_row(path, folder, size, len(rows) + 1))
            annotations += [
                _annotation(mask, len(annotations) + place, len(rows))
                for place, mask in enumerate(masks, start=1)
            ]
    if not annotations:
        raise BadInputError(
            f"none of {len(images)} images gave a region; name a folder with photos"
        )
    coco = {
        "info": {"description": "label-free regions of superpixel hierarchies", "seed": seed}
        | {"config": asdict(config)},
        "categories": [_CATEGORY],
        "images": rows,
        "annotations": annotations,
    }
    write_atomically(out_annotations, json.dumps(coco).encode())
    return len(annotations)


def _label_all(
    images: Sequence[Path], config: PseudoMaskConfig, seed: int
) -> Iterator[tuple[Path, tuple[LabelledMask, ...], tuple[int, int]]]:
    for path in images:
        try:
            image_HWC3 = decode_image(read_image_bytes(str(path)))
        except ImageError as error:
            logger.warning("%s is left out: %s", path, error)
            continue
        height, width = image_HWC3.shape[:2]
        masks = superpixel_hierarchy(image_HWC3, config, np.random.default_rng(seed))
        yield path, masks, (height, width)


def _image_row(path: Path, folder: Path, size: tuple[int, int], number: int) -> dict[str, object]:
    name = Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    return {"id": number, "file_name": name, "height": size[0], "width": size[1]}


def _annotation(mask: LabelledMask, number: int, image_number: int) -> dict[str, object]:
    return {
        "id": number,
        "image_id": image_number,
        "category_id": _CATEGORY["id"],
        "bbox": list(mask.bbox_xywh),
        "area": mask.area,
        "segmentation": {"size": [mask.rle.height, mask.rle.width], "counts": mask.rle.counts},
        "iscrowd": 0,
        "votes": mask.votes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Label the photos of a folder."""
    parser = argparse.ArgumentParser(description="Label photos without people.")
    parser.add_argument("--images", required=True, help="folder, glob or list of photos")
    parser.add_argument("--out", type=Path, required=True, help="folder for annotations.json")
    parser.add_argument("--seed", type=int, default=0, help="of the varied hierarchies")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    paths = [Path(image.uri) for image in expand_inputs([options.images])]

    def on_image(path: Path, masks: int) -> None:
        logger.info("%s: %d masks", path.name, masks)

    out = options.out / "annotations.json"
    count = write_pseudo_labels(paths, out, seed=options.seed, on_image=on_image)
    logger.info("wrote %d masks to %s", count, out)


if __name__ == "__main__":
    main()
