"""Training batches: from labelled images on disk to tensors, by a thread or by processes."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import LabelledImage, LabelledMask
from engine.dataset.release_masks import ReleaseMasks
from engine.dataset.sample_cutting import cut_sample, vary_colour
from engine.dataset.sample_workers import SampleStream
from engine.dataset.training_samples import (
    BatchMaker,
    BatchPlan,
    CocoMasks,
    SampleConfig,
    prefetch,
    training_batches,
)
from engine.errors import BadInputError, ImageError
from engine.masks import encode_mask
from engine.records import MaskRecord
from model import TrainBatch
from tests.dataset.coco_builders import write_coco
from tests.quality.release_builders import random_rectangles, release_of, write_photos

SMALL = SampleConfig(image_size=256, crop_px=128, images_per_batch=2, masks_per_image=2)
PLAIN = SampleConfig(
    image_size=64,
    crop_px=64,
    scale_range=(1.0, 1.0),
    flip_probability=0,
    colour_probability=0,
    grey_probability=0,
    invert_probability=0,
    noise_probability=0,
)


@pytest.fixture
def data(tmp_path: Path) -> CocoMasks:
    return CocoMasks.load(write_coco(tmp_path / "discs", 5))


def take(batches: Iterator[TrainBatch], count: int) -> list[TrainBatch]:
    return list(itertools.islice(batches, count))


def assert_equal(some: list[TrainBatch], others: list[TrainBatch]) -> None:
    for one, other in zip(some, others, strict=True):
        assert torch.equal(one.images_BHW3, other.images_BHW3)
        assert torch.equal(one.masks_NHW, other.masks_NHW)
        assert torch.equal(one.image_index_N, other.image_index_N)


def gradient_image(height: int, width: int) -> tuple[LabelledImage, np.ndarray]:
    """A photo whose red grows to the right and green downwards, its right half as the mask."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, 0 * x], axis=2).astype(np.uint8)
    mask = x >= width / 2
    box = (width / 2, 0.0, width / 2, float(height))
    labelled = LabelledMask(encode_mask(mask), box, float(mask.sum()))
    return LabelledImage("made", height, width, (labelled,)), pixels


def cut(
    height: int, width: int, config: SampleConfig, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    image, pixels = gradient_image(height, width)
    sample = cut_sample(image, lambda: pixels, config, np.random.default_rng(seed))
    assert sample is not None
    return sample.image_SS3, sample.masks_MSS


def test_a_batch_has_crops_of_one_size_with_the_masks_that_they_show(data: CocoMasks) -> None:
    for batch in take(training_batches([data], SMALL, seed=1), 5):
        assert batch.images_BHW3.shape == (2, 128, 128, 3)
        assert batch.images_BHW3.dtype == torch.uint8
        assert batch.masks_NHW.dtype == torch.bool
        assert batch.masks_NHW.shape[1:] == (128, 128)
        assert batch.masks_NHW.flatten(1).sum(1).min() >= SMALL.min_area_px
        assert batch.image_index_N.bincount(minlength=2).tolist() <= [2, 2]
        assert len(batch.image_index_N) == len(batch.masks_NHW)


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (48, 64), (640, 512), (40, 30)])
def test_a_whole_photo_keeps_its_masks_in_place_at_every_size(size: tuple[int, int]) -> None:
    pixels, masks = cut(*size, PLAIN)
    assert pixels.shape == (64, 64, 3)
    shown_h, shown_w = (max(1, round(side * 64 / max(size))) for side in size)
    right = pixels[:shown_h, :shown_w, 0] >= 128
    assert (masks[0, :shown_h, :shown_w] ^ right).float().mean() < 0.03
    assert not masks[0, shown_h:].any()
    assert not masks[0, :, shown_w:].any()
    assert (pixels[shown_h:] == torch.tensor([124, 116, 104])).all()


def test_turns_and_flips_move_pixels_and_masks_alike() -> None:
    turned = replace(PLAIN, rotate90_probability=1.0, flip_probability=0.5)
    places = set()
    for seed in range(12):
        pixels, masks = cut(64, 64, turned, seed)
        assert (masks[0] ^ (pixels[..., 0] >= 128)).float().mean() < 0.02
        places.add(pixels.numpy().tobytes())
    assert len(places) > 4


def test_large_scale_jitter_shows_photos_from_tiny_to_enlarged() -> None:
    jitter = replace(PLAIN, scale_range=(0.1, 2.0), scale_draw="uniform", min_area_px=1)
    image, photo = gradient_image(64, 64)
    random = np.random.default_rng(0)
    samples = [cut_sample(image, lambda: photo, jitter, random) for _ in range(40)]
    padding = torch.tensor([124, 116, 104])
    areas = [float((s[0] != padding).any(-1).float().mean()) for s in samples if s is not None]
    assert min(areas) < 0.1
    assert sum(area > 0.99 for area in areas) > 3


