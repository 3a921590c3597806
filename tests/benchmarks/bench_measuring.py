"""Measuring drawn masks, plain against now: `python -m tests.benchmarks.bench_measuring`.

One thread, processor time, both sides in turn in one process; the ratio of medians. Logits are the
bundled model's for a photo (`--photo`), or smooth synthetic ones; at 1500x2250 they are laid into
SAM's square input. The plain side upsamples every mask where it can be, and compares all of that.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig
from engine.automatic.measuring import measure_masks
from engine.automatic.prompting import draw_promising
from engine.images import ImageLimits, decode_image
from model import Frame, build_sam, cut_window, regions_above, upsample_window
from model.preprocess import input_frame
from tests.automatic.oracle_segmenter import paint_scene

T = TypeVar("T")

OFFSET = 1.0


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--points-per-side", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logits, frame = drawn_logits(arguments.photo, arguments.points_per_side)
    height, width = frame.original_size
    print_row(f"{width}x{height}, bundled", logits[:90], frame, arguments.repeats)
    square = input_frame((1500, 2250), 1024, 1024)
    padded = np.full((16, 256, 256), -9.0, np.float32)
    wide = F.interpolate(torch.from_numpy(logits[None, :16]), (171, 256), mode="bilinear")
    padded[:, :171] = wide[0].numpy()
    print_row("2250x1500, SAM's square", padded, square, arguments.repeats)
    noise = np.random.default_rng(0).normal(0, 3, (4, 256, 256)).astype(np.float32)
    print_row("2250x1500, noise (nothing is certain)", noise, square, arguments.repeats)


def drawn_logits(photo: Path | None, points_per_side: int) -> tuple[NDArray[np.float32], Frame]:
    """Draw the bundled model's promising masks of a photo, or of a painted scene."""
    image = (
        paint_scene(0, 480, 640, 40)
        if photo is None
        else decode_image(photo.read_bytes(), ImageLimits())
    )
    sam = build_sam("bundled", device="cpu")
    embedding = sam.encode(image)
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    with torch.inference_mode():
        groups = draw_promising(
            sam,
            embedding,
            grid * image.shape[1::-1],
            slice(0, len(grid)),
            8,
            AutomaticConfig.recommended(sam),
        )
        logits = torch.cat([group.logits_Mhw for group in groups])
    return logits.numpy(), embedding.frame


def plain(logits_Mhw: NDArray[np.float32], frame: Frame) -> list[tuple[int, int, int]]:
    """Count each mask's pixels above the three thresholds after upsampling it where it is."""
    counts = []
    regions = regions_above(logits_Mhw, -OFFSET, frame)
    for logits_hw, region in zip(logits_Mhw, regions, strict=True):
        if region is None:
            continue
        values = upsample_window(cut_window(logits_hw, frame, region), frame, region)
        high, mask, low = (values > t for t in (OFFSET, 0.0, -OFFSET))
        if mask.any():
            counts.append(
                (
                    int(np.count_nonzero(high)),
                    int(np.count_nonzero(mask)),
                    int(np.count_nonzero(low)),
                )
            )
    return counts


def print_row(name: str, logits: NDArray[np.float32], frame: Frame, repeats: int) -> None:
    """Time both sides in turn, check that they agree, print."""
    tensor = torch.from_numpy(logits)
    before: list[float] = []
    after: list[float] = []
    for _ in range(repeats):
        counts = _timed(before, lambda: plain(logits, frame))
        found = _timed(
            after, lambda: measure_masks(tensor, frame, offset=OFFSET, stability_thresh=0.0)
        )
        areas = [mask.area for mask in found if mask is not None]
        if areas != [area for _, area, _ in counts]:
            raise SystemExit(f"{name}: both sides found different masks")
    plain_us, now_us = (1e6 * median(times) / len(logits) for times in (before, after))
    print(
        f"{name}: {len(logits)} masks, {plain_us:.0f} us a mask plain, {now_us:.0f} us now, "
        f"{plain_us / now_us:.1f}x"
    )


def _timed(times: list[float], work: Callable[[], T]) -> T:
    began = time.process_time()
    result = work()
    times.append(time.process_time() - began)
    return result


if __name__ == "__main__":
    main()
