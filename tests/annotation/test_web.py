"""The page's own checks: types, format and the tests of its logic, run by its own tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "engine" / "annotation" / "web"


def run_npm(script: str) -> subprocess.CompletedProcess[str]:
    if not (WEB / "node_modules" / "vite").exists():
        pytest.skip("needs the page's packages: run `make web`")
    command = ["sh", str(WEB / "npm.sh"), sys.prefix, sys.executable, "run", "--silent", script]
    return subprocess.run(
        command, cwd=WEB, capture_output=True, text=True, check=False, timeout=500
    )


@pytest.mark.parametrize("script", ["check", "test"])
def test_the_page_passes_its_own_checks(script: str) -> None:
    done = run_npm(script)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
