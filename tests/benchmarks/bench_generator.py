"""Time and peak memory of masking one image: `python -m tests.benchmarks.bench_generator --help`.

Random weights give no real masks, so the score threshold is set to let a stated share of the masks
pass and stability is not asked for: every passing mask is upsampled, kept until NMS and encoded.
"""

from __future__ import annotations

import argparse
import platform
import resource
import time

import numpy as np
import torch

from engine.automatic import AutomaticConfig, generate_masks
from model import Prompts, build_sam
from tests.automatic.oracle_segmenter import paint_scene


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_b")
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--width", type=int, default=2250)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--crop-n-layers", type=int, default=0)
    parser.add_argument("--pass-share", type=float, default=0.5, help="share of masks that pass")
    parser.add_argument("--recommended", action="store_true", help="the model's own thresholds")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    sam = build_sam(arguments.model, device="cpu")
    # A larger scene is a small one with larger pixels; painting it would need the most memory.
    zoom = max(1, -(-arguments.height * arguments.width // 4_000_000))
    image = paint_scene(0, -(-arguments.height // zoom), -(-arguments.width // zoom), 40)
    image = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    image = np.ascontiguousarray(image[: arguments.height, : arguments.width])
    size = {
        "points_per_side": arguments.points_per_side,
        "crop_n_layers": arguments.crop_n_layers,
    }
    if arguments.recommended:
        config = AutomaticConfig.recommended(sam, **size)
    else:
        x, y = np.random.default_rng(0).random((2, 32, 1))
        points = np.stack([x * arguments.width, y * arguments.height], axis=-1)
        prompts = Prompts(points_xy=points, point_labels=np.ones((32, 1), dtype=np.int64))
        iou = sam.score(sam.encode(image), prompts).iou_N4[:, 1:]
        threshold = float(iou.quantile(1 - arguments.pass_share))
        config = AutomaticConfig(
            pred_iou_thresh=max(threshold, 1e-6), stability_score_thresh=0.0, **size
        )
    began = time.perf_counter()
    masks = generate_masks(sam, image, config)
    seconds = time.perf_counter() - began
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(
        f"{arguments.model} {arguments.width}x{arguments.height}, {arguments.points_per_side}^2 "
        f"points, {arguments.crop_n_layers} crop layers: {seconds:.1f} s, peak {peak_gb:.2f} GB, "
        f"{len(masks)} masks; torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"{platform.machine()}"
    )


if __name__ == "__main__":
    main()
