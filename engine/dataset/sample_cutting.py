"""One training sample: a crop of a photo, scaled and coloured at random, and the masks it shows.

>>> sample = cut_sample(labelled, labelled.read, SampleConfig(), random)

Shape legend: S side of the crop, M masks, H W a piece of the photo, h w the same piece resized.
With ``crop_px`` equal to ``image_size`` this is large-scale jitter of whole photos.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from engine.dataset.labelled_sets import LabelledImage, LabelledMask
from engine.dataset.sample_hints import draw_boundaries, mask_centres
from engine.errors import BadInputError
from engine.images import tilt
from engine.masks import decode_region
from model import PIXEL_MEAN

__all__ = ["Sample", "SampleConfig", "cut_sample", "finish_sample", "vary_colour"]

_MASKS_PER_RESIZE = 4  # torch resizes uint8 of 3 or 4 interleaved channels several times faster


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """How samples are cut and varied.

    Attributes:
        image_size: the model's long side; scale 1 shows a photo as the model sees it whole.
        crop_px: side of the square crop, a multiple of the model's stride.
        images_per_batch: crops in a batch.
        masks_per_image: masks drawn from each crop, at most.
        scale_range: of the photo against `image_size`.
        scale_draw: how a scale is drawn from the range: ``"log"``, uniform in its logarithm, or
            ``"uniform"``, as large-scale jitter does.
        min_area_px: smaller remains of masks are not asked for.
        max_area_ratio: masks that fill more of what the crop shows of the photo are not asked for.
        mask_sampling_power: masks are drawn in proportion to area to this power; 0: all alike.
        votes_limit: and to the votes, up to this many.
        flip_probability: of a crop, left to right.
        rotate90_probability: of a crop, by one, two or three quarter turns.
        stretch_probability: of a crop whose width and height are scaled apart...
        stretch_strength: ...the logarithm of either with this standard deviation.
        tilt_probability: of a crop turned a little...
        tilt_degrees: ...by this standard deviation.
        centres: also give where each mask is farthest from its border.
        boundaries: also give where people drew boundaries.
        scene_probability: share of crops that are synthetic scenes instead of photos.
        colour_probability: of a change of contrast, brightness and tint.
        colour_strength: of such a change; 1 is contrast +-30 %, tint +-10 %, brightness +-25.
        grey_probability: of a crop without colour.
        invert_probability: of a negative.
        noise_probability: of Gaussian noise.
        noise_range: its standard deviation, of 255.
        blur_probability: of a Gaussian blur.
        blur_range_px: its standard deviation in pixels of the crop.
    """

    image_size: int = 512
    crop_px: int = 256
    images_per_batch: int = 4
    masks_per_image: int = 12
    scale_range: tuple[float, float] = (0.5, 1.4)
    scale_draw: Literal["log", "uniform"] = "log"
    min_area_px: int = 20
    max_area_ratio: float = 0.9
    mask_sampling_power: float = 0.3
    votes_limit: int = 3
    flip_probability: float = 0.5
    rotate90_probability: float = 0.0
    stretch_probability: float = 0.0
    stretch_strength: float = 0.1
    tilt_probability: float = 0.0
    tilt_degrees: float = 7.0
    centres: bool = False
    boundaries: bool = False
    scene_probability: float = 0.0
    colour_probability: float = 0.8
    colour_strength: float = 1.0
    grey_probability: float = 0.1
    invert_probability: float = 0.04
    noise_probability: float = 0.1
    noise_range: tuple[float, float] = (2.0, 15.0)
    blur_probability: float = 0.0
    blur_range_px: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        sizes = (self.image_size, self.crop_px, self.images_per_batch, self.masks_per_image)
        low, high = self.scale_range
        if min(sizes) < 1 or not 0 < low <= high or not 0 < self.max_area_ratio <= 1:
            raise BadInputError(
                "samples need sizes and counts of at least 1, a scale range above 0 and an area "
                f"ratio of 0 to 1; got {self}"
            )
        chances = {name: getattr(self, name) for name in _PROBABILITIES}
        if wrong := {name: chance for name, chance in chances.items() if not 0 <= chance <= 1}:
            raise BadInputError(f"probabilities go from 0 to 1; got {wrong}")


_PROBABILITIES = tuple(
    name for name in SampleConfig.__dataclass_fields__ if name.endswith("_probability")
)


class Sample(NamedTuple):
    """A crop and its masks.

    Attributes:
        image_SS3: uint8 RGB.
        masks_MSS: bool, M at least 1.
        centres_M2: (x, y) of the pixel farthest from each mask's border, where asked for.
        boundaries_ss: see `engine.dataset.sample_hints.draw_boundaries`, where asked for.
    """

    image_SS3: Tensor
    masks_MSS: Tensor
    centres_M2: Tensor | None
    boundaries_ss: Tensor | None


def cut_sample(
    image: LabelledImage,
    read: Callable[[], NDArray[np.uint8]],
    config: SampleConfig,
    random: np.random.Generator,
) -> Sample | None:
    """Cut a crop around a random mask.

    Args:
        image: with at least one mask.
        read: gives the photo's pixels; called only where the crop shows a mask.
        config: how to cut.
        random: where all chance comes from.

    Returns:
        The sample; None if the crop shows no mask to ask for.

    Raises:
        ImageError: from `read`.
        InvalidMaskError: a damaged RLE.
    """
    scale = _draw_scale(config, random) * config.image_size / max(image.height, image.width)
    weights = np.array([mask.area for mask in image.masks]) ** config.mask_sampling_power
    weights *= [min(mask.votes, config.votes_limit) for mask in image.masks]
    anchor = image.masks[random.choice(len(weights), p=weights / weights.sum())]
    step = max(1, int(1 / scale) // 2)
    box_xyxy = _crop_box(image, anchor, config.crop_px / scale, step, random)
    x0, y0, x1, y1 = box_xyxy
    stretch = _draw_stretch(config, random)
    size = (
        min(config.crop_px, max(1, round((y1 - y0) * scale / stretch))),
        min(config.crop_px, max(1, round((x1 - x0) * scale * stretch))),
    )
    shown = [i for i, mask in enumerate(image.masks) if _overlaps(mask.bbox_xywh, box_xyxy)]
    if not shown:
        return None
    chances = weights[shown] / weights[shown].sum()
    drawn = [image.masks[i] for i in random.choice(shown, len(shown), replace=False, p=chances)]
    masks_Mhw, votes = _resized_masks(drawn, box_xyxy, step, size, config)
    if not len(masks_Mhw):
        return None
    pixels_hw3 = vary_colour(_resize(read()[y0:y1, x0:x1], size), config, random)
    padding_3 = torch.tensor([round(mean) for mean in PIXEL_MEAN], dtype=torch.uint8)
    pixels_SS3 = padding_3.repeat(config.crop_px, config.crop_px, 1)
    pixels_SS3[: size[0], : size[1]] = torch.from_numpy(pixels_hw3)
    masks_MSS = F.pad(masks_Mhw, (0, config.crop_px - size[1], 0, config.crop_px - size[0]))
    if random.random() < config.tilt_probability:
        pixels_SS3, masks_MSS = _tilted(
            pixels_SS3, masks_MSS, random.normal(0, config.tilt_degrees)
        )
    if random.random() < config.flip_probability:
        # Padding then lies on the left, which the model should not mind.
        pixels_SS3, masks_MSS = pixels_SS3.flip(1), masks_MSS.flip(2)
    if random.random() < config.rotate90_probability:
        turns = int(random.integers(1, 4))
        pixels_SS3 = pixels_SS3.rot90(turns, (0, 1)).contiguous()
        masks_MSS = masks_MSS.rot90(turns, (1, 2)).contiguous()
    return finish_sample(pixels_SS3, masks_MSS, votes, config)


def finish_sample(
    image_SS3: Tensor, masks_MSS: Tensor, votes: Sequence[int], config: SampleConfig
) -> Sample | None:
    """Keep as many masks as are asked for, and add what the recipe wants to know of them.

    Args:
        image_SS3: uint8 RGB.
        masks_MSS: bool, all masks that are shown, in the order in which they are to be chosen.
        votes: how many people drew each.
        config: how many, of which sizes.
    """
    shown = masks_MSS.flatten(1).sum(1)
    boundaries = None
    if config.boundaries:
        boundaries = draw_boundaries(masks_MSS, np.array(votes, dtype=np.float32))
    masks_MSS = masks_MSS[shown >= config.min_area_px][: config.masks_per_image]
    if not len(masks_MSS):
        return None
    centres = mask_centres(masks_MSS) if config.centres else None
    return Sample(image_SS3, masks_MSS, centres, boundaries)


def _draw_stretch(config: SampleConfig, random: np.random.Generator) -> float:
    """Return the factor of the width, whose inverse is that of the height."""
    if random.random() >= config.stretch_probability:
        return 1.0
    return float(np.exp(random.normal(0, config.stretch_strength)))


def _tilted(image_SS3: Tensor, masks_MSS: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    turned = torch.from_numpy(tilt(image_SS3.numpy(), degrees, PIXEL_MEAN))
    levels = masks_MSS.numpy().view(np.uint8) * np.uint8(255)
    masks = [tilt(mask[:, :, None], degrees, (0.0,))[:, :, 0] > 127 for mask in levels]
    return turned, torch.from_numpy(np.stack(masks))


def _draw_scale(config: SampleConfig, random: np.random.Generator) -> float:
    low, high = config.scale_range
    chance = random.random()
    if config.scale_draw == "uniform":
        return low + (high - low) * chance
    return float(low * (high / low) ** chance)


def _crop_box(
    image: LabelledImage, anchor: LabelledMask, side: float, step: int, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Place a square window that overlaps the anchor's box; XYXY, cut to the photo.

    Its sides are multiples of `step` where the photo is large enough.
    """

    def place(start: float, length: float, limit: int) -> tuple[int, int]:
        centre = start + length * random.random()
        low = int(min(max(0.0, centre - side * random.random()), max(0.0, limit - side)))
        low = min(low, limit - 1)
        high = min(limit, max(low + 1, int(low + side)))
        return low, high - (high - low) % step if high - low >= step else high

    x, y, w, h = anchor.bbox_xywh
    x0, x1 = place(x, w, image.width)
    y0, y1 = place(y, h, image.height)
    return x0, y0, x1, y1


