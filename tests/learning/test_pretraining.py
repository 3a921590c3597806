from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dataset.catalog import Workspace
from engine.dataset.ingest import expand_inputs, ingest
from engine.errors import BadInputError
from engine.images import ImageLimits, encode_png
from engine.learning.pretraining import (
    CropConfig,
    Photos,
    distillation_batches,
    image_batches,
    mae_batches,
    random_crop,
)
from engine.records import Release, SkippedImage
from model import Sam
from model.distill import DistillConfig, distill
from model.mae import MaeConfig, crop_px, pretrain
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam

NOW = datetime(2026, 3, 4, tzinfo=UTC)
SMALL = CropConfig(size_px=16, images_per_batch=2)


def write_photos(folder: Path, colours: list[int]) -> list[Path]:
    """Write photos of one colour each, so that a crop tells its photo."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, colour in enumerate(colours):
        path = folder / f"{number:02d}.png"
        path.write_bytes(encode_png(np.full((30 + number, 40, 3), colour, dtype=np.uint8)))
        paths.append(path)
    return paths


def photos_in(folder: Path) -> Photos:
    return Photos.listed([str(folder)])


def test_every_photo_comes_once_in_an_epoch_each_time_in_another_order(tmp_path: Path) -> None:
    colours = [20 * i for i in range(10)]
    write_photos(tmp_path, colours)
    batches = list(islice(image_batches(photos_in(tmp_path), SMALL, seed=1), 15))
    seen = torch.cat(batches)[:, 8, 8, 0].tolist()
    epochs = [seen[i : i + 10] for i in (0, 10, 20)]
    assert all(sorted(epoch) == colours for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_batches_have_the_asked_shape_and_follow_from_seed_and_number(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(encode_png(random_image(50, 70, i)))
    photos = photos_in(tmp_path)
    config = CropConfig(size_px=24, images_per_batch=3)
    first = list(islice(image_batches(photos, config, seed=4), 6))
    assert all(batch.shape == (3, 24, 24, 3) and batch.dtype == torch.uint8 for batch in first)
    resumed = list(islice(image_batches(photos, config, seed=4, start=2, threads=5), 4))
    assert all(torch.equal(a, b) for a, b in zip(resumed, first[2:], strict=True))
    other = next(image_batches(photos, config, seed=5))
    assert not torch.equal(other, first[0])


def test_broken_photos_are_skipped_counted_and_replaced_by_the_next(tmp_path: Path) -> None:
    good = write_photos(tmp_path, [50, 100, 150])
    (tmp_path / "cut.png").write_bytes(good[0].read_bytes()[:40])
    (tmp_path / "text.jpg").write_text("no photo")
    gone = write_photos(tmp_path / "more", [200])[0]
    photos = photos_in(tmp_path)
    gone.unlink()
    skipped: list[SkippedImage] = []
    batches = islice(image_batches(photos, SMALL, seed=0, on_skip=skipped.append), 12)
    counts = Counter(torch.cat(list(batches))[:, 8, 8, 0].tolist())
    assert set(counts) == {50, 100, 150}
    assert sorted((Path(s.uri).name, s.reason) for s in skipped) == [
        ("00.png", "not-found"),
        ("cut.png", "truncated"),
        ("text.jpg", "not-an-image"),
    ]


def test_a_resumed_run_does_not_need_to_know_what_was_broken(tmp_path: Path) -> None:
    write_photos(tmp_path, [50, 100, 150])
    (tmp_path / "text.jpg").write_text("no photo")
    photos = photos_in(tmp_path)
    through = list(islice(image_batches(photos, SMALL, seed=3), 6))
    resumed = list(islice(image_batches(photos, SMALL, seed=3, start=4), 2))
    assert all(torch.equal(a, b) for a, b in zip(resumed, through[4:], strict=True))


def test_an_address_of_another_kind_is_skipped_too(tmp_path: Path) -> None:
    [path] = write_photos(tmp_path, [80])
    skipped: list[SkippedImage] = []
    photos = Photos(("gopher://example.org/x.png", str(path)))
    next(image_batches(photos, SMALL, seed=0, on_skip=skipped.append))
    assert [s.reason for s in skipped] == ["unsupported-address"]


def test_without_a_usable_photo_there_is_an_error_not_an_endless_search(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no photo")
    with pytest.raises(BadInputError, match="none of 1 photos can be used"):
        next(image_batches(photos_in(tmp_path), SMALL, seed=0))
    with pytest.raises(BadInputError, match="got no photos"):
        Photos(())


def test_closing_the_batches_ends_their_threads(tmp_path: Path) -> None:
    write_photos(tmp_path, [1, 2])
    before = set(threading.enumerate())
    batches = image_batches(photos_in(tmp_path), SMALL, seed=0)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    batches.close()  # type: ignore[attr-defined]
    for thread in started:
        thread.join(timeout=30)
        assert not thread.is_alive()


@settings(max_examples=60)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.integers(0, 1000),
)
def test_crops_of_any_photo_have_the_size_and_colours_of_it(
    height: int, width: int, areas: tuple[float, float], seed: int
) -> None:
    low, high = sorted(areas)
    config = CropConfig(size_px=8, area_range=(low, high))
    image = np.full((height, width, 3), (10, 120, 250), dtype=np.uint8)
    crop = random_crop(image, config, np.random.default_rng(seed))
    assert crop.shape == (8, 8, 3)
    assert crop.is_contiguous()
    assert (crop == torch.tensor([10, 120, 250], dtype=torch.uint8)).all()


def test_crops_show_parts_at_random_places_some_of_them_mirrored() -> None:
    x = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (100, 200, 3))
    image = np.ascontiguousarray(x)
    random = np.random.default_rng(0)
    config = CropConfig(size_px=10, area_range=(0.1, 0.3))
    crops = torch.stack([random_crop(image, config, random) for _ in range(200)])[:, 5, :, 0].int()
    rising = (crops[:, -1] > crops[:, 0]).float().mean()
    assert 0.35 < rising < 0.65
    assert crops.min() < 20
    assert crops.max() > 180
    never = CropConfig(size_px=10, flip_probability=0.0)
    straight = random_crop(image, never, random)[5, :, 0].int()
    assert straight[-1] > straight[0]


def test_photos_come_from_a_release_with_masks_or_without(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", [30, 60, 90])
    listing = tmp_path / "list.csv"
    rows = [f"{path},{split}" for path, split in zip(paths, ("train", "val", "train"), strict=True)]
    listing.write_text("\n".join(["uri,split", *rows]))
    with Workspace.open(tmp_path / "work") as workspace:
        ingest(workspace, expand_inputs([str(listing)]), ImageLimits(), NOW)
        snapshots = {}
        for table in ("images", "masks", "image_runs"):
            head = workspace.table(table).current_snapshot()
            snapshots[table] = head.snapshot_id if head else 0
        release = Release(
            name="r1",
            snapshots=snapshots,
            runs=(),
            models=(),
            parent=None,
            images=3,
            masks=0,
            created_at=NOW,
        )
        everything = Photos.of_release(workspace, release)
        train = Photos.of_release(workspace, release, split="train")
        with pytest.raises(BadInputError, match="got no photos"):
            Photos.of_release(workspace, release, split="test")
    assert everything.uris == tuple(str(path) for path in paths)
    assert train.uris == (str(paths[0]), str(paths[2]))
    assert next(image_batches(train, SMALL, seed=0)).shape == (2, 16, 16, 3)


@pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=lambda c: c.name)
def test_photos_pre_train_an_encoder(config: object, tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode_png(random_image(90, 120, i)))
    sam = Sam(config)  # type: ignore[arg-type]
    batches = mae_batches(sam, photos_in(tmp_path), images_per_batch=2)
    side = crop_px(sam.config)
    assert next(batches(0)).shape == (2, side, side, 3)
    quick = MaeConfig(steps=2, warmup_steps=0, decoder_width=32, decoder_depth=1)
    pretrain(sam, batches, quick, tmp_path / "mae.pt")
    assert (tmp_path / "mae.pt").exists()


def test_photos_distil_a_student(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode_png(random_image(90, 120, i)))
    student, teacher = small_sam(SMALL_COMPACT), small_sam(SMALL_VIT)
    batches = distillation_batches(photos_in(tmp_path), size_px=96, images_per_batch=2)
    quick = DistillConfig(steps=2, warmup_steps=0, student_px=64, prompts_per_image=2)
    assert distill(student, teacher, batches, quick, tmp_path / "distill.pt") is student


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_px": 0},
        {"images_per_batch": 0},
        {"area_range": (0.0, 1.0)},
        {"area_range": (0.5, 0.4)},
        {"area_range": (0.5, 1.1)},
        {"aspect_range": (0.0, 1.0)},
        {"aspect_range": (2.0, 1.0)},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInputError, match="got"):
        CropConfig(**wrong)  # type: ignore[arg-type]
