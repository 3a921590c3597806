"""`maskwheel releases` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.runs import commit_run
from flows.cli import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_PARTLY_DONE, EXIT_USAGE
from flows.commands.releases import command as releases_command
from tests.dataset.publishing_builders import ingest_photos, written_run
from tests.flows.terminal import Terminal


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases, and a run that is written and not published."""
    folder = tmp_path_factory.mktemp("releases")
    with Workspace.open(folder / "work") as workspace:
        image_ids = ingest_photos(workspace, folder / "photos", 6)
        for number in (1, 2):
            commit_run(workspace, written_run(workspace, image_ids, number))
        written_run(workspace, image_ids, 3)
    return folder / "work"


@pytest.fixture
def releases(root: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(root, capsys, ("releases",))


def test_releases_are_listed_tagged_and_shown(releases: Terminal) -> None:
    assert "r1 is v1.0" in releases("tag", "r1", "v1.0", "--note", "the first")
    assert releases.json("tag", "v1.0", "cited") == {"tag": "cited", "release": "r1"}
    releases("tag", "r2", "v1.0", code=EXIT_BAD_INPUT)
    assert "tags never move" in releases.err
    listed = releases("list")
    assert listed.splitlines()[0].split()[:2] == ["release", "tags"]
    assert "cited, v1.0" in listed
    names = [(r["name"], r["tags"]) for r in releases.json("list")["releases"]]
    assert names[:2] == [("r1", ["cited", "v1.0"]), ("r2", [])]
    shown = releases("show", "v1.0")
    assert "r1" in shown
    assert '{"number":1}' in shown
    assert releases.json("show", "r2")["parent"] == "r1"
    releases("show", "r77", code=EXIT_BAD_INPUT)
    assert "'r77'" in releases.err


def test_a_diff_has_a_table_numbers_and_pictures(releases: Terminal, tmp_path: Path) -> None:
    text = releases("diff", "r1", "r2", "--pictures", tmp_path / "pictures", "--sample", "2")
    assert "r1 to r2" in text
    assert "auto, model-2" in text
    assert "2 pictures in" in text
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 2
    found = releases.json("diff", "r2", "r1")
    assert found["masks"]["removed"] > 0
    assert found["groups"][0]["model_id"] == "model-2"
    assert found["pictures"] is None


def test_a_whole_release_verifies_and_a_damaged_one_ends_with_4(
    releases: Terminal, root: Path
) -> None:
    assert "r2 is whole" in releases("verify", "r2")
    assert releases.json("verify", "r1")["passed"] is True
    shard = max(root.glob("runs/*/masks-*.parquet"), key=lambda path: path.stat().st_size)
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    try:
        text = releases("verify", "r2", code=EXIT_PARTLY_DONE)
        found = releases.json("verify", "r2", "--shown", "1", code=EXIT_PARTLY_DONE)
    finally:
        shard.write_bytes(data)
    assert shard.name in text
    assert "length" in text
    assert found["passed"] is False
    assert len(found["problems"]) == 1


def test_garbage_is_named_and_removed(releases: Terminal, root: Path) -> None:
    lost = root / "tables/masks/metadata/lost.avro"
    lost.write_bytes(b"left over")
    assert "stay for now" in releases("gc", "--dry-run")
    planned = releases("gc", "--dry-run", "--grace-days", "0")
    assert "would remove" in planned
    assert "tables/masks/metadata/lost.avro" in planned
    assert lost.exists()
    removed = releases.json("gc", "--grace-days", "0")
    assert "tables/masks/metadata/lost.avro" in [item["key"] for item in removed["garbage"]]
    assert removed["size_bytes"] > 0
    assert not lost.exists()
    assert "removed 0 objects" in releases("gc", "--grace-days", "0")


def test_a_run_is_published_and_rolled_back(releases: Terminal, root: Path) -> None:
    published = {run for r in releases.json("list")["releases"] for run in r["runs"]}
    [waiting] = {path.name for path in (root / "runs").iterdir()} - published
    text = releases("publish", waiting, "--accept", "a test")
    assert f"{waiting} is in r" in text
    releases("publish", "nothing", code=EXIT_BAD_INPUT)
    back = releases.json("rollback", "r1", "--note", "too many")
    assert (back["kind"], back["restores"], back["note"]) == ("rollback", "r1", "too many")
    assert "rollback to r1" in releases("list")
    assert "again" in releases("rollback", "r2")


def test_wrong_use_and_no_workspace_are_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], releases: Terminal
) -> None:
    Terminal(tmp_path / "nothing", capsys, ("releases",))("list", code=EXIT_FAILED)
    releases("diff", code=EXIT_USAGE)
    releases("frobnicate", code=EXIT_USAGE)


def test_help_names_every_command_in_the_order_of_the_work(releases: Terminal) -> None:
    text = releases("--help")
    names = ["list", "show", "diff", "tag", "rollback", "publish", "export", "verify", "gc"]
    places = [text.index(f"\n  {name} ") for name in names]
    assert places == sorted(places)
    for name in names:
        assert "Example" in releases(name, "--help")
    assert sorted(releases_command.list_commands(None)) == sorted(names)  # type: ignore[arg-type]