def _overlaps(bbox_xywh: Sequence[float], window_xyxy: Sequence[int]) -> bool:
    x, y, w, h = bbox_xywh
    x0, y0, x1, y1 = window_xyxy
    return x < x1 and x + w > x0 and y < y1 and y + h > y0


def _resized_masks(
    drawn: Sequence[LabelledMask],
    box_xyxy: tuple[int, int, int, int],
    step: int,
    size: tuple[int, int],
    config: SampleConfig,
) -> tuple[Tensor, list[int]]:
    """Decode and resize masks until there are enough of a size to ask for: bool (M, h, w), votes.

    For boundaries all are, of any size. Every `step`-th pixel is used: a mask of a large photo is
    never blown up whole.
    """
    x0, y0, x1, y1 = box_xyxy
    smallest, largest = config.min_area_px, config.max_area_ratio * size[0] * size[1]
    if config.boundaries:
        smallest, enough = 1, len(drawn)
    else:
        enough = config.masks_per_image
    rows, columns = _every(step, y1 - y0), _every(step, x1 - x0)
    shape = (len(range(x1 - x0)[columns]), len(range(y1 - y0)[rows]), _MASKS_PER_RESIZE)
    kept: list[Tensor] = []
    votes: list[int] = []
    for start in range(0, len(drawn), _MASKS_PER_RESIZE):
        group = drawn[start : start + _MASKS_PER_RESIZE]
        # Columns first, as run-length encoding goes: four masks are copied fast, side by side.
        levels_WH4 = np.zeros(shape, dtype=np.uint8)
        for i, mask in enumerate(group):
            levels_WH4[:, :, i] = decode_region(mask.rle, box_xyxy)[rows, columns].T
        masks_wh4 = _resize(levels_WH4 * np.uint8(255), size[::-1]) > 127
        for i in range(len(group)):
            mask_hw = np.ascontiguousarray(masks_wh4[:, :, i].T)
            if smallest <= np.count_nonzero(mask_hw) <= largest:
                kept.append(torch.from_numpy(mask_hw))
                votes.append(group[i].votes)
        if len(kept) >= enough:
            break
    return torch.stack(kept) if kept else torch.zeros((0, *size)), votes


