"""A real Prefect server for the tests of this folder, and the command as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.images import encode_jpeg
from tests.automatic.oracle_segmenter import paint_scene
from tests.prefect_server import run_prefect_server


@dataclass(frozen=True)
class Cli:
    """Runs `maskwheel` in processes of its own against the tests' Prefect server."""

    environment: dict[str, str]

    def start(self, *arguments: str | Path, **extra: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from flows.cli import main; main()", *map(str, arguments)],
            env={**self.environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **extra)
        out, err = process.communicate(timeout=500)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str | Path, **extra: str) -> dict[str, Any]:
        done = self.run(*arguments, "--json", **extra)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MASKWHEEL"))}
    with run_prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        yield Cli({**inherited, **server.environment(), "OMP_NUM_THREADS": "2"})


@pytest.fixture(scope="session")
def thirty_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty small pictures of shapes, one of them cut short."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(30):
        scene = paint_scene(seed=i, height=90 + i, width=130 - i, n_shapes=9)
        (folder / f"photo-{i:02d}.jpg").write_bytes(encode_jpeg(np.ascontiguousarray(scene)))
    broken = (folder / "photo-00.jpg").read_bytes()
    (folder / "cut-short.jpg").write_bytes(broken[: len(broken) // 2])
    return folder
