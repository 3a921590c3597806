"""The recipe of the bundled model: which data, which crops, how long.

Run it with ``make train-bundled DATA=<folder>``; it continues where it was stopped. The folder
holds the sets named in `SOURCES`, each with ``annotations.json`` (COCO, compressed RLE) and
``images/``.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from engine.dataset.training_samples import CocoMasks, SampleConfig, prefetch, training_batches
from engine.learning.process_group import process_group
from model import SIZES, Sam, TrainBatch, load_sam, save_sam, train
from model.compact_encoder import fit_norms_to_half
from model.train_config import BUNDLED_TRAINING

logger = logging.getLogger(__name__)

BSDS, CLOTHING, COCO = "bsds500_trainval", "ccp_clothing", "coco_subset"
SOURCES = (BSDS, CLOTHING, COCO)
HELD_OUT = 40


def training_sources(data: Path) -> list[CocoMasks]:
    """Return what the bundled model learns from; validation images are left out."""
    return [
        CocoMasks.load(data / BSDS / "annotations.json", split="train"),
        CocoMasks.load(data / CLOTHING / "annotations.json").hold_out(HELD_OUT)[0],
        CocoMasks.load(data / COCO / "annotations.json").hold_out(HELD_OUT)[0],
    ]


def validation_sources(data: Path) -> list[CocoMasks]:
    """Return the images that it has never seen: BSDS val and 40 held-out ones of each other set."""
    return [
        CocoMasks.load(data / BSDS / "annotations.json", split="val"),
        CocoMasks.load(data / CLOTHING / "annotations.json").hold_out(HELD_OUT)[1],
        CocoMasks.load(data / COCO / "annotations.json").hold_out(HELD_OUT)[1],
    ]


RECIPE = BUNDLED_TRAINING
# Human masks of all sizes alike: a click means a button as often as a coat.
SAMPLES = SampleConfig(
    scale_range=(0.4, 1.6),
    mask_sampling_power=0.15,
    votes_limit=2,
    colour_strength=1.3,
    invert_probability=0.07,
    noise_probability=0.12,
    noise_range=(2.0, 22.0),
    blur_probability=0.1,
    stretch_probability=0.4,
    tilt_probability=0.4,
    centres=True,
    boundaries=True,
    scene_probability=0.1,
)
# Of the sources below: BSDS teaches most, its photos are labelled whole and by several people.
SHARES = (0.46, 0.12, 0.42)


def train_bundled(
    data: Path, out: Path, share: float = 1.0, device: str = "cpu", init: Path | None = None
) -> Path:
    """Train, or go on training, and write the averaged weights as ``out/bundled.safetensors``.

    Args:
        data: folder with the data sets.
        out: folder for the weights and the checkpoint.
        share: of the recipe's steps; less for a quick try, more where there is more data.
        device: ``cpu`` or ``cuda``; of several processes each takes a GPU of its own.
        init: weights of an earlier training to start from; without them, from chance.
    """
    with process_group(device) as group:
        sources = training_sources(data)
        torch.manual_seed(RECIPE.seed)
        sam = load_sam(init) if init else Sam(SIZES["bundled"])
        sam = sam.to(group.device)

        def batches(start: int) -> Iterator[TrainBatch]:
            return prefetch(
                training_batches(
                    sources,
                    SAMPLES,
                    RECIPE.seed,
                    start,
                    part=group.rank,
                    parts=group.processes,
                    shares=SHARES,
                )
            )

        config = replace(RECIPE, steps=max(1, round(RECIPE.steps * share)))
        average = train(sam, batches, config, out / "training.pt")
        if group.rank == 0:
            fit_norms_to_half(average)
            save_sam(average.half(), out / "bundled.safetensors")  # half the size, the same masks
    return out / "bundled.safetensors"


def main() -> None:
    """Command line of ``make train-bundled``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=Path("checkpoints"), help="where to write")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--share", type=float, default=1.0, help="share of the recipe's steps")
    parser.add_argument("--init", type=Path, help="weights of an earlier training to start from")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.device == "cpu":  # several processes share the cores, one thread each
        torch.set_num_threads(1)
    weights = train_bundled(
        arguments.data, arguments.out, arguments.share, arguments.device, arguments.init
    )
    logger.info("wrote %s", weights)


if __name__ == "__main__":
    main()