def _every(step: int, side: int) -> slice:
    """Return the middle of every `step` pixels of a side."""
    return slice(min(step // 2, side - 1), None, step)


def _resize(levels_HWC: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize by the antialiased triangle filter that the model's preprocessing has."""
    planes_1CHW = torch.from_numpy(np.ascontiguousarray(levels_HWC)).permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(planes_1CHW, size, mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def vary_colour(
    image_HWC3: NDArray[np.uint8], config: SampleConfig, random: np.random.Generator
) -> NDArray[np.uint8]:
    """Change contrast, brightness and tint; now and then grey, inverted, blurred or noisy."""
    varied = image_HWC3
    if random.random() < config.colour_probability:
        s = config.colour_strength
        gain = random.uniform(1 - 0.3 * s, 1 + 0.3 * s) * random.uniform(
            1 - 0.1 * s, 1 + 0.1 * s, 3
        )
        mean = image_HWC3.mean((0, 1), dtype=np.float32)
        offset = mean * (1 - gain) + random.uniform(-25 * s, 25 * s)
        varied = _to_uint8(varied * gain.astype(np.float32) + offset.astype(np.float32))
    chance = random.random()
    if chance < config.grey_probability:
        varied = np.repeat(_to_uint8(varied.mean(2, dtype=np.float32))[:, :, None], 3, axis=2)
    elif chance < config.grey_probability + config.invert_probability:
        varied = 255 - varied
    if random.random() < config.blur_probability:
        sigma = random.uniform(*config.blur_range_px)
        varied = np.asarray(gaussian_filter(varied, (sigma, sigma, 0), mode="nearest"))
    if random.random() < config.noise_probability:
        noise = random.standard_normal(varied.shape, dtype=np.float32)
        varied = _to_uint8(varied + noise * np.float32(random.uniform(*config.noise_range)))
    return varied


def _to_uint8(levels: NDArray[np.float32]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.clip(levels + np.float32(0.5), 0, 255).astype(np.uint8)
    return rounded
