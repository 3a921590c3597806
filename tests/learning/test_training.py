"""Training from data on disk to weights, with everything that is kept about it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import Subset
from engine.errors import BadInputError
from engine.learning.pretraining import Photos
from engine.learning.recipes import (
    RecipeChanges,
    UnlabelledRecipe,
    find_recipe,
    unlabelled_recipe,
)
from engine.learning.training import TrainingJob, TrainingResult, train_model, training_name
from engine.learning.training_data import DataSource, open_data, split_off
from engine.learning.training_log import LogEntry, TrainingLog, draw_learning_curve, read_log
from engine.learning.training_registration import register_distilled, register_training
from engine.learning.training_start import load_teacher, start_from, tune, tuned
from engine.learning.unlabelled_training import (
    UnlabelledJob,
    distill_model,
    open_photos,
    pretrain_encoder,
)
from engine.objects import LocalStore
from model import load_sam, save_sam
from model.distill import DistillConfig
from model.mae import MaeConfig
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, small_sam
from tests.quality.release_builders import random_rectangles, release_of, write_photos

CPU = torch.device("cpu")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SHORT = RecipeChanges(steps=6, images_per_batch=1, log_every=1, save_every=2)


class StoppedError(Exception):
    """Stands for a kill: nothing after it runs."""


@dataclass
class Watcher:
    """Remembers what it hears; stops the training after a step if asked to."""

    stop_after: int = 10**9
    began: list[tuple[int, int]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    entries: list[LogEntry] = field(default_factory=list)

    def begin(self, step: int, steps: int) -> None:
        self.began.append((step, steps))

    def step(self, step: int) -> None:
        self.steps.append(step)
        if step > self.stop_after:
            raise StoppedError

    def entry(self, entry: LogEntry) -> None:
        self.entries.append(entry)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    save_sam(small_sam(SMALL_COMPACT), path)
    return path


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "discs", 6)


@pytest.fixture
def job(small: Path, discs: Path) -> TrainingJob:
    recipe = find_recipe("finetune").adapted(SHORT)
    return TrainingJob(
        recipe=replace(recipe, samples=replace(recipe.samples, masks_per_image=3)),
        data=open_data([str(discs)], None),
        init=str(small),
        hold_out=1,
        eval_every=3,
    )


def run(job: TrainingJob, output: Path, watcher: Watcher | None = None) -> TrainingResult:
    return train_model(job, output, device=CPU, listener=watcher)


def test_a_training_leaves_weights_a_log_a_curve_and_events(
    job: TrainingJob, tmp_path: Path
) -> None:
    watcher = Watcher()
    result = run(job, tmp_path / "out", watcher)
    assert load_sam(result.weights).model_id() == result.model_id
    assert (result.source, result.parent) == ("small.safetensors", None)
    assert (tmp_path / "out" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert watcher.began == [(0, 6)]
    assert watcher.steps == [1, 2, 3, 4, 5, 6]

    entries = read_log(tmp_path / "out")
    assert entries == watcher.entries
    trained = [e for e in entries if e.kind == "train"]
    measured = [e for e in entries if e.kind == "evaluation"]
    assert [e.step for e in trained] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in measured] == [3, 6]
    assert dict(measured[-1].values) == dict(result.course.scores)
    assert {"miou_1_click", "miou_1_click_oracle", "miou_box"} == measured[0].values.keys()
    for entry in trained:
        assert entry.values["total"] > 0
        assert 0 <= entry.values["waiting_share"] <= 1
        assert entry.values["samples_per_second"] > 0

    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    losses = events.Scalars("train/total")
    assert [e.step for e in losses] == [1, 2, 3, 4, 5, 6]
    assert losses[0].value == pytest.approx(trained[0].values["total"])
    assert [e.step for e in events.Scalars("evaluation/miou_box")] == [3, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_training_ends_with_the_weights_and_the_log_of_an_undisturbed_one(
    job: TrainingJob, tmp_path: Path, workers: int
) -> None:
    undisturbed = run(job, tmp_path / "one")
    with pytest.raises(StoppedError):
        run(replace(job, data_workers=workers), tmp_path / "other", Watcher(stop_after=4))
    resumed = run(replace(job, data_workers=workers), tmp_path / "other")
    assert resumed.course.resumed_at == 4
    assert resumed.model_id == undisturbed.model_id
    assert resumed.course.scores == undisturbed.course.scores
    one, other = read_log(tmp_path / "one"), read_log(tmp_path / "other")
    assert [(e.step, e.kind, e.values.get("total")) for e in other] == [
        (e.step, e.kind, e.values.get("total")) for e in one
    ]
    events = EventAccumulator(str(tmp_path / "other" / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("train/total")] == [1, 2, 3, 4, 5, 6]


def test_a_finished_training_is_not_repeated_and_goes_on_when_asked_for_more(
    job: TrainingJob, tmp_path: Path
) -> None:
    first = run(job, tmp_path / "out")
    again = run(job, tmp_path / "out")
    assert again.model_id == first.model_id
    assert again.course.resumed_at == 6
    assert again.course.samples_per_second == 0
    assert again.course.scores == first.course.scores
    longer = replace(job, recipe=job.recipe.adapted(RecipeChanges(steps=8)))
    more = run(longer, tmp_path / "out")
    assert (more.course.resumed_at, more.course.steps) == (6, 8)
    assert more.model_id != first.model_id
    with pytest.raises(BadInputError, match="8 steps behind it, more than the 6"):
        run(job, tmp_path / "out")


def test_a_folder_of_another_training_is_refused_and_says_why(
    job: TrainingJob, tmp_path: Path
) -> None:
    run(replace(job, recipe=job.recipe.adapted(RecipeChanges(steps=1))), tmp_path / "out")
    other = replace(job, recipe=job.recipe.adapted(RecipeChanges(learning_rate=1e-5, seed=1)))
    with pytest.raises(BadInputError, match=r"train\.learning_rate was 0\.0001, is 1e-05"):
        run(other, tmp_path / "out")
    split = write_coco(tmp_path / "others", 6, split="train")
    with pytest.raises(BadInputError, match=r"data was \['discs@"):
        run(replace(job, data=open_data([str(split)], None, "train")), tmp_path / "out")
    with pytest.raises(BadInputError, match="tune was 'all', is 'decoder'"):
        run(replace(job, tune="decoder"), tmp_path / "out")
    (tmp_path / "out" / "training.json").unlink()
    with pytest.raises(BadInputError, match=r"a checkpoint but not training\.json"):
        run(job, tmp_path / "out")
    (tmp_path / "out" / "training.pt").write_bytes(b"no checkpoint")
    with pytest.raises(BadInputError, match="remove it to start anew"):
        run(job, tmp_path / "out")
    with pytest.raises(BadInputError, match="is a file"):
        run(job, split)


def test_two_trainings_do_not_share_a_folder_at_once(job: TrainingJob, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    other = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
        "print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", other, tmp_path / "out" / ".lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(BadInputError, match="another process trains"):
            run(job, tmp_path / "out")
    assert run(job, tmp_path / "out").course.steps == 6


def test_the_same_job_has_the_same_name_however_long_it_takes(job: TrainingJob) -> None:
    longer = replace(job, recipe=job.recipe.adapted(RecipeChanges(steps=9, save_every=3)))
    assert training_name(longer) == training_name(job)
    assert training_name(replace(job, tune="lora")) != training_name(job)
    assert training_name(job).startswith("finetune-")


def test_the_decoder_alone_learns_when_asked(job: TrainingJob, small: Path, tmp_path: Path) -> None:
    result = run(replace(job, tune="decoder"), tmp_path / "out")
    before, after = load_sam(small).state_dict(), result.sam.state_dict()
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"mask_decoder"}


def test_low_rank_updates_end_as_a_plain_model(
    job: TrainingJob, small: Path, tmp_path: Path
) -> None:
    lora = replace(job, tune="lora", lora_rank=2)
    with pytest.raises(StoppedError):
        run(lora, tmp_path / "out", Watcher(stop_after=4))
    result = run(lora, tmp_path / "out")
    assert result.course.resumed_at == 4
    assert result.model_id == run(lora, tmp_path / "other").model_id
    before, after = load_sam(small).state_dict(), load_sam(result.weights).state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".q_proj." in name or ".v_proj." in name for name in changed)


def test_broken_photos_are_told_and_stop_nothing(
    job: TrainingJob, tmp_path: Path, small: Path
) -> None:
    path = write_coco(tmp_path / "some", 6)
    for name in ("000.jpg", "003.jpg"):  # one of them is held out
        (path.parent / "images" / name).write_bytes(b"broken")
    data = open_data([str(path)], None)
    assert split_off(data, 1).held_out[0][0].path.name == "000.jpg"
    watcher = Watcher()
    result = run(replace(job, data=data), tmp_path / "out", watcher)
    assert sorted(Path(image.uri).name for image in result.course.skipped) == ["000.jpg", "003.jpg"]
    assert watcher.entries[-1].values["photos_skipped"] == 1
    assert not result.course.held_out


def test_a_photo_that_vanishes_while_training_stops_no_measurement_for_good(
    job: TrainingJob, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_coco(tmp_path / "some", 6)

    class Thief(Watcher):
        def step(self, step: int) -> None:
            (path.parent / "images" / "000.jpg").unlink(missing_ok=True)

    result = run(replace(job, data=open_data([str(path)], None)), tmp_path / "out", Thief())
    assert not result.course.scores
    assert "step 3 is not measured" in caplog.text


def test_a_result_becomes_a_version_once(job: TrainingJob, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    result = run(job, tmp_path / "out")
    version = register_training(store, result, job.data, now=NOW)
    assert version.name == "m1"
    assert version.model_id == result.model_id
    assert version.origin.trained_on == (job.data[0].identity,)
    assert version.origin.recipe == "finetune"
    assert {"discs, 1 click", "discs, box"} <= {metric.row for metric in version.metrics}
    assert register_training(store, run(job, tmp_path / "out"), job.data, now=NOW) == version


def test_a_registered_model_can_be_the_start(job: TrainingJob, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    register_training(store, run(job, tmp_path / "out"), job.data, now=NOW)
    result = train_model(replace(job, init="m1"), tmp_path / "next", device=CPU, store=store)
    assert result.parent == "m1"
    assert register_training(store, result, job.data, now=NOW).origin.parent == "m1"


@pytest.fixture
def released(tmp_path: Path) -> Iterator[Workspace]:
    names = [f"{i}.png" for i in range(4)]
    write_photos(tmp_path / "photos", names)
    masks = {name: random_rectangles(seed, 4) for seed, name in enumerate(names)}
    with Workspace.open(tmp_path / "workspace") as workspace:
        release_of(workspace, tmp_path / "photos", masks)
        yield workspace


def test_a_release_can_be_trained_on(released: Workspace, job: TrainingJob, tmp_path: Path) -> None:
    data = open_data(["r1"], released)
    result = run(replace(job, data=data, data_workers=1), tmp_path / "out")
    assert result.course.steps == 6
    store = LocalStore(tmp_path / "store")
    assert register_training(store, result, data, now=NOW).origin.trained_on == ("r1",)


def test_data_that_is_not_there_is_said_by_name(
    released: Workspace, discs: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInputError, match="got no data"):
        open_data([], released)
    with pytest.raises(BadInputError, match="'r7'"):
        open_data(["r7"], released)
    with pytest.raises(BadInputError, match="name its --workspace"):
        open_data(["r1"], None)
    with pytest.raises(BadInputError, match=r"absent\.json"):
        open_data([str(tmp_path / "absent.json")], released)
    with pytest.raises(BadInputError, match="no image with masks in split 'x'"):
        open_data([str(discs)], None, split="x")
    with pytest.raises(BadInputError, match="leaves none to train on"):
        split_off(open_data([str(discs)], None), 6)


def test_holding_out_takes_a_share_of_each_set(discs: Path) -> None:
    source = open_data([str(discs)], None)[0]
    many = DataSource("many", "0", Subset(source.images, np.arange(100) % 6))
    parts = split_off([source, many], None)
    assert [len(part) for part in parts.train] == [6, 95]
    assert [len(part) for part in parts.held_out] == [5]


def test_random_starts_depend_on_the_seed_alone() -> None:
    def start(seed: int) -> str:
        torch.manual_seed(99)
        made = start_from("scratch", model="bundled", seed=seed, device=CPU)
        assert torch.initial_seed() == 99
        return made.sam.model_id()

    assert start(1) == start(1)
    assert start(1) != start(2)


@pytest.mark.parametrize(
    ("init", "model", "said"),
    [
        ("scratch", "vit_x", "unknown model size 'vit_x'"),
        ("absent.pth", None, "no such file"),
        ("mae:absent.pt", "bundled", "no such file"),
        ("m1", None, "expected scratch"),
        ("bundled", "vit_b", "leave --model out"),
    ],
)
def test_starts_that_do_not_exist_are_refused(init: str, model: str | None, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        start_from(init, model=model, seed=0, device=CPU)


def test_a_model_without_attention_has_no_low_rank_updates(small: Path) -> None:
    sam = load_sam(small)
    with pytest.raises(BadInputError, match="--tune lora: rank is at least 1"):
        tune(sam, "lora", 0, seed=0)
    assert tuned(sam, "all") is sam


def test_the_curve_is_drawn_from_any_log_also_an_empty_one(tmp_path: Path) -> None:
    draw_learning_curve([], tmp_path / "empty.png")
    entries = [
        LogEntry(1, "train", {"total": 2.0, "miou_trusted": 0.1}),
        LogEntry(1, "evaluation", {"miou_1_click": 0.2}),
        LogEntry(2, "train", {"total": float("nan"), "other": 1.0}),
    ]
    draw_learning_curve(entries, tmp_path / "some.png")
    assert (tmp_path / "some.png").stat().st_size != (tmp_path / "empty.png").stat().st_size


def test_a_log_that_was_cut_short_is_read_and_mended(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log:
        log.add(LogEntry(1, "train", {"total": 2.0}))
        log.add(LogEntry(2, "train", {"total": 1.0}))
    path = tmp_path / "training.jsonl"
    path.write_text(path.read_text() + '{"step": 3, "ki')
    assert [entry.step for entry in read_log(tmp_path)] == [1, 2]
    with TrainingLog(tmp_path, start=1) as log:
        log.add(LogEntry(2, "train", {"total": 0.5}))
    assert [entry.values["total"] for entry in read_log(tmp_path)] == [2.0, 0.5]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    path.write_text("something else\n")
    with pytest.raises(BadInputError, match="not the log of a training"):
        read_log(tmp_path)


def unlabelled(recipe: UnlabelledRecipe, start: Path, photos: Photos) -> UnlabelledJob:
    changes = RecipeChanges(steps=2, images_per_batch=1, log_every=1, save_every=1)
    model = start_from(str(start), model=None, seed=0, device=CPU)
    return UnlabelledJob(start=model, photos=photos, recipe=recipe.adapted(changes))


SMALL_MAE = replace(unlabelled_recipe("mae"), train=MaeConfig(decoder_width=32, decoder_depth=1))
SMALL_DISTILL = replace(
    unlabelled_recipe("distill"), train=DistillConfig(student_px=64, prompts_per_image=2)
)


def test_an_encoder_is_pre_trained_on_photos_and_others_start_from_it(
    tmp_path: Path, discs: Path
) -> None:
    start = tmp_path / "vit.safetensors"
    save_sam(small_sam(SMALL_VIT), start)
    photos = open_photos([str(discs)], None, None)
    watcher = Watcher()
    result = pretrain_encoder(
        unlabelled(SMALL_MAE, start, photos), tmp_path / "mae", listener=watcher
    )
    assert (result.steps, result.resumed_at, watcher.steps) == (2, 0, [1, 2])
    assert result.values["samples_per_second"] > 0
    assert [entry.step for entry in read_log(tmp_path / "mae")] == [1, 2]
    again = pretrain_encoder(unlabelled(SMALL_MAE, start, photos), tmp_path / "mae")
    assert again.resumed_at == 2
    with pytest.raises(BadInputError, match="cannot start from"):
        start_from(f"mae:{result.file}", model="bundled", seed=0, device=CPU)
    with pytest.raises(BadInputError, match="photos was"):
        pretrain_encoder(unlabelled(SMALL_MAE, start, Photos(photos.uris[1:])), tmp_path / "mae")


def test_a_model_is_distilled_from_another_and_registered(
    tmp_path: Path, discs: Path, small: Path
) -> None:
    photos = open_photos([str(discs.parent / "images")], None, None)
    teacher_file = tmp_path / "teacher.safetensors"
    save_sam(small_sam(SMALL_COMPACT, seed=5), teacher_file)
    teacher = load_teacher(str(teacher_file), CPU)
    distilled = unlabelled(SMALL_DISTILL, small, photos)
    result = distill_model(distilled, teacher, tmp_path / "out")
    assert load_sam(result.file).model_id() == result.sam.model_id()
    assert result.sam.model_id() != load_sam(small).model_id()
    version = register_distilled(LocalStore(tmp_path / "store"), distilled, result, now=NOW)
    assert version.origin.recipe == "distill"
    for name in (None, "vit_h", "mae:x"):
        with pytest.raises(BadInputError, match="expected a trained model"):
            load_teacher(name, CPU)
