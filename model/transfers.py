"""Copies between processor and accelerator that nobody waits for.

    points = upload(torch.from_numpy(points_N2), device)
    arriving = download(scores)        # goes on while the accelerator works
    ...                                # give it the next work first
    scores = arriving.numpy()          # waits for what was asked before the copy, not after it

On CUDA an ordinary ``.to(device)`` or ``.cpu()`` holds the processor until all queued work is done,
and then the accelerator until the processor has queued more. Copies from and to pinned memory do
not. Elsewhere both functions are the ordinary ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """A copy on its way to the processor."""

    _copy: Tensor
    _done: torch.cuda.Event | None = None

    def numpy(self) -> NDArray[np.generic]:
        """Return the copy when it is complete."""
        if self._done is not None:
            self._done.synchronize()
        array: NDArray[np.generic] = self._copy.numpy()
        return array


@lru_cache(maxsize=256)
def constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return numbers as a tensor that was copied to the device once; it must not be written to."""
    with torch.inference_mode(False):  # what comes first may be inference, and training next
        return torch.tensor(values, dtype=dtype, device=device)


def download(tensor: Tensor) -> Arrival:
    """Begin to copy a tensor to the processor."""
    if tensor.device.type != "cuda":
        return Arrival(tensor.cpu())
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    done = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(tensor.device))
    return Arrival(copy, done)


def upload(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a tensor of the processor to a device, as another type if `dtype` is given."""
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel():
        # The type changes first: on the way it would need a second, waiting copy.
        return tensor.to(dtype or tensor.dtype).pin_memory().to(device, non_blocking=True)
    return tensor.to(device, dtype or tensor.dtype)
