"""Time of the bundled model's parts at 640x480: `python -m tests.benchmarks.bench_bundled`.

Encoding, one click with three masks at full size, scoring 64 prompts of the automatic stage's grid
and drawing them, on real photos (`--data`) or a painted scene. `--against CHECKOUT` measures
another checkout's `model` in turn with this one, in the same process, and compares what they say.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.images import decode_image
from tests.automatic.oracle_segmenter import paint_scene

_HEIGHT, _WIDTH = 480, 640
_GRID = 32
_PROMPTS = 64
PARTS = ("encode", "click", "score 64", "draw 64")


class Side:
    """One checkout's `model` with its bundled weights."""

    def __init__(self, name: str, package: ModuleType, at_once: int) -> None:
        self.name = name
        self.package = package
        self.at_once = at_once
        self.sam = package.build_sam("bundled")
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def timed(self, part: str, work: Callable[[], Any]) -> Any:
        """Do some work and note how long it took."""
        began = time.perf_counter()
        result = work()
        self.seconds[part].append(time.perf_counter() - began)
        return result

    def prompts(self, points_N2: NDArray[np.float64]) -> Any:
        """One foreground click each."""
        labels = np.ones((len(points_N2), 1), dtype=np.int64)
        return self.package.Prompts(points_xy=points_N2[:, None], point_labels=labels)

    def answer(self, image: NDArray[np.uint8], grid: NDArray[np.float64]) -> tuple[Any, Any]:
        """Measure all parts on one image; returns the click's masks and the grid's logits."""
        embedding = self.timed("encode", lambda: self.sam.encode(image))
        click = self.prompts(grid[:1] + 3.0)
        clicked = self.timed("click", lambda: self.sam.predict(embedding, click))
        groups = [grid[i : i + self.at_once] for i in range(0, len(grid), self.at_once)]
        scored = self.timed(
            "score 64", lambda: [self.sam.score(embedding, self.prompts(g)) for g in groups]
        )
        drawn = self.timed(
            "draw 64",
            lambda: [
                self.sam.draw(part, torch.arange(i, min(i + 16, len(part.iou_N4))))
                for part in scored
                for i in range(0, len(part.iou_N4), 16)
            ],
        )
        return clicked.masks_NMHW, torch.cat(drawn)[:, 1:]


def main() -> None:
    """Print a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of photos; without it a painted scene")
    parser.add_argument("--against", type=Path, help="another checkout, measured in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--at-once", type=int, default=16, help="prompts scored together")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    here = Side("this checkout", importlib.import_module("model"), arguments.at_once)
    sides = [here]
    if arguments.against:  # its automatic stage scores 64 at once
        sides.insert(0, Side("the other", _model_of(arguments.against), _PROMPTS))
    photos = list(_photos(arguments.data))
    rng = np.random.default_rng(0)
    flips = pixels = 0
    farthest = 0.0
    for i in range(arguments.rounds):
        start = int(rng.integers(0, _GRID**2 - _PROMPTS))
        answers = [
            side.answer(photos[i % len(photos)], _grid()[start : start + _PROMPTS])
            for side in sides
        ]
        (masks, logits), (other_masks, other_logits) = answers[0], answers[-1]
        flips += int((masks != other_masks).sum()) + int(((logits > 0) != (other_logits > 0)).sum())
        pixels += masks.numel() + logits.numel()
        farthest = max(farthest, float((logits - other_logits).abs().max()))
    _print(sides, arguments.threads)
    if len(sides) == 2:
        print(f"logits differ by {farthest:.1e} at most; {flips} of {pixels:,} mask pixels flip")


def _print(sides: list[Side], threads: int) -> None:
    print(f"bundled, {_WIDTH}x{_HEIGHT}, {threads} threads, torch {torch.__version__}; median ms")
    for part in PARTS:
        medians = [1e3 * statistics.median(side.seconds[part][2:]) for side in sides]
        row = ", ".join(f"{s.name} {m:.1f}" for s, m in zip(sides, medians, strict=True))
        print(f"{part}: {row}" + (f", {medians[0] / medians[1]:.2f}x" if len(sides) == 2 else ""))


def _grid() -> NDArray[np.float64]:
    centres = (np.arange(_GRID) + 0.5) / _GRID
    x, y = np.meshgrid(centres * _WIDTH, centres * _HEIGHT)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def _photos(folder: Path | None) -> Iterator[NDArray[np.uint8]]:
    if folder is None:
        yield paint_scene(0, _HEIGHT, _WIDTH, 40)
        return
    found = 0
    for path in sorted(folder.rglob("*.jpg")):
        photo = decode_image(path.read_bytes())
        if photo.shape[:2] == (_HEIGHT, _WIDTH) and found < 20:
            found += 1
            yield photo
    if not found:
        raise SystemExit(f"no photo of {_WIDTH}x{_HEIGHT} in {folder}; give another folder")


def _model_of(checkout: Path) -> ModuleType:
    """Import another checkout's `model` beside this one's."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if _is_model(name)}
    sys.path.insert(0, str(checkout))
    try:
        other = importlib.import_module("model")
    finally:
        sys.path.pop(0)
        for name in list(sys.modules):
            if _is_model(name):
                del sys.modules[name]
        sys.modules.update(ours)
    return other


def _is_model(name: str) -> bool:
    return name == "model" or name.startswith("model.")


if __name__ == "__main__":
    main()
