"""What `--preset fast` gains and loses: `python -m tests.benchmarks.bench_fast --images 'd/*.jpg'`.

Every photo is masked by the exact path and by the fast one in turn, in one process. A row per
setting: how many times as fast (of all photos together, processor time and wall time), the share
of the exact path's masks that one of its masks matches at IoU .90 and .75, masks and prompts per
photo, and, with --annotations (COCO JSON), how much of what people drew is found (AR@1000).
`--curve` adds a row for each of several `adaptive_cells`.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig, Segmenter, generate_masks
from engine.automatic.precision import in_precision
from engine.dataset.ingest import expand_inputs
from engine.dataset.labelled_sets import CocoMasks
from engine.evaluation.proposals import covered
from engine.images import ImageLimits, decode_image
from engine.masks import mask_area, mask_iou
from engine.records import MaskRecord, Rle
from model import ImageEmbedding, Prompts, Sam, ScoredPrompts, build_sam, load_sam

_CURVE = (1024, 256, 128, 64, 32, 16)
_COUNTS = (1000,)


@dataclass(slots=True)
class CountingPrompts:
    """A segmenter that counts what it is asked."""

    segmenter: Segmenter
    prompts: int = 0

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        """Pass on."""
        return self.segmenter.encode(image_HWC3)

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        """Count and pass on."""
        self.prompts += len(prompts)
        return self.segmenter.score(embedding, prompts)

    def draw(self, scored: ScoredPrompts, chosen: torch.Tensor) -> torch.Tensor:
        """Pass on."""
        return self.segmenter.draw(scored, chosen)


@dataclass(slots=True)
class Tally:
    """What one setting took and found, summed over photos."""

    name: str
    config: AutomaticConfig
    counting: CountingPrompts
    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    masks: int = 0
    matched_90: list[int] = field(default_factory=list)
    matched_75: list[int] = field(default_factory=list)
    covered_T: NDArray[np.float64] = field(default_factory=lambda: np.zeros(10))

    def run(self, image_HWC3: NDArray[np.uint8]) -> list[MaskRecord]:
        """Mask a photo and note the time."""
        processor, wall = time.process_time(), time.perf_counter()
        masks: list[MaskRecord] = generate_masks(self.counting, image_HWC3, self.config)
        self.processor.append(time.process_time() - processor)
        self.wall.append(time.perf_counter() - wall)
        self.masks += len(masks)
        return masks

    def compare(self, exact: Sequence[MaskRecord], masks: Sequence[MaskRecord]) -> None:
        """Count the exact path's masks that are here too."""
        best = _ious(masks, [one.rle for one in exact]).max(axis=0, initial=0)
        self.matched_90.append(int((best >= 0.9).sum()))
        self.matched_75.append(int((best >= 0.75).sum()))

    def judge(self, wanted: Sequence[Rle], masks: Sequence[MaskRecord]) -> None:
        """Count the human masks that are found, by IoU threshold."""
        ranked = sorted(masks, key=lambda one: -one.predicted_iou)[: _COUNTS[-1]]
        area_G = np.array([mask_area(rle) for rle in wanted], dtype=np.int64)
        self.covered_T += covered(_ious(ranked, wanted), area_G, _COUNTS)[0, 0]


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", required=True, nargs="+", help="globs, folders, lists")
    parser.add_argument(
        "--annotations", type=Path, nargs="*", default=(), help="COCO JSON: what people drew"
    )
    parser.add_argument("--max-images", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the draw among the photos")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--crop-n-layers", type=int, default=0)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--curve", action="store_true", help="also other adaptive_cells")
    arguments = parser.parse_args()
    sam = (load_sam if Path(arguments.model).suffix else build_sam)(arguments.model)
    paths = [Path(one.uri) for one in expand_inputs(arguments.images)]
    random.Random(arguments.seed).shuffle(paths)  # noqa: S311 - a draw of photos
    size = {
        "crop_n_layers": arguments.crop_n_layers,
        "points_per_side": arguments.points_per_side,
    }
    tallies = settings(sam, size, curve=arguments.curve)
    humans = human_masks(arguments.annotations)
    photos = exact_masks = wanted = 0
    for path in paths[: arguments.max_images]:
        image_HWC3 = decode_image(path.read_bytes(), ImageLimits())
        masks = [tally.run(image_HWC3) for tally in tallies]
        photos, exact_masks = photos + 1, exact_masks + len(masks[0])
        drawn = humans.get(path.name, [])
        wanted += len(drawn)
        for tally, found in zip(tallies, masks, strict=True):
            tally.compare(masks[0], found)
            tally.judge(drawn, found)
    if not photos:
        raise SystemExit(f"no photo matches {arguments.images}")
    print(
        f"{arguments.model}, {photos} photos, {exact_masks} masks of the exact path; torch "
        f"{torch.__version__}, {torch.get_num_threads()} threads"
    )
    for tally in tallies:
        print(row(tally, tallies[0], photos, exact_masks, wanted))


def settings(sam: Sam, size: dict[str, int], *, curve: bool) -> list[Tally]:
    """Return what is compared, the exact path first."""
    exact = AutomaticConfig.for_model(sam, size)
    fast = AutomaticConfig.for_model(sam, size, preset="fast")
    named = {
        "exact": exact,
        "fast": fast,
        "half precision alone": replace(fast, adaptive_cells=0),
        "adaptive points alone": replace(fast, half_precision=False),
    }
    for cells in _CURVE if curve else ():
        named[f"fast, {cells} cells"] = replace(fast, adaptive_cells=cells)
    return [
        Tally(name, config, CountingPrompts(in_precision(sam, config)))
        for name, config in named.items()
    ]


def human_masks(annotations: Sequence[Path]) -> dict[str, list[Rle]]:
    """Return the masks that people drew, by the photo's name."""
    sets = [CocoMasks.load(path) for path in annotations]
    images = [data[i] for data in sets for i in range(len(data))]
    return {
        image.path.name: [mask.rle for mask in image.masks if mask_area(mask.rle)]
        for image in images
    }


def row(tally: Tally, exact: Tally, photos: int, exact_masks: int, wanted: int) -> str:
    """Put one setting's figures in words."""
    faster = sum(exact.processor) / sum(tally.processor)
    words = [
        f"{tally.name}: {sum(tally.processor) / photos:.2f} s of a processor per photo",
        f"{faster:.2f}x (wall {sum(exact.wall) / sum(tally.wall):.2f}x)",
        f"recall {sum(tally.matched_90) / exact_masks:.4f} at IoU .90",
        f"{sum(tally.matched_75) / exact_masks:.4f} at .75",
        f"{tally.masks / photos:.1f} masks and {tally.counting.prompts / photos:.0f} prompts",
    ]
    if wanted:
        words.append(f"AR@1000 {tally.covered_T.mean() / wanted:.4f}")
    return ", ".join(words)


def _ious(found: Sequence[MaskRecord], wanted: Sequence[Rle]) -> NDArray[np.float64]:
    if not found or not wanted:
        return np.zeros((len(found), len(wanted)))
    ious: NDArray[np.float64] = mask_iou([one.rle for one in found], list(wanted))
    return ious


if __name__ == "__main__":
    main()