def test_masks_are_drawn_by_area_and_votes_as_the_options_say() -> None:
    small, large = (np.zeros((64, 64), dtype=np.bool_) for _ in range(2))
    small[:8, :8], large[20:60, 20:60] = True, True
    masks = tuple(
        LabelledMask(encode_mask(m), (float(x), float(x), float(w), float(w)), float(m.sum()), v)
        for m, x, w, v in ((small, 0, 8, 9), (large, 20, 40, 1))
    )
    image = LabelledImage("made", 64, 64, masks)
    one = replace(PLAIN, masks_per_image=1)

    def share_of_large(config: SampleConfig) -> float:
        random = np.random.default_rng(0)
        pixels = np.zeros((64, 64, 3), dtype=np.uint8)
        drawn = [cut_sample(image, lambda: pixels, config, random) for _ in range(200)]
        return sum(s is not None and bool(s[1][0, 40, 40]) for s in drawn) / 200

    by_area = share_of_large(replace(one, mask_sampling_power=1.0, votes_limit=1))
    by_number = share_of_large(replace(one, mask_sampling_power=0.0, votes_limit=1))
    by_votes = share_of_large(replace(one, mask_sampling_power=0.0, votes_limit=9))
    assert by_area > 0.9
    assert 0.4 < by_number < 0.6
    assert by_votes < 0.2


def test_masks_that_fill_all_that_the_crop_shows_are_not_asked_for() -> None:
    everything = np.ones((32, 64), dtype=np.bool_)
    mask = LabelledMask(encode_mask(everything), (0.0, 0.0, 64.0, 32.0), 2048.0)
    image = LabelledImage("made", 32, 64, (mask,))
    assert cut_sample(image, lambda: 1 / 0, PLAIN, np.random.default_rng(0)) is None  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("look", ["colour", "grey", "invert", "noise", "blur"])
def test_every_look_changes_a_crop_and_none_changes_nothing(look: str) -> None:
    _, pixels = gradient_image(32, 32)
    pixels[::2, ::2] = 200
    config = replace(PLAIN, **{f"{look}_probability": 1.0})  # type: ignore[arg-type]
    assert (vary_colour(pixels, PLAIN, np.random.default_rng(0)) == pixels).all()
    varied = vary_colour(pixels, config, np.random.default_rng(0))
    assert varied.dtype == np.uint8
    assert (varied != pixels).mean() > 0.2
    if look == "grey":
        assert (varied.std(2) == 0).all()
    if look == "invert":
        assert (varied == 255 - pixels).all()


def test_batch_number_i_is_the_same_wherever_one_starts(data: CocoMasks) -> None:
    whole = take(training_batches([data], SMALL, seed=5), 4)
    assert_equal(take(training_batches([data], SMALL, seed=5, start=3), 1), whole[3:])
    assert not torch.equal(whole[0].images_BHW3, whole[1].images_BHW3)


def test_processes_share_the_batches_of_one(data: CocoMasks) -> None:
    alone = take(training_batches([data], SMALL, seed=5), 4)
    first = take(training_batches([data], SMALL, seed=5, part=0, parts=2), 2)
    second = take(training_batches([data], SMALL, seed=5, part=1, parts=2), 2)
    assert_equal([first[0], second[0], first[1], second[1]], alone)


def test_every_image_is_seen_once_before_one_is_seen_twice(data: CocoMasks) -> None:
    seen: list[str] = []

    class Watched:
        name = "watched"

        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, index: int) -> LabelledImage:
            seen.append(data[index].uri)
            return data[index]

    maker = BatchMaker(
        BatchPlan(sources=(Watched(),), config=replace(SMALL, images_per_batch=5), seed=3),
        cache_bytes=0,
    )
    maker.make(0)
    assert set(seen) == {image.uri for image in data.images}


def test_synthetic_scenes_among_the_photos_leave_the_draw_of_photos_alone(
    data: CocoMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws: list[float] = []

    def watched(
        image: LabelledImage, read: object, config: SampleConfig, random: np.random.Generator
    ) -> None:
        draws.append(random.random())

    monkeypatch.setattr("engine.dataset.training_samples.cut_sample", watched)
    mixed = replace(SMALL, scene_probability=0.5, images_per_batch=1)
    maker = BatchMaker(BatchPlan(sources=(data,), config=mixed, seed=0))
    first_draws = []
    for number in range(40):
        draws.clear()
        with contextlib.suppress(BadInputError):  # no photo gives a sample here
            maker.make(number)
        first_draws += draws[:1]
    assert 5 < len(first_draws) < 35
    assert min(first_draws) < 0.4
    assert max(first_draws) > 0.6


def test_threads_and_processes_prepare_what_one_alone_prepares(data: CocoMasks) -> None:
    plan = BatchPlan(sources=(data,), config=SMALL, seed=2)
    plain = take(training_batches([data], SMALL, seed=2, start=3), 5)
    for workers in (0, 2):
        torch.manual_seed(1)
        stream = SampleStream(plan, start=3, workers=workers)
        assert_equal(take(stream, 5), plain)
        assert stream.batches == 5
        assert stream.waited_seconds > 0
        stream.close()
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.manual_seed(1)))
    assert_equal(take(prefetch(training_batches([data], SMALL, seed=2, start=3)), 5), plain)


