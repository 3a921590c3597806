"""Prompt one crop with a model on an accelerator, which never waits for the processor.

    for mask in prompt_on_device(sam, embedding, points_P2, config):
        points_P2[mask.prompt], mask.predicted_iou, mask.measured

What the processor does for one batch of prompts, it does while the accelerator works on the next:
the predicted IoUs of a batch are on their way while the next one is scored; then the promising
prompts are drawn, and their logits stay where they are until all are measured together.

All batches have one size, the last is filled up, and so have the groups that are drawn. So a mask
does not depend on its company, and compiled kernels fit every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic.config import AutomaticConfig
from engine.automatic.device_measuring import measure_on_device
from engine.automatic.filters import above_iou
from engine.automatic.measuring import MeasuredMask
from model import ImageEmbedding, Prompts, ScoredPrompts
from model.transfers import Arrival, download, upload

if TYPE_CHECKING:
    from engine.automatic.generator import Segmenter

# Of an embedding as large as SAM's; of a smaller one as many more as it is smaller.
_PROMPTS_DRAWN_AT_ONCE = 16
_SAM_EMBEDDING = 64 * 64 * 256
# Logits that wait to be measured: half a gigabyte, a whole image's 2,048 masks of SAM.
_LOGITS_PER_ROUND = 2**27


@dataclass(frozen=True, slots=True, eq=False)
class PromptedMask:
    """A mask that passes predicted IoU and stability.

    Attributes:
        measured: where it is in the crop, and its pixels.
        prompt: index of its point.
        predicted_iou: by the model.
    """

    measured: MeasuredMask
    prompt: int
    predicted_iou: np.float32


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Scored prompts whose predicted IoUs are on their way."""

    scored: ScoredPrompts
    iou_N4: Arrival
    start: int
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """Logits of promising masks, on the device, and whose they are."""

    logits_Mhw: Tensor
    prompt_M: NDArray[np.int64]
    iou_M: NDArray[np.float32]


def measures_on(device: torch.device) -> bool:
    """Tell whether masks are measured where they are drawn; elsewhere the processor does it."""
    return device.type == "cuda"


def prompt_on_device(
    sam: Segmenter,
    embedding: ImageEmbedding,
    points_P2: NDArray[np.float64],
    config: AutomaticConfig,
) -> list[PromptedMask]:
    """Prompt a crop with points and measure what passes.

    Args:
        sam: the model.
        embedding: of the crop.
        points_P2: in pixels of the crop.
        config: batch size and thresholds; `points_per_batch` counts prompts of an embedding as
            large as SAM's, and a smaller one takes as many more in the same memory.

    Returns:
        Masks in the order of the points, up to three for each.
    """
    found: list[PromptedMask] = []
    waiting: list[_Drawn] = []
    for drawn in _drawn_groups(sam, embedding, points_P2, config):
        waiting.append(drawn)
        if sum(group.logits_Mhw.numel() for group in waiting) >= _LOGITS_PER_ROUND:
            found += _measured(waiting, embedding, config)
            waiting = []
    found += _measured(waiting, embedding, config)
    return found


def _drawn_groups(
    sam: Segmenter,
    embedding: ImageEmbedding,
    points_P2: NDArray[np.float64],
    config: AutomaticConfig,
) -> Iterator[_Drawn]:
    """Draw batch by batch, each when the next one has been given to the accelerator."""
    times_smaller = max(1, _SAM_EMBEDDING // max(1, embedding.features.coarse_BCHW.numel()))
    size = max(1, min(config.points_per_batch * times_smaller, len(points_P2)))
    at_once = min(_PROMPTS_DRAWN_AT_ONCE * times_smaller, size)
    before: _Batch | None = None
    for start in range(0, len(points_P2), size):
        batch = _score(sam, embedding, points_P2[start : start + size], start, size)
        if before is not None:
            yield from _draw_promising(sam, before, config, at_once)
        before = batch
    if before is not None:
        yield from _draw_promising(sam, before, config, at_once)


def _score(
    sam: Segmenter,
    embedding: ImageEmbedding,
    points_N2: NDArray[np.float64],
    start: int,
    size: int,
) -> _Batch:
    count = len(points_N2)
    filled = np.concatenate([points_N2, points_N2[-1:].repeat(size - count, axis=0)])
    labels = np.ones((size, 1), dtype=np.int64)
    scored = sam.score(embedding, Prompts(points_xy=filled[:, None], point_labels=labels))
    return _Batch(scored, download(scored.iou_N4), start, count)


def _draw_promising(
    sam: Segmenter, batch: _Batch, config: AutomaticConfig, at_once: int
) -> Iterator[_Drawn]:
    """Draw the prompts with a promising mask and keep the logits of these masks."""
    iou_N3 = batch.iou_N4.numpy()[: batch.count, 1:].astype(np.float32, copy=False)
    passing_N3 = above_iou(iou_N3, config.pred_iou_thresh)
    promising = np.flatnonzero(passing_N3.any(axis=1))
    device = batch.scored.iou_N4.device
    for start in range(0, len(promising), at_once):
        chosen = promising[start : start + at_once]
        filled = np.concatenate([chosen, chosen[-1:].repeat(at_once - len(chosen))])
        drawn_C4hw = sam.draw(batch.scored, upload(torch.from_numpy(filled), device))
        row_M, mask_M = np.nonzero(passing_N3[chosen])
        places = upload(torch.from_numpy(row_M * 4 + mask_M + 1), device)
        yield _Drawn(
            logits_Mhw=drawn_C4hw.flatten(0, 1)[places],
            prompt_M=chosen[row_M] + batch.start,
            iou_M=iou_N3[chosen[row_M], mask_M],
        )


def _measured(
    waiting: list[_Drawn], embedding: ImageEmbedding, config: AutomaticConfig
) -> Iterator[PromptedMask]:
    if not waiting:
        return
    measured = measure_on_device(
        torch.cat([group.logits_Mhw for group in waiting]),
        embedding.frame,
        offset=config.stability_score_offset,
        stability_thresh=config.stability_score_thresh,
    )
    prompts = np.concatenate([group.prompt_M for group in waiting])
    ious = np.concatenate([group.iou_M for group in waiting])
    for mask, prompt, iou in zip(measured, prompts, ious, strict=True):
        if mask is not None:
            yield PromptedMask(mask, int(prompt), iou)
