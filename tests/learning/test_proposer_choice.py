"""A box proposer is trained on what people made, once for these masks, this model, this recipe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.runs import Recipe, commit_run, plan_runs
from engine.errors import BadInputError
from engine.learning.proposer_choice import choose_proposer
from engine.learning.proposer_registry import list_proposers
from model import Sam, build_sam
from tests.dataset.dataset_builders import NOW
from tests.quality.release_builders import (
    id_of,
    random_rectangles,
    release_of,
    write_photos,
    write_shards,
)

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    write_photos(tmp_path / "photos", NAMES)
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


def automatic_run(workspace: Workspace, name: str) -> None:
    photos = Path(workspace.address).parent / "photos"
    release_of(workspace, photos, {name: random_rectangles(1, 3)}, Recipe.of(f"auto {name}", {}))


def work_of_people(workspace: Workspace, names: tuple[str, ...], recipe: str) -> None:
    ids = [id_of(workspace, name) for name in names]
    run = plan_runs(workspace, ids, Recipe.of(recipe, {}), 4, NOW, kind="import", stage="manual")
    write_shards(workspace, run[-1], {name: random_rectangles(2, 4) for name in names})
    commit_run(workspace, run[-1])


def chosen(workspace: Workspace, sam: Sam, name: str = "train") -> str:
    return choose_proposer(workspace, name, sam, now=NOW, steps=1)


def test_a_proposer_is_trained_anew_for_new_masks_of_people_and_not_for_automatic_ones(
    workspace: Workspace, sam: Sam
) -> None:
    automatic_run(workspace, "a.png")
    with pytest.raises(BadInputError, match="no masks of the stages manual, semi"):
        chosen(workspace, sam)
    work_of_people(workspace, ("a.png", "b.png"), "first")
    assert chosen(workspace, sam) == "p1"
    assert chosen(workspace, sam) == "p1"
    automatic_run(workspace, "b.png")
    assert chosen(workspace, sam) == "p1"
    work_of_people(workspace, ("c.png",), "second")
    assert chosen(workspace, sam) == "p2"
    assert chosen(workspace, sam, "newest") == "p2"
    assert chosen(workspace, sam, "p1") == "p1"
    assert [version.trained_on for version in list_proposers(workspace.store)] == [("r2",), ("r4",)]


def test_without_masks_of_people_automatic_masks_can_still_propose(
    workspace: Workspace, sam: Sam
) -> None:
    with pytest.raises(BadInputError, match="has no release"):
        chosen(workspace, sam)
    with pytest.raises(BadInputError, match="there is no box proposer"):
        chosen(workspace, sam, "newest")
    with pytest.raises(BadInputError, match="unknown box proposer 'p7'"):
        chosen(workspace, sam, "p7")
    assert chosen(workspace, sam, "auto") == "auto"