def test_a_small_cache_gives_the_same_batches(data: CocoMasks) -> None:
    plan = BatchPlan(sources=(data,), config=SMALL, seed=2)
    photo_bytes = data[0].read().nbytes
    large, small, none = (BatchMaker(plan, size) for size in (2**30, 2 * photo_bytes, 0))
    for number in range(4):
        batches = [maker.make(number) for maker in (large, small, none)]
        assert_equal(batches[:1] * 2, batches[1:])


def test_a_release_gives_the_batches_of_the_same_masks_in_a_coco_file(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    masks: dict[str, list[MaskRecord]] = {n: random_rectangles(i, 4) for i, n in enumerate(names)}
    write_photos(tmp_path / "images", names)
    with Workspace.open(tmp_path / "workspace") as workspace:
        release = release_of(workspace, tmp_path / "images", masks)
        streamed = ReleaseMasks.open(workspace, release)
    images = [
        {"id": name, "file_name": name, "width": 80, "height": 60} for name in reversed(names)
    ]
    annotations = [
        {
            "id": 1,
            "image_id": name,
            "area": mask.area,
            "segmentation": mask.to_sa1b()["segmentation"],
        }
        for name in names
        for mask in masks[name]
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    config = replace(SMALL, min_area_px=4)
    assert_equal(
        take(SampleStream(BatchPlan(sources=(streamed,), config=config, seed=4), workers=1), 4),
        take(training_batches([CocoMasks.load(path)], config, seed=4), 4),
    )


def test_a_broken_photo_is_replaced_by_the_next_and_recorded(data: CocoMasks) -> None:
    healthy = BatchPlan(
        sources=(CocoMasks("some", data.images[:2] + data.images[3:]),), config=SMALL, seed=0
    )
    data.images[2].path.write_bytes(b"gone")
    data.images[3].path.unlink()
    plan = BatchPlan(sources=(data,), config=SMALL, seed=0)
    stream, late = SampleStream(plan), SampleStream(plan, start=6, workers=1)
    batches = take(stream, 8)
    assert_equal(take(late, 2), batches[6:])  # whatever was met before
    stream.close()
    reasons = {Path(uri).name: image.reason for uri, image in stream.skipped.items()}
    assert reasons == {"002.jpg": "not-an-image", "003.jpg": "not-found"}
    with pytest.raises(ImageError):
        data.images[2].read()
    assert take(training_batches(healthy.sources, SMALL, seed=0), 1)


def test_damaged_masks_are_recorded_too(data: CocoMasks) -> None:
    bad = replace(data.images[0].masks[0], rle=replace(data.images[0].masks[0].rle, counts="~"))
    images = (replace(data.images[0], masks=(bad,)), *data.images[1:])
    maker = BatchMaker(BatchPlan(sources=(CocoMasks("x", images),), config=SMALL, seed=0))
    for number in range(3):
        maker.make(number)
    assert [image.reason for image in maker.skipped.values()] == ["invalid-mask"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_of_broken_photos_stops_the_training_with_an_example(
    data: CocoMasks, workers: int
) -> None:
    for image in data.images:
        image.path.write_bytes(b"gone")
    stream = SampleStream(BatchPlan(sources=(data,), config=SMALL, seed=0), workers=workers)
    with pytest.raises(BadInputError, match="5 photos in a row cannot be used"):
        next(stream)


def test_nothing_to_train_on_and_senseless_settings_are_refused(data: CocoMasks) -> None:
    with pytest.raises(BadInputError, match="no image with masks"):
        training_batches([CocoMasks("none", ())], SMALL, seed=0)
    with pytest.raises(BadInputError, match="scale range"):
        SampleConfig(scale_range=(2.0, 1.0))
    with pytest.raises(BadInputError, match="blur_probability"):
        SampleConfig(blur_probability=1.5)
    with pytest.raises(BadInputError, match="data workers"):
        SampleStream(BatchPlan(sources=(data,), config=SMALL, seed=0), workers=-1)
