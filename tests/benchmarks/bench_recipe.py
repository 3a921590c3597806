"""What each part of the bundled recipe is worth: short trainings that differ in one thing.

python -m tests.benchmarks.bench_recipe --data FOLDER [--steps 200] [--only ROW ...]

Every row has the same number of steps of four crops, from scratch unless it says otherwise, and is
measured on the same masks of BSDS val. Short trainings rank options; they don't tell how good a
long one gets. Run halves of the rows with --only to use two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from engine.dataset.training_samples import CocoMasks, SampleConfig, prefetch, training_batches
from engine.evaluation.labelled import Selection
from engine.evaluation.points import PromptConfig, score_model
from engine.learning.bundled import (
    BSDS,
    SAMPLES,
    SHARES,
    SOURCES,
    training_sources,
    validation_sources,
)
from engine.learning.pretraining import Photos, mae_batches
from engine.learning.pseudo_masks import write_pseudo_labels
from model import SIZES, Sam, SamConfig, TrainBatch, TrainConfig, train
from model.mae import MaeConfig, pretrain
from model.train_config import BUNDLED_TRAINING

Start = Callable[[Sam, Path, Path, int], None]
MEASURED = PromptConfig(max_clicks=1, selection=Selection(max_images=40, masks_per_image=8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One training.

    Attributes:
        train: its recipe; steps are set by the command.
        samples: its data.
        model: its sizes and heads.
        begin: what happens before, if anything: called with model, data, scratch folder, steps.
    """

    train: TrainConfig = BUNDLED_TRAINING
    samples: SampleConfig = SAMPLES
    model: SamConfig = field(default_factory=lambda: SIZES["bundled"])
    begin: Start | None = None


def learn(
    sam: Sam, sources: list[CocoMasks], shares: tuple[float, ...], row: Row, steps: int, to: Path
) -> Sam:
    """Train on masks of some sources."""

    def batches(start: int) -> Iterator[TrainBatch]:
        return prefetch(training_batches(sources, row.samples, 0, start, shares=shares))

    config = replace(
        row.train,
        steps=steps,
        warmup_steps=steps // 5,
        ema_decay=0.99,
        log_every=max(1, steps // 4),
        save_every=steps,
    )
    return train(sam, batches, config, to)


def start_from_mae(sam: Sam, data: Path, scratch: Path, steps: int) -> None:
    """Half as many steps of 16 crops again, in which the encoder fills in hidden patches."""
    photos = Photos.listed([str(data / name / "images") for name in SOURCES])
    config = MaeConfig(steps=max(1, steps // 2), mask_ratio=0.6, warmup_steps=max(1, steps // 20))
    pretrain(sam, mae_batches(sam, photos, images_per_batch=16), config, scratch / "mae.pt")


def start_from_pseudo_masks(sam: Sam, data: Path, scratch: Path, steps: int) -> None:
    """Half as many steps again on regions that nobody drew."""
    folder = scratch / "pseudo"
    folder.mkdir()
    (folder / "images").symlink_to((data / BSDS / "images").resolve())
    train_names = [image.path.name for image in training_sources(data)[0].images]
    images = [folder / "images" / name for name in train_names[::4]]
    write_pseudo_labels(images, folder / "annotations.json")
    labels = CocoMasks.load(folder / "annotations.json")
    average = learn(sam, [labels], (1.0,), Row(), max(1, steps // 2), scratch / "pseudo.pt")
    sam.load_state_dict(average.state_dict())


def rows() -> dict[str, Row]:
    """Return the trainings by name."""
    recipe = BUNDLED_TRAINING
    no_sigmoid = replace(SIZES["bundled"], iou_sigmoid=False)

    def changed(**options: object) -> Row:
        return Row(train=replace(recipe, **options))  # type: ignore[arg-type]

    return {
        "the recipe": Row(),
        "no alternatives under a click": changed(alternatives=0),
        "first points anywhere (SAM), none central": changed(centre_probability=0.0),
        "no boundary loss": changed(boundary_weight=0.0),
        "no synthetic scenes": Row(samples=replace(SAMPLES, scene_probability=0.0)),
        "soft IoU instead of dice": changed(region_loss="soft_iou"),
        "-log soft IoU instead of dice": changed(region_loss="neg_log_soft_iou"),
        "dice of the batch": changed(region_average="batch", alternatives=0),
        "-log soft IoU of the batch": changed(
            region_loss="neg_log_soft_iou", region_average="batch", alternatives=0
        ),
        "focal 20 : dice 1, alpha .25 (SAM)": changed(
            focal_weight=20.0, dice_weight=1.0, focal_alpha=0.25
        ),
        "no min-loss: all three masks learn": changed(min_loss=False, alternatives=0),
        "IoU head without sigmoid (SAM)": Row(model=no_sigmoid),
        "IoU head L1 (SAM 2)": changed(iou_loss="l1"),
        "IoU head learns from the best mask only (SAM)": changed(iou_targets="best"),
        "start from MAE": Row(begin=start_from_mae),
        "start from pseudo-masks": Row(begin=start_from_pseudo_masks),
    }


def main() -> None:
    """Train and measure row by row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="names of rows; default all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {n: r for n, r in rows().items() if not arguments.only or n in arguments.only}
    sources, val = training_sources(arguments.data), validation_sources(arguments.data)[0]
    print("| changed | click, trusted / oracle | box | seconds |")
    print("|---|---|---|---|", flush=True)
    for name, row in chosen.items():
        began = time.monotonic()
        torch.manual_seed(0)
        sam = Sam(row.model)
        with tempfile.TemporaryDirectory() as scratch:
            if row.begin:
                row.begin(sam, arguments.data, Path(scratch), arguments.steps)
            average = learn(
                sam, sources, SHARES, row, arguments.steps, Path(scratch) / "training.pt"
            )
        scores = score_model(average, val, MEASURED)
        click, box = scores.after(1), scores.box
        boxed = "" if box is None else f"{100 * box.trusted_iou_N.mean():.1f}"
        print(
            f"| {name} | {100 * click.trusted_iou_N.mean():.1f} / "
            f"{100 * click.oracle_iou_N.mean():.1f} | {boxed} | {time.monotonic() - began:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
