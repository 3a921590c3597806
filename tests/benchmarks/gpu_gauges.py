"""What an accelerator could do and what it did: matmul rate, busy share, waits, peak memory.

    rate = matmul_rate(device, torch.bfloat16)          # FLOP/s of a large product
    flops = counted_flops(lambda: generate_masks(sam, image, config))
    share = busy_share(lambda: ..., device)             # of the wall time; None on a processor

On a processor the gauges that only an accelerator has return None.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from time import perf_counter

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

_SIDE = {"cuda": 8192, "cpu": 512}
_REPEATS = 10

Work = Callable[[], object]


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure FLOP/s of square matrix products, the best of a few runs."""
    side = _SIDE.get(device.type, 2048)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    fastest = float("inf")
    for _ in range(4):
        finish(device)
        began = perf_counter()
        for _ in range(_REPEATS):
            torch.mm(left, right)
        finish(device)
        fastest = min(fastest, (perf_counter() - began) / _REPEATS)
    return 2 * side**3 / fastest


def counted_flops(work: Work) -> int:
    """Count the FLOPs of matrix products, convolutions and attention that the work runs."""
    with FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


def busy_share(work: Work, device: torch.device) -> float | None:
    """Measure the share of the wall time in which at least one kernel or copy ran."""
    if device.type != "cuda":
        return None
    finish(device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        began = perf_counter()
        work()
        finish(device)
        seconds = perf_counter() - began
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiled.events() or []
        if event.device_type.name == "CUDA"
    ]
    return covered(spans) / 1e6 / seconds


def covered(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of spans."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def waits(work: Work, device: torch.device) -> int | None:
    """Count how often the processor waited for the device, as far as torch can tell."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in heard)


def forget_peak(device: torch.device) -> None:
    """Begin to look for the most memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gigabytes(device: torch.device) -> float | None:
    """Return the most memory of the device that was in use at a time."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def device_name(device: torch.device) -> str:
    """Name the hardware for the table."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"processor, {torch.get_num_threads()} threads"
