"""Prompt one crop with a model on a processor, in groups that fit its caches.

    for mask in prompt_on_processor(sam, embedding, points_P2, config):
        points_P2[mask.prompt], mask.predicted_iou, mask.measured

A prompt's image tokens take megabytes and are gone before the next group is scored; what stays are
low-resolution logits of promising masks, until there are enough to be measured together. Some
groups make a block; blocks are worked on side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.config import AutomaticConfig
from engine.automatic.device_prompting import PromptedMask
from engine.automatic.filters import above_iou
from engine.automatic.measuring import measure_masks
from engine.automatic.side_by_side import side_by_side
from model import ImageEmbedding, Prompts
from model.prompt_groups import prompts_at_once

if TYPE_CHECKING:
    from engine.automatic.generator import Segmenter

# Libraries multiply matrices in blocks of rows, and what is left over in another order: a prompt is
# scored to the same bits in any company of so many, or of a multiple.
_SAME_BITS = 8
_PROMPTS_OF_A_BLOCK = 48  # blocks are the unit of work of a thread
_LOGITS_MEASURED_AT_ONCE = 2**20  # 4 MB: 16 masks of SAM, 90 of a photo in the bundled model


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Logits of promising masks and whose they are."""

    logits_Mhw: Tensor
    prompt_M: NDArray[np.int64]
    iou_M: NDArray[np.float32]


def prompt_on_processor(
    sam: Segmenter,
    embedding: ImageEmbedding,
    points_P2: NDArray[np.float64],
    config: AutomaticConfig,
) -> Iterator[PromptedMask]:
    """Prompt a crop with points and measure what passes.

    Args:
        sam: the model.
        embedding: of the crop.
        points_P2: in pixels of the crop.
        config: batch size and thresholds.

    Yields:
        Masks in the order of the points, up to three for each.
    """
    size, multiple = _group_sizes(embedding, config)
    of_a_block = size * math.ceil(_PROMPTS_OF_A_BLOCK / size)

    def block_from(start: int) -> Iterator[PromptedMask]:
        waiting: list[Drawn] = []
        end = min(len(points_P2), start + of_a_block)
        for first in range(start, end, size):
            group = slice(first, min(end, first + size))
            waiting += draw_promising(sam, embedding, points_P2, group, multiple, config)
            if sum(drawn.logits_Mhw.numel() for drawn in waiting) >= _LOGITS_MEASURED_AT_ONCE:
                yield from _measured(waiting, embedding, config)
                waiting = []
        yield from _measured(waiting, embedding, config)

    return side_by_side(block_from, range(0, len(points_P2), of_a_block))


def draw_promising(
    sam: Segmenter,
    embedding: ImageEmbedding,
    points_P2: NDArray[np.float64],
    group: slice,
    multiple: int,
    config: AutomaticConfig,
) -> list[Drawn]:
    """Score a group of points, filled up to a multiple, and draw those with a promising mask.

    Returns:
        One `Drawn`, or none where nothing is promising.
    """
    points_N2 = points_P2[group]
    missing = -len(points_N2) % multiple
    filled_N2 = np.concatenate([points_N2, points_N2[-1:].repeat(missing, axis=0)])
    labels = np.ones((len(filled_N2), 1), dtype=np.int64)
    scored = sam.score(embedding, Prompts(points_xy=filled_N2[:, None], point_labels=labels))
    iou_N3 = scored.iou_N4[: len(points_N2), 1:].cpu().numpy()
    prompt_M, token_M = above_iou(iou_N3, config.pred_iou_thresh).nonzero()
    if not len(prompt_M):
        return []
    chosen, place_M = np.unique(prompt_M, return_inverse=True)
    drawn = sam.draw(scored, torch.from_numpy(chosen).to(scored.iou_N4.device))
    logits_Mhw = drawn[torch.from_numpy(place_M), torch.from_numpy(1 + token_M)]
    return [Drawn(logits_Mhw, group.start + prompt_M, iou_N3[prompt_M, token_M])]


def _group_sizes(embedding: ImageEmbedding, config: AutomaticConfig) -> tuple[int, int]:
    """Return how many prompts to score at once, and of what the last group is a multiple, too."""
    fitting = prompts_at_once(embedding.features.coarse_BCHW[:1])
    if fitting < _SAME_BITS:
        return fitting, fitting
    wanted = min(fitting, max(config.points_per_batch, _SAME_BITS))
    return wanted // _SAME_BITS * _SAME_BITS, _SAME_BITS


def _measured(
    groups: list[Drawn], embedding: ImageEmbedding, config: AutomaticConfig
) -> Iterator[PromptedMask]:
    if not groups:
        return
    masks = measure_masks(
        torch.cat([group.logits_Mhw for group in groups]),
        embedding.frame,
        offset=config.stability_score_offset,
        stability_thresh=config.stability_score_thresh,
    )
    prompt_M = np.concatenate([group.prompt_M for group in groups])
    iou_M = np.concatenate([group.iou_M for group in groups])
    for mask, prompt, iou in zip(masks, prompt_M.tolist(), iou_M, strict=True):
        if mask is not None:
            yield PromptedMask(mask, prompt, iou)
