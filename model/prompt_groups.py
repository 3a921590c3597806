"""How many prompts to work on at once.

    for rows in prompt_groups(chosen, len(scored.iou_N4), image_NCHW[0]):
        ...

A prompt's copy of the image tokens takes megabytes. A processor works fastest while the copies of a
group stay in its caches, and in memory that is used over and over; a device with an accelerator
wants as many as there are.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BYTES_AT_ONCE = 16 << 20
# More of a small image's gain nothing, and masks are drawn in ten times the memory of the tokens.
_MOST_AT_ONCE = 16


def prompts_at_once(image_tokens: Tensor) -> int:
    """Return how many prompts a processor works on best, given the image tokens of one."""
    return min(_MOST_AT_ONCE, max(1, _BYTES_AT_ONCE // max(1, image_tokens.nbytes)))


def prompt_groups(
    chosen: Tensor | slice, count: int, image_tokens: Tensor
) -> Iterator[Tensor | slice]:
    """Split a choice among `count` prompts into groups; there is at least one, be it empty.

    Args:
        chosen: indices, a boolean mask, or a slice.
        count: of the prompts that are chosen from.
        image_tokens: of one prompt.
    """
    if image_tokens.device.type != "cpu" or torch.is_grad_enabled():
        yield chosen
        return
    at_once = prompts_at_once(image_tokens)
    if isinstance(chosen, Tensor):
        indices = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        yield from torch.split(indices, at_once)
        return
    every = range(count)[chosen]
    for start in range(0, max(1, len(every)), at_once):
        part = every[start : start + at_once]
        yield slice(part.start, part.stop, part.step)
