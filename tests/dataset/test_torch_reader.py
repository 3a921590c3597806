"""A release as a torch data set: every image once, whoever reads, in an order fixed by a seed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from engine.dataset import ReleaseReader, StreamConfig, open_release
from engine.dataset.torch_reader import MaskDataset, MaskSample
from engine.errors import BadInputError
from engine.masks import decode_mask
from tests.dataset.dataset_builders import auto, write_images

IMAGES = 41


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("torch")
    write_images(folder / "photos", IMAGES)
    auto(folder / "workspace", folder / "photos", images_per_shard=7)
    return folder / "workspace"


@pytest.fixture
def reader(root: Path) -> Iterator[ReleaseReader]:
    with open_release(root) as opened:
        yield opened


def ids_of(data: MaskDataset, workers: int = 0) -> list[int]:
    loader: DataLoader[MaskSample] = DataLoader(
        data, batch_size=4, num_workers=workers, collate_fn=_image_ids
    )
    return [image_id for batch in loader for image_id in batch]


def _image_ids(samples: list[MaskSample]) -> list[int]:
    return [sample.image.image_id for sample in samples]


def test_without_a_seed_the_images_come_ordered_by_id(reader: ReleaseReader) -> None:
    assert ids_of(reader.torch()) == [image.image_id for image in reader]


def test_a_seed_fixes_an_order_that_each_epoch_changes(reader: ReleaseReader) -> None:
    config = StreamConfig(seed=3, piece_images=4, buffer_images=5)
    data, again = reader.torch(config), reader.torch(config)
    first = ids_of(data)
    assert first != sorted(first)
    assert sorted(first) == reader.image_rows.sorted_ids.tolist()
    assert ids_of(again) == first
    data.set_epoch(1)
    second = ids_of(data)
    assert second != first
    assert sorted(second) == sorted(first)
    data.set_epoch(0)
    assert ids_of(data) == first
    assert ids_of(reader.torch(StreamConfig(seed=4, piece_images=4))) != first


def test_neighbours_are_parted_by_the_buffer(reader: ReleaseReader) -> None:
    plain = ids_of(reader.torch(StreamConfig(seed=0, piece_images=IMAGES, buffer_images=1)))
    mixed = ids_of(reader.torch(StreamConfig(seed=0, piece_images=IMAGES, buffer_images=20)))
    assert plain == sorted(plain)
    assert mixed != sorted(mixed)


@pytest.mark.parametrize("seed", [None, 5])
def test_ranks_share_the_images_evenly(reader: ReleaseReader, seed: int | None) -> None:
    def parts(*, equal: bool) -> list[list[int]]:
        return [
            ids_of(
                reader.torch(
                    StreamConfig(seed=seed, piece_images=4, rank=r, ranks=3, equal_ranks=equal)
                )
            )
            for r in range(3)
        ]

    assert sorted(chain.from_iterable(parts(equal=False))) == reader.image_rows.sorted_ids.tolist()
    even = parts(equal=True)
    assert {len(part) for part in even} == {IMAGES // 3}
    assert len(set(chain.from_iterable(even))) == IMAGES // 3 * 3


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores
@pytest.mark.parametrize("workers", [1, 3])
def test_worker_processes_read_every_image_once(reader: ReleaseReader, workers: int) -> None:
    assert len(list(reader)) == IMAGES  # files are open when the workers are forked
    found = ids_of(reader.torch(StreamConfig(seed=1, piece_images=3)), workers)
    assert sorted(found) == reader.image_rows.sorted_ids.tolist()


def test_workers_that_live_on_hear_of_the_next_epoch(reader: ReleaseReader) -> None:
    data = reader.torch(StreamConfig(seed=1, piece_images=3))
    loader: DataLoader[MaskSample] = DataLoader(
        data, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=_image_ids
    )
    epochs = []
    for epoch in range(2):
        data.set_epoch(epoch)
        epochs.append([image_id for batch in loader for image_id in batch])
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


def test_pixels_and_masks_are_decoded_when_asked_for(reader: ReleaseReader) -> None:
    samples = list(reader.torch(StreamConfig(pixels=True, masks=True)))
    assert sum(len(sample.image.masks) for sample in samples) == reader.release.masks > 0
    for sample in samples:
        assert sample.pixels_HWC3 is not None
        assert sample.masks_NHW is not None
        assert torch.equal(sample.pixels_HWC3, torch.from_numpy(sample.image.read()))
        assert sample.masks_NHW.shape == (len(sample.image.masks), 24, 32)
        for mask_HW, mask in zip(sample.masks_NHW, sample.image.masks, strict=True):
            assert np.array_equal(mask_HW.numpy(), decode_mask(mask.rle))
    plain = next(iter(reader.torch()))
    assert plain.pixels_HWC3 is None
    assert plain.masks_NHW is None


def test_images_without_masks_may_be_left_out(reader: ReleaseReader) -> None:
    found = ids_of(reader.torch(StreamConfig(masked_only=True)))
    assert found == [image.image_id for image in reader if image.masks]
    assert 0 < len(found) < IMAGES


def test_a_split_that_no_image_has_is_empty(reader: ReleaseReader) -> None:
    assert ids_of(reader.torch(StreamConfig(split="val", seed=1))) == []


def test_an_image_that_is_gone_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_images(tmp_path / "photos", 5)
    auto(tmp_path / "workspace", tmp_path / "photos")
    paths[2].unlink()
    with (
        open_release(tmp_path / "workspace") as reader,
        caplog.at_level(logging.WARNING, logger="engine.dataset.torch_reader"),
    ):
        samples = list(reader.torch(StreamConfig(pixels=True)))
    assert len(samples) == 4
    assert [str(paths[2]) in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "settings",
    [{"piece_images": 0}, {"buffer_images": 0}, {"rank": 1}, {"rank": 2, "ranks": 2}],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(BadInputError):
        StreamConfig(**settings)  # type: ignore[arg-type]  # each value fits its field
