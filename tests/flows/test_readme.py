"""What the README says is run: its commands, its SQL, its Python, its targets."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import duckdb
import numpy as np
import pytest

from engine.images import decode_image, encode_jpeg
from flows.cli import COMMANDS
from flows.cli import cli as command_line
from tests.automatic.oracle_segmenter import paint_scene
from tests.flows.conftest import Cli

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("console") for line in block.splitlines()]
    found = [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]
    assert len(found) > 4
    return found


@pytest.fixture(scope="module")
def folder(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the README's commands were run in their order."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for i in range(2):
        photo = encode_jpeg(np.ascontiguousarray(paint_scene(i, 120, 160, 8)))
        (folder / "photos" / f"{i}.jpg").write_bytes(photo)
    outputs = []
    for words in commands():
        if words[0] == "maskwheel" and "sam_vit_h_4b8939.pth" not in words:
            done = subprocess.run(
                [sys.executable, "-c", "from flows.cli import main; main()", *words[1:]],
                cwd=folder,
                env={**cli.environment, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (words, done.stderr)
            outputs.append(done.stdout)
    assert "r1" in outputs[0]
    assert "Nothing to do" in outputs[-1]
    return folder


def test_the_commands_run_and_leave_a_report(folder: Path) -> None:
    assert (folder / "maskwheel-data" / "report.html").stat().st_size > 5_000


def test_the_sql_runs_on_the_shards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (statement,) = blocks("sql")
    rows = duckdb.sql(statement).fetchall()
    assert 1 <= len(rows) <= 2
    assert all(masks > 0 and 0 < quality <= 1.5 for _, masks, quality in rows)


def test_the_python_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    masking, reading = blocks("python")
    image = decode_image((folder / "photos" / "0.jpg").read_bytes())
    names: dict[str, object] = {"image": image}
    exec(masking.replace("[[320, 240]]", "[[80, 60]]"), names)  # noqa: S102 - our own README
    assert names["masks"]
    reading = reading.replace('"s3://team-data/birds", "r2"', '"maskwheel-data", "r1"')
    exec(reading, {})  # noqa: S102
    assert len(capsys.readouterr().out.splitlines()) == 2


def shown() -> list[list[str]]:
    """Commands that need more than the README brings: they are checked, not run."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines]
    assert len(found) > 4
    return found


def test_every_command_and_option_in_the_readme_exists() -> None:
    for words in [*commands(), *shown()]:
        if words[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
            assert words[1] in targets
        elif words[0] == "maskwheel":
            command = command_line.get_command(click.Context(command_line), words[1])
            if isinstance(command, click.Group):
                command = command.get_command(click.Context(command), words[2])
            assert command is not None
            options = {name for p in command.params for name in p.opts}
            assert {w for w in words if w.startswith("--")} <= options


def test_every_command_is_in_the_readme_and_has_help_with_an_example() -> None:
    for name in COMMANDS:
        assert f"`maskwheel {name}" in README
        command = command_line.get_command(click.Context(command_line), name)
        assert command is not None
        leaves = list(command.commands.values()) if isinstance(command, click.Group) else [command]
        for leaf in leaves:
            assert leaf.help
            assert leaf.epilog
            assert "maskwheel " in leaf.epilog


def test_every_link_in_the_documents_leads_somewhere() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / document).read_text()
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", text):
            assert (ROOT / target).exists(), f"{document}: {target}"


def test_make_is_there_for_the_two_commands() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "demo" in done.stdout
    assert "test-all" in done.stdout
