"""Training batches from COCO annotations: the one place of training where RLE becomes pixels.

>>> data = CocoMasks.load(Path("annotations.json"))
>>> batches = prefetch(training_batches([data], SampleConfig(), seed=0))

A sample is a crop of a photo, scaled and coloured at random, with the masks that it shows.
"""

from __future__ import annotations

import json
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from engine.errors import BadInputError
from engine.images import decode_image
from engine.masks import decode_mask
from engine.records import Rle
from model import PIXEL_MEAN, TrainBatch


@dataclass(frozen=True, slots=True)
class LabelledMask:
    """One human mask.

    Attributes:
        rle: at the photo's size.
        bbox_xywh: in pixels.
        area: in pixels.
        votes: how many people drew it.
    """

    rle: Rle
    bbox_xywh: tuple[float, float, float, float]
    area: float
    votes: int


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One photo with its masks; the pixels stay in the file until asked for."""

    path: Path
    height: int
    width: int
    masks: tuple[LabelledMask, ...]

    def read(self) -> NDArray[np.uint8]:
        """Decode the photo: (H, W, 3) RGB."""
        return decode_image(self.path.read_bytes())


@dataclass(frozen=True, slots=True)
class CocoMasks:
    """The images of one COCO file that have masks, ordered by file name."""

    name: str
    images: tuple[LabelledImage, ...]

    @classmethod
    def load(cls, annotations: Path, split: str | None = None) -> CocoMasks:
        """Read a COCO instances file whose photos lie in ``images/`` beside it.

        Args:
            annotations: the JSON file; segmentations are compressed RLE.
            split: keep the images whose field ``split`` says so.

        Raises:
            BadInputError: not such a file.
        """
        try:
            coco = json.loads(annotations.read_text())
            by_image: dict[int, list[LabelledMask]] = defaultdict(list)
            for annotation in coco["annotations"]:
                by_image[annotation["image_id"]].append(_labelled_mask(annotation))
            rows = sorted(coco["images"], key=lambda row: str(row["file_name"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInputError(
                f"{annotations} is not a COCO file with RLE masks: {error!r}"
            ) from error
        images = tuple(
            LabelledImage(
                annotations.parent / "images" / row["file_name"],
                row["height"],
                row["width"],
                tuple(by_image[row["id"]]),
            )
            for row in rows
            if by_image[row["id"]] and split in (None, row.get("split"))
        )
        return cls(annotations.parent.name, images)

    def hold_out(self, count: int) -> tuple[CocoMasks, CocoMasks]:
        """Split off `count` images, evenly spaced by file name: (the rest, held out)."""
        chosen = {i * len(self.images) // count for i in range(count)}
        kept = tuple(image for i, image in enumerate(self.images) if i not in chosen)
        held = tuple(image for i, image in enumerate(self.images) if i in chosen)
        return CocoMasks(self.name, kept), CocoMasks(self.name, held)


def _labelled_mask(annotation: dict[str, Any]) -> LabelledMask:
    """Check one annotation; KeyError, TypeError or ValueError where it is not as expected."""
    segmentation = annotation["segmentation"]
    height, width = segmentation["size"]
    if not isinstance(segmentation["counts"], str):
        raise TypeError(f"annotation {annotation['id']}: expected a compressed RLE")
    x, y, w, h = annotation["bbox"]
    return LabelledMask(
        Rle(int(height), int(width), segmentation["counts"]),
        (float(x), float(y), float(w), float(h)),
        float(annotation["area"]),
        int(annotation.get("votes", 1)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How samples are cut and varied.

    Attributes:
        image_size: the model's long side; scale 1 shows a photo as the model sees it whole.
        crop_px: side of the square crop, a multiple of the model's stride.
        images_per_batch: crops in a batch.
        masks_per_image: masks drawn from each crop, at most.
        scale_range: of the photo against `image_size`, log-uniform.
        min_area_px: smaller remains of masks are not asked for.
        max_area_ratio: masks that fill more of the crop are not asked for.
    """

    image_size: int = 512
    crop_px: int = 256
    images_per_batch: int = 4
    masks_per_image: int = 12
    scale_range: tuple[float, float] = (0.5, 1.4)
    min_area_px: int = 20
    max_area_ratio: float = 0.9


def training_batches(
    sources: Sequence[CocoMasks], config: SampleConfig, seed: int, start: int = 0
) -> Iterator[TrainBatch]:
    """Yield batches for ever, every image equally often, in an order fixed by `seed`.

    Args:
        sources: images with masks.
        config: how samples are cut.
        seed: batch number i depends on it and on i alone.
        start: number of the first batch; a resumed training asks for the rest.
    """
    images = [image for source in sources for image in source.images]
    read = lru_cache(maxsize=len(images))(lambda index: images[index].read())
    for number in count(start):
        random = np.random.default_rng([seed, number])
        crops: list[Tensor] = []
        masks: list[Tensor] = []
        owners: list[int] = []
        for place in range(config.images_per_batch):
            epoch, position = divmod(number * config.images_per_batch + place, len(images))
            index = int(np.random.default_rng([seed, epoch]).permutation(len(images))[position])
            sample = None
            while sample is None:  # a window can miss all masks; the next one will not
                sample = cut_sample(images[index], partial(read, index), config, random)
            owners += [len(crops)] * len(sample[1])
            crops.append(sample[0])
            masks.append(sample[1])
        yield TrainBatch(torch.stack(crops), torch.cat(masks), torch.tensor(owners))


