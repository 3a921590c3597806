"""A workspace after kill -9 at any effect, and after several processes at once, is the same."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace, commit_history
from engine.dataset.releases import list_releases
from tests.dataset.dataset_builders import RECIPE, auto, state_of, write_images

_SCRIPT = "tests.dataset.crash_points"


def crash_points(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", _SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_images(folder, 8)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a photo")
    return folder


@pytest.fixture
def undisturbed(tmp_path: Path, inputs: Path) -> dict[str, object]:
    auto(tmp_path / "undisturbed", inputs)
    state: dict[str, object] = state_of(tmp_path / "undisturbed")
    assert all(state.values()), "an empty state would equal any other"
    return state


def test_a_run_killed_at_random_effects_and_repeated_equals_an_undisturbed_run(
    tmp_path: Path, inputs: Path, undisturbed: dict[str, object]
) -> None:
    effects = int(crash_points("count", tmp_path / "counted", inputs))
    assert effects > 200
    points = random.Random(4).sample(range(1, effects), 4)  # noqa: S311  (no secret)
    crash_points("kill", tmp_path / "killed", inputs, *points)
    for point in points:
        assert state_of(tmp_path / "killed" / str(point)) == undisturbed, f"killed at {point}"


@pytest.mark.slow
def test_a_run_killed_at_every_fifth_effect_and_repeated_equals_an_undisturbed_run(
    tmp_path: Path, inputs: Path, undisturbed: dict[str, object]
) -> None:
    effects = int(crash_points("count", tmp_path / "counted", inputs))
    points = range(1, effects + 1, 5)
    crash_points("kill", tmp_path / "killed", inputs, *points)
    for point in points:
        assert state_of(tmp_path / "killed" / str(point)) == undisturbed, f"killed at {point}"


def test_a_run_killed_again_and_again_gets_through(
    tmp_path: Path, inputs: Path, undisturbed: dict[str, object]
) -> None:
    crash_points("grow", tmp_path / "grown", inputs)
    assert state_of(tmp_path / "grown") == undisturbed


def test_processes_running_the_same_command_at_once_do_its_work_once(
    tmp_path: Path, inputs: Path, undisturbed: dict[str, object]
) -> None:
    crash_points("race", tmp_path / "raced", inputs, inputs, inputs)
    assert state_of(tmp_path / "raced") == undisturbed


def test_processes_with_overlapping_inputs_at_once_cover_every_image_once(
    tmp_path: Path, inputs: Path
) -> None:
    more = tmp_path / "more"
    write_images(more, 9, first=3)
    crash_points("race", tmp_path / "raced", inputs, more, inputs)
    with Workspace.open(tmp_path / "raced", create=False) as workspace:
        images = workspace.table("images").scan().to_arrow()["image_id"].to_pylist()
        runs = workspace.table("image_runs").scan().to_arrow()
        masks = workspace.table("masks").scan().to_arrow()
        releases = list_releases(workspace)
        committed = [commit.commit_id for commit in commit_history(workspace.table("masks"))]
    assert len(images) == len(set(images)) == 12
    assert sorted(runs["image_id"].to_pylist()) == sorted(images)
    assert set(runs["recipe_id"].to_pylist()) == {RECIPE.recipe_id}
    assert sum(runs["masks"].to_pylist()) == masks.num_rows
    assert max(Counter(masks["mask_id"].to_pylist()).values()) == 1
    assert [release.runs[-1] for release in releases] == committed
    assert releases[-1].masks == masks.num_rows
