"""Does the model say the same of the mirrored image? What it does not was luck.

    agreement_N = mirrored_agreement(sam, image_HWC3, candidates)

A mask that a model is sure of, and finds again when it sees the image in a mirror, is right more
often than one that is as sure but changes. Asking again costs one more encoding and a prompt for
each mask in question, little beside the grid that found them.

Shapes: N masks, M answers to a prompt, h w low-resolution logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from engine.automatic import Segmenter
from engine.masks import decode_mask, encode_mask, encode_region, mask_iou
from engine.records import Rle
from model import Frame, ImageEmbedding, Prompts, cut_window, regions_above, upsample_window

__all__ = ["Prompted", "mirrored_agreement", "mirrored_mask"]

_PROMPTS_AT_ONCE = 32


class Prompted(Protocol):
    """A mask with the prompt that gave it: a box, or else a point."""

    @property
    def rle(self) -> Rle:
        """At the image's size."""
        ...

    @property
    def box_xyxy(self) -> tuple[float, float, float, float] | None:
        """In pixels of the image."""
        ...

    @property
    def point_xy(self) -> tuple[float, float] | None:
        """In pixels of the image."""
        ...


@torch.inference_mode()
def mirrored_agreement(
    segmenter: Segmenter, image_HWC3: NDArray[np.uint8], masks: Sequence[Prompted]
) -> NDArray[np.float64]:
    """Return for each mask the IoU of the best answer to its prompt in the mirrored image.

    Args:
        segmenter: the model that made the masks.
        image_HWC3: (H, W, 3) uint8 RGB.
        masks: of the image.

    Returns:
        float64 (N,); 0 for a mask without a prompt.
    """
    agreement_N = np.zeros(len(masks))
    width = image_HWC3.shape[1]
    by_kind: dict[bool, list[int]] = {True: [], False: []}
    for place, mask in enumerate(masks):
        if mask.box_xyxy is not None or mask.point_xy is not None:
            by_kind[mask.box_xyxy is not None].append(place)
    if not any(by_kind.values()):
        return agreement_N
    embedding = segmenter.encode(np.ascontiguousarray(image_HWC3[:, ::-1]))
    for with_box, places in by_kind.items():
        for start in range(0, len(places), _PROMPTS_AT_ONCE):
            part = places[start : start + _PROMPTS_AT_ONCE]
            asked = [masks[place] for place in part]
            answers = _answers(segmenter, embedding, _mirrored_prompts(asked, with_box, width))
            for place, mask, answer in zip(part, asked, answers, strict=True):
                if answer:
                    agreement_N[place] = mask_iou([mirrored_mask(mask.rle)], answer).max()
    return agreement_N


def mirrored_mask(rle: Rle) -> Rle:
    """Mirror a mask, left to right."""
    return encode_mask(np.ascontiguousarray(decode_mask(rle)[:, ::-1]))


def _mirrored_prompts(masks: Sequence[Prompted], with_box: bool, width: int) -> Prompts:
    if with_box:
        boxes_N4 = np.array([mask.box_xyxy for mask in masks], dtype=np.float64)
        boxes_N4[:, [0, 2]] = width - boxes_N4[:, [2, 0]]
        return Prompts(boxes_xyxy=boxes_N4)
    points_N2 = np.array([mask.point_xy for mask in masks], dtype=np.float64)
    points_N2[:, 0] = width - points_N2[:, 0]
    labels_N1 = np.ones((len(masks), 1), dtype=np.int64)
    return Prompts(points_xy=points_N2[:, None], point_labels=labels_N1)


def _answers(segmenter: Segmenter, embedding: ImageEmbedding, prompts: Prompts) -> list[list[Rle]]:
    """Return the masks that answer each prompt, without empty ones."""
    scored = segmenter.score(embedding, prompts)
    everything = torch.arange(len(prompts), device=scored.iou_N4.device)
    logits_NMhw = segmenter.draw(scored, everything)[:, 1:].cpu().numpy()
    return [_masks(logits_Mhw, embedding.frame) for logits_Mhw in logits_NMhw]


def _masks(logits_Mhw: NDArray[np.float32], frame: Frame) -> list[Rle]:
    height, width = frame.original_size
    masks = []
    for logits_hw, region in zip(logits_Mhw, regions_above(logits_Mhw, 0.0, frame), strict=True):
        if region is None:
            continue
        mask = upsample_window(cut_window(logits_hw, frame, region), frame, region) > 0
        if mask.any():
            masks.append(encode_region(mask, region.x0, region.y0, height, width))
    return masks
