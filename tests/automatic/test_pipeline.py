"""Several images at once give the shard that one after the other gives, byte for byte."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.automatic import AutomaticConfig, Segmenter
from engine.automatic.pipeline import best_images_at_once, mask_images
from engine.automatic.shard_worker import run_shard
from engine.automatic.worker_process import usable_cores
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest, load_images
from engine.dataset.runs import Recipe, RunManifest, plan_runs
from engine.dataset.shards import read_shard_statuses
from engine.images import ImageLimits, encode_png
from model import ImageEmbedding, Prompts, ScoredPrompts
from tests.automatic.oracle_segmenter import OracleScene, paint_scene
from tests.automatic.segmenters import OracleSegmenter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = AutomaticConfig(
    points_per_side=3, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0
)
PHOTOS = 9
DEADLINE_SECONDS = 60
ORACLE = OracleSegmenter(OracleScene())


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, RunManifest]]:
    """A run of photos of different sizes, of which the fourth and the last are gone by now."""
    photos = tmp_path_factory.mktemp("photos")
    for i in range(PHOTOS):
        scene = paint_scene(seed=i, height=40 + 13 * i, width=150 - 9 * i, n_shapes=5)
        (photos / f"{i}.png").write_bytes(encode_png(np.ascontiguousarray(scene)))
    with Workspace.open(tmp_path_factory.mktemp("workspace")) as workspace:
        found = ingest(workspace, expand_inputs([str(photos)]), ImageLimits(), NOW)
        recipe = Recipe.of("small-0", CONFIG.result_fields())
        (run,) = plan_runs(workspace, found.image_ids, recipe, PHOTOS, NOW)
        records = load_images(workspace, found.image_ids)
        for record in (records[3], records[-1]):
            Path(record.uri).unlink()
        yield workspace, run


@dataclass
class Watched:
    """A model that notes who asks it and how many at once."""

    sam: Segmenter
    asking: int = 0
    most_asking: int = 0
    threads: set[int] = field(default_factory=set)

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        self.threads.add(threading.get_ident())
        embedding = self.sam.encode(image_HWC3)
        self.asking -= 1
        return embedding

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        return self.sam.score(embedding, prompts)

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        return self.sam.draw(scored, chosen)


def written(
    planned: tuple[Workspace, RunManifest], sam: Segmenter, images_at_once: int
) -> tuple[bytes, list[tuple[str, int]]]:
    """Return the shard's bytes and what was heard while it was made; the shard is gone then."""
    workspace, run = planned
    shard, heard = run.shards[0], []

    def hear(uri: str, masks: int) -> None:
        heard.append((uri, masks))

    outcome = run_shard(
        workspace, shard, run, sam, ImageLimits(), hear, images_at_once=images_at_once
    )
    assert outcome.wrote
    assert (outcome.images, outcome.skipped) == (PHOTOS, 2)
    assert outcome.masks == sum(masks for _, masks in heard)
    statuses = read_shard_statuses(workspace.store, shard)
    assert [s.status for s in statuses].count("skipped") == 2
    data = workspace.store.get(shard.key)
    workspace.store.delete(shard.key)
    return data, heard


def test_several_images_at_once_give_the_same_bytes_and_the_same_progress(
    planned: tuple[Workspace, RunManifest],
) -> None:
    alone, heard_alone = written(planned, ORACLE, 1)
    assert sum(masks for _, masks in heard_alone) > PHOTOS
    for images_at_once in (2, 4, 50):
        assert written(planned, ORACLE, images_at_once) == (alone, heard_alone)


def test_the_model_is_asked_by_several_threads_in_turns(
    planned: tuple[Workspace, RunManifest],
) -> None:
    watched = Watched(ORACLE)
    written(planned, watched, 3)
    assert watched.most_asking == 1
    assert len(watched.threads) > 1
    assert threading.get_ident() not in watched.threads


def test_one_image_at_once_takes_no_thread_but_the_callers(
    planned: tuple[Workspace, RunManifest],
) -> None:
    watched = Watched(ORACLE)
    written(planned, watched, 1)
    assert watched.threads == {threading.get_ident()}


@dataclass
class Broken(Watched):
    """A model that fails on its fifth image, as when an accelerator has no memory left."""

    begun: int = 0

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        self.begun += 1
        if self.begun == 5:
            raise RuntimeError("out of memory")
        return super().encode(image_HWC3)


@pytest.mark.parametrize("images_at_once", [1, 4])
def test_a_model_that_fails_fails_the_shard_and_leaves_nothing(
    planned: tuple[Workspace, RunManifest], images_at_once: int
) -> None:
    workspace, run = planned
    with pytest.raises(RuntimeError, match="out of memory"):
        run_shard(
            workspace,
            run.shards[0],
            run,
            Broken(ORACLE),
            ImageLimits(),
            images_at_once=images_at_once,
        )
    assert not workspace.store.exists(run.shards[0].key)


@dataclass
class Telling(Watched):
    """A model that tells of each image that it begins."""

    encoded: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        self.encoded.release()
        return super().encode(image_HWC3)


def test_the_model_goes_on_while_the_consumer_is_busy_but_not_without_end(
    planned: tuple[Workspace, RunManifest],
) -> None:
    workspace, run = planned
    images = load_images(workspace, run.shards[0].image_ids)
    telling = Telling(ORACLE)
    results = mask_images(images, telling, CONFIG, ImageLimits(), images_at_once=2)
    next(results)
    # The first image is here; two more are made while nobody asks for them, and no others.
    for _ in range(3):
        assert telling.encoded.acquire(timeout=DEADLINE_SECONDS)
    assert not telling.encoded.acquire(timeout=0.3)
    assert len(list(results)) == PHOTOS - 1


def test_images_go_one_by_one_on_a_processor_and_side_by_side_on_an_accelerator() -> None:
    assert best_images_at_once(torch.device("cpu")) == 1
    assert best_images_at_once(torch.device("cuda", 1)) >= min(2, usable_cores())
