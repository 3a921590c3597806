"""Training batches: from COCO files on disk to tensors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.dataset.training_samples import (
    CocoMasks,
    SampleConfig,
    prefetch,
    training_batches,
)
from engine.errors import BadInputError, ImageError
from model import TrainBatch
from tests.dataset.coco_builders import write_coco

SMALL = SampleConfig(image_size=256, crop_px=128, images_per_batch=2, masks_per_image=2)


@pytest.fixture
def data(tmp_path: Path) -> CocoMasks:
    return CocoMasks.load(write_coco(tmp_path / "discs", 5))


def take(batches: Iterator[TrainBatch], count: int) -> list[TrainBatch]:
    return list(itertools.islice(batches, count))


def test_a_batch_has_crops_of_one_size_with_the_masks_that_they_show(data: CocoMasks) -> None:
    for batch in take(training_batches([data], SMALL, seed=1), 5):
        assert batch.images_BHW3.shape == (2, 128, 128, 3)
        assert batch.images_BHW3.dtype == torch.uint8
        assert batch.masks_NHW.shape[1:] == (128, 128)
        assert batch.masks_NHW.flatten(1).sum(1).min() >= SMALL.min_area_px
        assert batch.image_index_N.bincount(minlength=2).tolist() <= [2, 2]
        assert len(batch.image_index_N) == len(batch.masks_NHW)


def test_masks_lie_where_their_discs_are(data: CocoMasks) -> None:
    plain = SampleConfig(image_size=256, crop_px=256, images_per_batch=1, scale_range=(1.0, 1.0))
    inside, outside = [], []
    for batch in take(training_batches([data], plain, seed=3), 6):
        grey = batch.images_BHW3[0].float().std(dim=-1)
        for mask in batch.masks_NHW:
            inside.append(float(grey[mask].std()))
            outside.append(float(grey[~mask].std()))
    assert sum(inside) < sum(outside)  # a disc has one colour, the ground is noise


def test_batch_number_i_is_the_same_wherever_one_starts(data: CocoMasks) -> None:
    whole = take(training_batches([data], SMALL, seed=5), 4)
    (resumed,) = take(training_batches([data], SMALL, seed=5, start=3), 1)
    assert torch.equal(resumed.images_BHW3, whole[3].images_BHW3)
    assert torch.equal(resumed.masks_NHW, whole[3].masks_NHW)
    assert not torch.equal(whole[0].images_BHW3, whole[1].images_BHW3)


def test_holding_out_splits_without_loss(data: CocoMasks) -> None:
    rest, held = data.hold_out(2)
    assert len(held.images) == 2
    assert sorted(i.path for s in (rest, held) for i in s.images) == [i.path for i in data.images]


def test_a_split_is_kept_apart(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "val", 2, split="val")
    assert len(CocoMasks.load(path, split="val").images) == 2
    assert not CocoMasks.load(path, split="train").images


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        json.dumps({"images": [], "annotations": [{"image_id": 1}]}),
        json.dumps(
            {
                "images": [],
                "annotations": [
                    {
                        "id": 1,
                        "image_id": 1,
                        "bbox": [0, 0, 1, 1],
                        "area": 1,
                        "segmentation": [[0, 0, 1, 1, 1, 0]],
                    }
                ],
            }
        ),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_text(content)
    with pytest.raises(BadInputError, match=r"annotations\.json"):
        CocoMasks.load(path)


def test_an_error_while_preparing_reaches_the_trainer(data: CocoMasks) -> None:
    data.images[0].path.write_bytes(b"gone")
    with pytest.raises(ImageError):
        take(prefetch(training_batches([data], SMALL, seed=0)), 20)


def test_prefetching_changes_nothing(data: CocoMasks) -> None:
    ahead = take(prefetch(training_batches([data], SMALL, seed=2)), 3)
    plain = take(training_batches([data], SMALL, seed=2), 3)
    for one, other in zip(ahead, plain, strict=True):
        assert torch.equal(one.images_BHW3, other.images_BHW3)


def test_the_real_annotations_load(data_pack: Path) -> None:
    bsds = CocoMasks.load(data_pack / "bsds500_trainval" / "annotations.json", split="val")
    assert len(bsds.images) == 100
    assert all(image.masks for image in bsds.images)
