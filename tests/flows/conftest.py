"""A real Prefect server for the tests of this folder, and the command as a user runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.images import encode_jpeg
from tests.automatic.oracle_segmenter import paint_scene

_SERVER_SECONDS = 180


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
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MASKWHEEL"))},
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "2",
    }
    log = (home / "server.log").open("w")
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"],
        env=environment,
        stdout=log,
        stderr=log,
    )
    try:
        _wait_for(f"http://127.0.0.1:{port}/api/health", server)
        yield Cli({**environment, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"})
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SERVER_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, "the Prefect server ended"
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    raise TimeoutError(f"the Prefect server did not answer within {_SERVER_SECONDS} s")


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
