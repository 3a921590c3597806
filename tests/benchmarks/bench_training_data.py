"""How fast training samples are made, and how long training waits for them.

python -m tests.benchmarks.bench_training_data [--data annotations.json ...] [--steps 20]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from engine.dataset.labelled_sets import LabelledSet
from engine.dataset.sample_workers import SampleStream
from engine.dataset.training_samples import BatchMaker, BatchPlan
from engine.learning.recipes import RecipeChanges, find_recipe
from engine.learning.training import TrainingJob, train_model
from engine.learning.training_data import DataSource, open_data
from model import SIZES
from tests.dataset.coco_builders import write_coco


def cpu_ms_per_sample(sources: tuple[LabelledSet, ...], batches: int) -> float:
    """Return the processor time of one sample of the bundled recipe, photos in the cache."""
    config = find_recipe("bundled").samples_for(SIZES["bundled"])
    maker = BatchMaker(BatchPlan(sources=sources, config=config, seed=0), cache_bytes=2**33)
    for number in range(batches):  # into the cache, and past what is slow the first time
        maker.make(number)
    began = time.process_time()
    for number in range(batches):
        maker.make(number)
    return (time.process_time() - began) / (batches * config.images_per_batch) * 1000


def samples_per_second(sources: tuple[LabelledSet, ...], batches: int, workers: int) -> float:
    """Return how many samples a consumer gets that does nothing else."""
    config = find_recipe("bundled").samples_for(SIZES["bundled"])
    stream = SampleStream(BatchPlan(sources=sources, config=config, seed=0), workers=workers)
    next(stream)
    began = time.perf_counter()
    for _ in islice(stream, batches):
        pass
    seconds = time.perf_counter() - began
    stream.close()
    return batches * config.images_per_batch / seconds


def waiting(data: tuple[DataSource, ...], steps: int, workers: int) -> tuple[float, float]:
    """Return samples/s of the bundled recipe, and the share of time spent waiting for data."""
    recipe = find_recipe("bundled").adapted(RecipeChanges(steps=steps))
    recipe = replace(recipe, train=replace(recipe.train, log_every=max(1, steps // 2)))
    job = TrainingJob(recipe=recipe, data=data, eval_every=0, data_workers=workers)
    with tempfile.TemporaryDirectory() as folder:
        course = train_model(job, Path(folder) / "out", device=torch.device("cpu")).course
    return course.samples_per_second, course.waiting_share


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", help="COCO files; by default discs on noise")
    parser.add_argument("--steps", type=int, default=20, help="training steps that are watched")
    parser.add_argument("--batches", type=int, default=50, help="batches that are timed")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = arguments.data or [str(write_coco(Path(folder) / "discs", 60))]
        data = open_data(names, None)
        sources = tuple(source.images for source in data)
        print(
            f"bundled recipe, {sum(map(len, sources))} photos of {', '.join(names)}: "
            f"{cpu_ms_per_sample(sources, arguments.batches):.1f} ms of processor time per sample"
        )
        for workers in arguments.workers:
            alone = samples_per_second(sources, arguments.batches, workers)
            speed, share = waiting(data, arguments.steps, workers)
            print(
                f"{workers or 'no'} data workers: {alone:.0f} samples/s alone; training "
                f"{speed:.1f} samples/s, {share:.1%} of the time waiting for data"
            )


if __name__ == "__main__":
    main()
