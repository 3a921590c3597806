"""What commands import: what takes seconds and is not needed stays away."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from flows.cli import COMMANDS
from flows.importing import quick_imports

# The compiler of PyTorch, and what it is made of.
COMPILER = {"torch._dynamo", "torch._inductor", "sympy"}
HEAVY = {
    "torch",
    "prefect",
    "pyiceberg",
    "sqlalchemy",
    "pandas",
    "numpy",
    "cv2",
    "httpx",
    "fastapi",
}

CODE = """
import json, sys
from flows.cli import cli
for arguments in json.loads(sys.argv[1]):
    cli(arguments, standalone_mode=False)
print(json.dumps(sorted({m for m in sys.modules} & set(json.loads(sys.argv[2])))))
"""


def imported(
    *commands: list[str], of: set[str], environment: Mapping[str, str], folder: Path
) -> set[str]:
    """Return which of some modules a process has imported after some commands."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands), json.dumps(sorted(of))],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def nobody_watches(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has no Prefect server."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("PREFECT", "MASKWHEEL"))}
    return {**kept, "PREFECT_HOME": str(tmp_path / "prefect")}


def test_the_help_of_every_command_imports_nothing_heavy(
    nobody_watches: dict[str, str], tmp_path: Path
) -> None:
    helps = [["--help"], *([name, "--help"] for name in COMMANDS)]
    found = imported(*helps, of=HEAVY, environment=nobody_watches, folder=tmp_path)
    assert found == set()


def test_status_without_a_server_imports_neither_prefect_nor_torch(
    nobody_watches: dict[str, str], tmp_path: Path
) -> None:
    with Workspace.open(tmp_path / "birds"):
        pass
    found = imported(
        ["status", "-w", "birds"],
        of={"torch", "prefect", "httpx", "fastapi"},
        environment=nobody_watches,
        folder=tmp_path,
    )
    assert found == set()


def test_masking_without_a_server_imports_neither_prefect_nor_the_compiler(
    nobody_watches: dict[str, str], thirty_photos: Path, tmp_path: Path
) -> None:
    found = imported(
        ["auto", str(thirty_photos / "photo-03.jpg"), "-w", "birds", "--points-per-side", "2"],
        of={"prefect", "fastapi", "httpx", "ray", "onnxruntime", "matplotlib", "urllib3"}
        | COMPILER,
        environment={**nobody_watches, "OMP_NUM_THREADS": "1"},
        folder=tmp_path,
    )
    assert found == set()


def test_imports_leave_the_collector_as_it_was() -> None:
    assert gc.isenabled()
    with quick_imports():
        assert not gc.isenabled()
        with quick_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()
