"""How good is a model on labelled photos: the figures of the model card.

python -m engine.learning.evaluation --data FOLDER [--model CHECKPOINT]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.automatic.shard_worker import ModelSpec, cached_model
from engine.dataset.training_samples import CocoMasks, LabelledMask
from engine.errors import BadInputError
from engine.learning.bundled import validation_sources
from engine.masks import decode_mask
from model import ImageEmbedding, Sam
from model.evaluate import ClickResult, box_prompt, centre_click

Task = Callable[[Sam, ImageEmbedding, NDArray[np.bool_]], ClickResult]
TASKS: dict[str, Task] = {"1 click": centre_click, "box": box_prompt}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """Which masks are asked for.

    Attributes:
        masks_per_image: drawn at random from each image, at most; bounds the time.
        min_votes: only masks that so many people agree on.
        max_images: evenly spaced, at most; None for all.
        seed: of the draw.
    """

    masks_per_image: int = 10
    min_votes: int = 1
    max_images: int | None = None
    seed: int = 0


def evaluate_prompts(
    sam: Sam, source: CocoMasks, config: EvaluationConfig, tasks: Sequence[str] = tuple(TASKS)
) -> dict[str, ClickResult]:
    """Prompt for masks of every image; results by task.

    Raises:
        BadInputError: no image has a mask that so many people agree on.
    """
    random = np.random.default_rng(config.seed)
    results: dict[str, list[ClickResult]] = {task: [] for task in tasks}
    images = source.images
    if config.max_images is not None:
        step = max(1, len(images) // config.max_images)
        images = images[::step][: config.max_images]
    for image in images:
        candidates = [m for m in image.masks if m.votes >= config.min_votes]
        if not candidates:
            continue
        size = min(config.masks_per_image, len(candidates))
        wanted = _decode([candidates[i] for i in random.choice(len(candidates), size, False)])
        embedding = sam.encode(image.read())
        for task in tasks:
            results[task].append(TASKS[task](sam, embedding, wanted))
    if not all(results.values()):
        raise BadInputError(f"{source.name} has no mask with {config.min_votes} or more votes")
    return {task: ClickResult.joined(found) for task, found in results.items()}


def _decode(masks: Sequence[LabelledMask]) -> NDArray[np.bool_]:
    return np.stack([decode_mask(mask.rle) for mask in masks])


def calibration_error(result: ClickResult, bins: int = 10) -> float:
    """Return the expected calibration error of the predicted IoU, bins of equal count."""
    order = np.argsort(result.predicted_iou_N)
    gaps = [
        abs(float(np.mean(result.predicted_iou_N[part] - result.trusted_iou_N[part]))) * len(part)
        for part in np.array_split(order, bins)
        if len(part)
    ]
    return sum(gaps) / len(order)


def main() -> None:
    """Print a table of mIoU per data set and prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--model", default="bundled", help="a name or a checkpoint")
    parser.add_argument("--max-images", type=int, help="per data set")
    arguments = parser.parse_args()
    sam = cached_model(ModelSpec(arguments.model))
    print(f"{sam.model_id()}: mIoU %, trusted / oracle")
    for source in validation_sources(arguments.data):
        if not source.images:
            print(f"{source.name:18} has no validation images")
            continue
        for votes in (1, 2) if source.name.startswith("bsds") else (1,):
            config = EvaluationConfig(min_votes=votes, max_images=arguments.max_images)
            for task, result in evaluate_prompts(sam, source, config).items():
                print(
                    f"{source.name:18} votes>={votes} {task:8} "
                    f"{100 * result.trusted_iou_N.mean():5.1f} / "
                    f"{100 * result.oracle_iou_N.mean():5.1f}   {len(result.oracle_iou_N)} masks, "
                    f"calibration error {calibration_error(result):.3f}"
                )


if __name__ == "__main__":
    main()
