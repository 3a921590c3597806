"""The values that go into and come out of the promptable model.

Shape legend: N prompts, K points per prompt, M masks per prompt, H W image pixels, h w
low-resolution logits, C channels, T tokens. Points and boxes are in pixels of the original image, x
to the right and y down, unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

if TYPE_CHECKING:
    from model.reachability import Terrain

FOREGROUND, BACKGROUND, PADDING = 1, 0, -1


class PromptError(ValueError):
    """Prompts whose shapes or labels do not fit together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompts:
    """N prompts for one image; each yields its own masks.

    Anything that `numpy.asarray` takes is accepted and checked on construction.

    Attributes:
        points_xy: (N, K, 2) float, pixels of the original image, or None.
        point_labels: (N, K) int, 1 foreground, 0 background, -1 padding; needed with `points_xy`.
        boxes_xyxy: (N, 4) float, pixels of the original image, or None.
        mask_logits: (N, 1, h, w) float, `MaskPrediction.low_res_logits_NMhw` of an earlier answer,
            or None.

    Raises:
        PromptError: nothing given, or shapes and labels that do not fit together.
    """

    points_xy: NDArray[np.float64] | None = None
    point_labels: NDArray[np.int64] | None = None
    boxes_xyxy: NDArray[np.float64] | None = None
    mask_logits: Tensor | None = None

    def __post_init__(self) -> None:
        points = _as_array("points_xy", self.points_xy)
        labels = _as_array("point_labels", self.point_labels)
        boxes = _as_array("boxes_xyxy", self.boxes_xyxy)
        logits = None if self.mask_logits is None else torch.as_tensor(self.mask_logits)
        _check_prompts(points, labels, boxes, logits)
        for name, value in (
            ("points_xy", points),
            ("point_labels", None if labels is None else labels.astype(np.int64)),
            ("boxes_xyxy", boxes),
            ("mask_logits", logits),
        ):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Return N."""
        for given in (self.points_xy, self.boxes_xyxy, self.mask_logits):
            if given is not None:
                return len(given)
        return 0


def _as_array(name: str, value: ArrayLike | Tensor | None) -> NDArray[np.float64] | None:
    if value is None:
        return None
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise PromptError(
            f"{name} must be numbers, as many for each prompt (pad points with label -1): {error}"
        ) from error


def _check_prompts(
    points: NDArray[np.float64] | None,
    labels: NDArray[np.float64] | None,
    boxes: NDArray[np.float64] | None,
    logits: Tensor | None,
) -> None:
    if points is None and boxes is None and logits is None:
        raise PromptError("a prompt needs points_xy, boxes_xyxy or mask_logits; got none of them")
    if (points is None) != (labels is None):
        raise PromptError("points_xy and point_labels go together; got only one of them")
    if points is not None and (points.ndim != 3 or points.shape[2] != 2):
        raise PromptError(f"points_xy must be (N, K, 2); got {points.shape}")
    if points is not None and points.shape[1] == 0 and boxes is None:
        raise PromptError("a prompt needs at least one point where it has no box; got K = 0")
    if points is not None and labels is not None:
        if labels.shape != points.shape[:2]:
            raise PromptError(f"point_labels must be {points.shape[:2]}; got {labels.shape}")
        if not np.isin(labels, (FOREGROUND, BACKGROUND, PADDING)).all():
            raise PromptError(f"point_labels must be 1, 0 or -1; got {np.unique(labels).tolist()}")
        if not np.isfinite(points).all():
            raise PromptError("points_xy must be finite numbers")
    if boxes is not None and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise PromptError(f"boxes_xyxy must be (N, 4); got {boxes.shape}")
    if boxes is not None and not np.isfinite(boxes).all():
        raise PromptError("boxes_xyxy must be finite numbers")
    if logits is not None and (logits.ndim != 4 or logits.shape[1] != 1):
        raise PromptError(f"mask_logits must be (N, 1, h, w); got {tuple(logits.shape)}")
    counts = {len(given) for given in (points, boxes, logits) if given is not None}
    if len(counts) > 1:
        raise PromptError(f"points, boxes and masks must agree on N; got {sorted(counts)}")


@dataclass(frozen=True, slots=True)
class Frame:
    """How an image was laid into the model's input: resized, then padded right and below.

    Attributes:
        original_size: (height, width) of the image in pixels.
        input_size: (height, width) after resizing, before padding.
        padded_size: (height, width) of the model's input.
    """

    original_size: tuple[int, int]
    input_size: tuple[int, int]
    padded_size: tuple[int, int]


@dataclass(slots=True, eq=False)
class PromptGround:
    """What every prompt needs of an image and none changes; made by the first, in inference only.

    Attributes:
        positions_1CHW: positional encoding of the image tokens.
        terrain: what it costs to cross the image, where prompts are guided.
    """

    positions_1CHW: Tensor | None = None
    terrain: Terrain | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ImageFeatures:
    """What an image encoder makes of B images of the same padded size.

    Attributes:
        coarse_BCHW: features at stride 16, the decoder's image tokens.
        fine_BCHW: what guided prompts read, see `model.compact_encoder.FineFeatures`; empty for the
            plain ViT.
        owner_N: which image each of N prompts belongs to; None when one image serves all prompts.
        ground: filled in by the model that made the features.
    """

    coarse_BCHW: Tensor
    fine_BCHW: tuple[Tensor, ...] = ()
    owner_N: Tensor | None = None
    ground: PromptGround = field(default_factory=PromptGround)

    def of_image(self, index: int) -> ImageFeatures:
        """Return the features of one image, batch 1."""
        rows = slice(index, index + 1)
        return ImageFeatures(self.coarse_BCHW[rows], tuple(level[rows] for level in self.fine_BCHW))

    def owned_by(self, owner_N: Tensor) -> ImageFeatures:
        """Assign an image to each of N prompts."""
        return ImageFeatures(self.coarse_BCHW, self.fine_BCHW, owner_N, self.ground)

    def per_prompt(self, maps_BCHW: Tensor) -> Tensor:
        """Spread maps of the B images over the prompts: batch N, or 1 when one image serves all."""
        return maps_BCHW if self.owner_N is None else maps_BCHW[self.owner_N]


@dataclass(frozen=True, slots=True, eq=False)
class ImageEmbedding:
    """One encoded image: features with batch size 1, and how the image was laid into the input."""

    features: ImageFeatures
    frame: Frame


@dataclass(frozen=True, slots=True, eq=False)
class InputPrompts:
    """Prompts in the model's input frame, as tensors on the model's device.

    Attributes:
        points_NK2: pixels of the padded input, without the half-pixel shift.
        labels_NK: 1 foreground, 0 background, -1 padding.
        boxes_N4: XYXY in pixels of the padded input, or None.
        mask_logits_N1hw: earlier logits, or None.
        has_background: whether a label is background; None where only the tensors know, and to ask
            them would wait for the device.
    """

    points_NK2: Tensor | None
    labels_NK: Tensor | None
    boxes_N4: Tensor | None
    mask_logits_N1hw: Tensor | None
    has_background: bool | None = None

    def __len__(self) -> int:
        """Return N."""
        for given in (self.points_NK2, self.boxes_N4, self.mask_logits_N1hw):
            if given is not None:
                return len(given)
        return 0


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompts:
    """What a prompt encoder hands to the mask decoder.

    Attributes:
        sparse_NTC: a token for every point and box corner.
        dense_NCHW: added to the image tokens; batch 1 when all prompts share it.
        guidance_NGhw: prompt maps at the finest level, for decoders that use them.
    """

    sparse_NTC: Tensor
    dense_NCHW: Tensor
    guidance_NGhw: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ScoredPrompts:
    """Prompts that the decoder has scored but not yet drawn as masks.

    Scoring is the cheap half of decoding: who needs only the promising masks draws only those.

    Attributes:
        iou_N4: predicted IoU of the single-mask token (index 0) and the three multimask tokens.
        mask_tokens_N4C: the four mask tokens after the transformer.
        image_NCHW: image tokens after the transformer.
        features: of the image, or of the images that the prompts belong to.
        guidance_NGhw: see `EncodedPrompts`.
    """

    iou_N4: Tensor
    mask_tokens_N4C: Tensor
    image_NCHW: Tensor
    features: ImageFeatures
    guidance_NGhw: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrediction:
    """The model's answer to N prompts, M masks each.

    Attributes:
        masks_NMHW: bool, at the image's original size.
        iou_NM: float32 predicted IoU; may exceed 1 for SAM's official checkpoints.
        low_res_logits_NMhw: float32 logits at a quarter of the padded input, > 0 inside the mask.
    """

    masks_NMHW: Tensor
    iou_NM: Tensor
    low_res_logits_NMhw: Tensor


class ImageEncoder(Protocol):
    """Pixels to features."""

    def __call__(self, pixels_B3HW: Tensor) -> ImageFeatures:
        """Encode normalised, padded pixels."""
        ...
