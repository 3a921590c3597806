"""RLE of a mask known in a region: ours against pycocotools on the whole image, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from pycocotools import mask as coco

from engine.masks import encode_region

HEIGHT, WIDTH, SIDE = 1500, 2250, 300


def best_ms(work: Callable[[], object], repeats: int = 30) -> float:
    """Return the fastest of several runs in milliseconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times) * 1000


def main() -> None:
    """Print one row."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    wobble = 1 + 0.1 * np.sin(6 * np.arctan2(y, x))
    blob = np.hypot(x, y) < SIDE * 0.42 * wobble
    whole = np.zeros((HEIGHT, WIDTH), dtype=bool)
    whole[400 : 400 + SIDE, 700 : 700 + SIDE] = blob
    ours = encode_region(blob, 700, 400, HEIGHT, WIDTH).counts
    theirs = coco.encode(np.asfortranarray(whole.view(np.uint8)))["counts"].decode()
    if ours != theirs:
        raise SystemExit("the two encodings differ")
    region_ms = best_ms(lambda: encode_region(blob, 700, 400, HEIGHT, WIDTH))
    whole_ms = best_ms(lambda: coco.encode(np.asfortranarray(whole.view(np.uint8))))
    print(
        f"RLE of a {SIDE}x{SIDE} blob in {WIDTH}x{HEIGHT}: region {region_ms:.3f} ms, "
        f"pycocotools whole image {whole_ms:.3f} ms, {whole_ms / region_ms:.0f}x, equal bytes"
    )


if __name__ == "__main__":
    main()