def cut_sample(
    image: LabelledImage,
    read: Callable[[], NDArray[np.uint8]],
    config: SampleConfig,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor] | None:
    """Cut a crop around a random mask: (S, S, 3) uint8, (M, S, S) bool; None if nothing shows."""
    low, high = config.scale_range
    scale = config.image_size / max(image.height, image.width)
    scale *= low * (high / low) ** random.random()
    weights = np.array([m.area**0.3 * min(m.votes, 3) for m in image.masks])
    weights /= weights.sum()
    anchor = image.masks[random.choice(len(image.masks), p=weights)]
    x0, y0, x1, y1 = _crop_box(image, anchor, config.crop_px / scale, random)
    shown = [i for i, m in enumerate(image.masks) if _overlaps(m.bbox_xywh, (x0, y0, x1, y1))]
    chosen = random.choice(
        shown,
        size=min(len(shown), config.masks_per_image + 4),
        replace=False,
        p=weights[shown] / weights[shown].sum(),
    )
    size = (
        min(config.crop_px, max(1, round((y1 - y0) * scale))),
        min(config.crop_px, max(1, round((x1 - x0) * scale))),
    )
    masks = np.stack([decode_mask(image.masks[i].rle)[y0:y1, x0:x1] for i in chosen])
    masks_MSS = _resize(torch.from_numpy(masks).float(), size, config.crop_px, 0.0) > 0.5
    areas = masks_MSS.flatten(1).sum(1)
    usable = (areas >= config.min_area_px) & (areas <= config.max_area_ratio * config.crop_px**2)
    masks_MSS = masks_MSS[usable][: config.masks_per_image]
    if not len(masks_MSS):
        return None
    pixels = _vary_colour(read()[y0:y1, x0:x1].astype(np.float32), random)
    planes = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    canvas = torch.stack(
        [
            _resize(p[None], size, config.crop_px, m)[0]
            for p, m in zip(planes, PIXEL_MEAN, strict=True)
        ]
    )
    if random.random() < 0.5:  # padding then lies on the left, which the model should not mind
        canvas, masks_MSS = canvas.flip(-1), masks_MSS.flip(-1)
    return canvas.permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8), masks_MSS


def _crop_box(
    image: LabelledImage, anchor: LabelledMask, side: float, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Place a square window that overlaps the anchor's box; XYXY, cut to the photo."""

    def place(start: float, length: float, limit: int) -> tuple[int, int]:
        centre = start + length * random.random()
        low = min(max(0.0, centre - side * random.random()), max(0.0, limit - side))
        return int(low), min(limit, max(int(low) + 1, int(low + side)))

    x, y, w, h = anchor.bbox_xywh
    x0, x1 = place(x, w, image.width)
    y0, y1 = place(y, h, image.height)
    return x0, y0, x1, y1


def _overlaps(bbox_xywh: Sequence[float], window_xyxy: Sequence[int]) -> bool:
    x, y, w, h = bbox_xywh
    x0, y0, x1, y1 = window_xyxy
    return x < x1 and x + w > x0 and y < y1 and y + h > y0


def _resize(maps_MHW: Tensor, size: tuple[int, int], side: int, fill: float) -> Tensor:
    """Resize maps and lay them into the top left of a `side` x `side` canvas."""
    resized = F.interpolate(
        maps_MHW.unsqueeze(1), size, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]
    return F.pad(resized, (0, side - size[1], 0, side - size[0]), value=fill)


def _vary_colour(
    image_HWC: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.float32]:
    """Change contrast, brightness and tint; now and then grey, inverted or noisy."""
    if random.random() < 0.8:
        gain = random.uniform(0.7, 1.3) * random.uniform(0.9, 1.1, 3)
        mean = image_HWC.mean((0, 1))
        image_HWC = (image_HWC - mean) * gain + mean + random.uniform(-25, 25)
    chance = random.random()
    if chance < 0.1:
        image_HWC = np.repeat(image_HWC.mean(2, keepdims=True), 3, axis=2)
    elif chance < 0.14:
        image_HWC = 255 - image_HWC
    if random.random() < 0.1:
        noise = random.normal(0, random.uniform(2, 15), image_HWC.shape)
        image_HWC = image_HWC + noise.astype(np.float32)
    return np.clip(image_HWC, 0, 255).astype(np.float32)


def prefetch(batches: Iterator[TrainBatch], depth: int = 4) -> Iterator[TrainBatch]:
    """Prepare batches in a thread while the model computes; an error there is raised here."""
    ready: queue.Queue[TrainBatch | BaseException] = queue.Queue(depth)

    def work() -> None:
        try:
            for batch in batches:
                ready.put(batch)
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=work, name="training-samples", daemon=True).start()
    while True:
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item
