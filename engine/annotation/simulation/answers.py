"""What a decoder answered, as masks of the image: the candidates that a person chooses from.

    shown = candidates(DecodedMasks(iou_4, logits_4hw), frame, several_prompts=False)
    shown[0].mask_HW, shown[0].predicted_iou, shown[0].logits_hw        # the trusted one first

Shapes: H, W image pixels; h, w logits at a quarter of the padded input. Mask 0 answers several
prompts, masks 1 to 3 are what one ambiguous click could have meant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.annotation.client_values import DecodedMasks
from engine.annotation.records import BoxPrompt, PointPrompt, Prompt
from engine.images import border_distance
from model.types import FOREGROUND, Frame
from model.upsample import LOW_RES_STRIDE, cut_window, regions_above, upsample_window

__all__ = ["Candidate", "anchored", "candidates", "logits_of_mask", "mask_from_logits", "overlap"]

# A mask prompt that somebody drew is as sure as the logits of a clear answer.
_SURE_LOGIT = 8.0


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One mask that the model offers.

    Attributes:
        mask_HW: bool, at the image's size.
        predicted_iou: the model's own estimate.
        logits_hw: float32, what goes in with the next click.
    """

    mask_HW: NDArray[np.bool_]
    predicted_iou: float
    logits_hw: NDArray[np.float32]


def candidates(
    answer: DecodedMasks, frame: Frame, *, several_prompts: bool
) -> tuple[Candidate, ...]:
    """Draw the masks that are shown, the one that the model trusts first.

    Args:
        answer: of the decoder.
        frame: how the image was laid into the model's input.
        several_prompts: more than one point, a box or a mask: mask 0 is the answer then, and the
            others follow it.
    """
    by_score = [int(token) for token in 1 + np.argsort(-answer.iou_4[1:], kind="stable")]
    shown = [0, *by_score] if several_prompts else by_score
    return tuple(_candidate(answer, token, frame) for token in shown)


def _candidate(answer: DecodedMasks, token: int, frame: Frame) -> Candidate:
    logits_hw = answer.logits_4hw[token]
    return Candidate(mask_from_logits(logits_hw, frame), float(answer.iou_4[token]), logits_hw)


def mask_from_logits(logits_hw: NDArray[np.float32], frame: Frame) -> NDArray[np.bool_]:
    """Upsample logits to the image and threshold them at 0; only where the mask can be."""
    mask_HW = np.zeros(frame.original_size, dtype=np.bool_)
    (region,) = regions_above(logits_hw[None], 0.0, frame)
    if region is not None:
        logits = upsample_window(cut_window(logits_hw, frame, region), frame, region)
        mask_HW[region.y0 : region.y1, region.x0 : region.x1] = logits > 0
    return mask_HW


def logits_of_mask(
    mask_HW: NDArray[np.bool_], frame: Frame, size: Sequence[int]
) -> NDArray[np.float32]:
    """Make a mask prompt of a finished mask: sure inside, sure outside, unsure along the border.

    Args:
        mask_HW: at the image's size.
        frame: how the image was laid into the model's input.
        size: (h, w) of the logits: a quarter of the padded input.

    Returns:
        float32 (h, w): the share of mask in what each logit stands for, scaled to +-8.
    """
    covered_hW = _covered(mask_HW.astype(np.float32), size[0], frame, axis=0)
    covered_wh = _covered(covered_hW.T, size[1], frame, axis=1)
    pixels = np.prod(frame.original_size) / np.prod(frame.input_size) * LOW_RES_STRIDE**2
    return ((2 * covered_wh.T / pixels - 1) * _SURE_LOGIT).astype(np.float32)


def _covered(
    map_Lx: NDArray[np.float32], count: int, frame: Frame, axis: int
) -> NDArray[np.float32]:
    """Add up what lies under each of `count` cells along the first axis; nothing in the padding."""
    length = frame.original_size[axis]
    edges = np.arange(count + 1) * (LOW_RES_STRIDE * length / frame.input_size[axis])
    edges = edges.clip(0, length)
    sums = np.concatenate([np.zeros_like(map_Lx[:1]), np.cumsum(map_Lx, axis=0)])
    whole = np.minimum(edges.astype(np.intp), length - 1)
    part = (edges - whole).astype(np.float32)[:, None]
    at_edges = sums[whole] + part * map_Lx[whole]
    covered: NDArray[np.float32] = np.diff(at_edges, axis=0)
    return covered


def anchored(
    prompts: Sequence[Prompt], logits_hw: NDArray[np.float32] | None, frame: Frame
) -> tuple[Prompt, ...]:
    """Add a click well inside the mask prompt where no prompt holds on to the object.

    A model that learned from clicks forgets a mask that comes with none on it; the page asks in the
    same way (`engine/annotation/web/src/lib/decoder/anchored.ts`).
    """
    if logits_hw is None or any(isinstance(prompt, BoxPrompt) for prompt in prompts):
        return tuple(prompts)
    height, width = frame.original_size
    step_x = LOW_RES_STRIDE * width / frame.input_size[1]
    step_y = LOW_RES_STRIDE * height / frame.input_size[0]
    inside_hw = logits_hw > 0
    inside_hw[math.ceil(height / step_y) :] = False  # what the padding's logits say means nothing
    inside_hw[:, math.ceil(width / step_x) :] = False
    for prompt in prompts:
        if isinstance(prompt, PointPrompt):
            y, x = int(prompt.y / step_y), int(prompt.x / step_x)
            if prompt.label == FOREGROUND and inside_hw[y, x]:
                return tuple(prompts)
            inside_hw[y, x] = False
    if not inside_hw.any():
        return tuple(prompts)
    deepest_y, deepest_x = divmod(int(border_distance(inside_hw).argmax()), inside_hw.shape[1])
    anchor = PointPrompt(
        min((deepest_x + 0.5) * step_x, width),
        min((deepest_y + 0.5) * step_y, height),
        FOREGROUND,
    )
    return (anchor, *prompts)


def overlap(a_HW: NDArray[np.bool_], b_HW: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 0 where both are empty."""
    union = np.count_nonzero(a_HW | b_HW)
    return np.count_nonzero(a_HW & b_HW) / union if union else 0.0
