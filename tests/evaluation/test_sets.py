"""Which images an evaluation opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.labelled_sets import CocoMasks
from engine.errors import BadInputError
from engine.evaluation.labelled import Selection
from engine.evaluation.points import PromptConfig, score_model
from engine.evaluation.sets import evaluation_sets
from tests.dataset.coco_builders import write_coco
from tests.model.small_models import SMALL_COMPACT, small_sam
from tests.quality.release_builders import random_rectangles, release_of, write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    write_coco(folder / "split", 3, split="val")
    write_coco(folder / "plain", 6)
    return folder


def test_files_and_folders_are_opened_in_their_order(folder: Path) -> None:
    sets = evaluation_sets([str(folder / "plain"), str(folder / "split/annotations.json")], None)
    assert [(one.name, len(one)) for one in sets] == [("plain", 6), ("split", 3)]


def test_held_out_images_are_those_that_training_leaves_out(folder: Path) -> None:
    (held,) = evaluation_sets([str(folder / "plain")], None, held_out=2)
    _, wanted = CocoMasks.load(folder / "plain/annotations.json").hold_out(2)
    assert [held[i].path for i in range(len(held))] == [image.path for image in wanted.images]


def test_sets_with_splits_use_them_and_the_others_hold_out(folder: Path) -> None:
    names = [str(folder / "split"), str(folder / "plain")]
    sets = evaluation_sets(names, None, split="val", held_out=2)
    assert [len(one) for one in sets] == [3, 2]


def test_a_split_of_a_set_without_splits_is_refused_with_the_way_out(folder: Path) -> None:
    with pytest.raises(BadInputError, match="--hold-out"):
        evaluation_sets([str(folder / "plain")], None, split="val")


def test_a_split_that_no_image_has_is_refused(folder: Path) -> None:
    with pytest.raises(BadInputError, match="vall"):
        evaluation_sets([str(folder / "split")], None, split="vall", held_out=1)


@pytest.mark.parametrize("held_out", [0, 7])
def test_impossible_numbers_of_images_are_refused(folder: Path, held_out: int) -> None:
    with pytest.raises(BadInputError, match=f"{held_out}"):
        evaluation_sets([str(folder / "plain")], None, held_out=held_out)


def test_files_that_are_no_coco_files_are_refused(folder: Path) -> None:
    broken = folder / "broken.json"
    broken.write_text("[]")
    for split in (None, "val"):
        with pytest.raises(BadInputError, match=r"broken\.json"):
            evaluation_sets([str(broken)], None, split=split)


def test_a_release_is_opened_by_its_name(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ("a.png", "b.png"))
    masks = {"a.png": random_rectangles(1, 3), "b.png": random_rectangles(2, 5)}
    with Workspace.open(tmp_path / "workspace") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        (data,) = evaluation_sets([release.name], workspace, held_out=1)
    config = PromptConfig(max_clicks=1, selection=Selection(masks_per_image=0))
    assert data.name == release.name
    assert len(score_model(small_sam(SMALL_COMPACT), data, config)) == 3


def test_a_release_needs_a_workspace() -> None:
    with pytest.raises(BadInputError, match=r"'r1'.*workspace"):
        evaluation_sets(["r1"], None)
