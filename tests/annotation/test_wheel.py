"""What an installed package brings along: the built page, with the licences of what is in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = "engine/annotation/web/dist"
SOURCES = ("pyproject.toml", "README.md", "LICENSE")

pytestmark = pytest.mark.slow


def build_wheel(folder: Path, *, with_page: bool) -> zipfile.ZipFile:
    """Build a wheel of a copy of the checkout."""
    copy = folder / "checkout"
    copy.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, copy)
    left_out = ["node_modules", "__pycache__", *([] if with_page else ["dist"])]
    for room in ("model", "engine", "flows"):
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns(*left_out))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("maskwheel-*.whl")
    return zipfile.ZipFile(wheel)


def test_a_wheel_brings_the_built_page_and_the_licences_of_what_is_in_it(tmp_path: Path) -> None:
    if not (ROOT / PAGE / "index.html").exists():
        pytest.skip("the page is not built: run `make web`")
    with build_wheel(tmp_path, with_page=True) as wheel:
        names = set(wheel.namelist())
        page = wheel.read(f"{PAGE}/index.html").decode()
        linked = re.findall(r'(?:src|href)="/([^"]+)"', page)
        assert len(linked) >= 3
        assert {f"{PAGE}/{path}" for path in linked} <= names
        assert [name for name in names if re.search(r"dist/assets/.*simd-threaded.*\.wasm$", name)]
        assert [name for name in names if re.search(r"dist/assets/.*simd-threaded.*\.mjs$", name)]
        licences = wheel.read(f"{PAGE}/THIRD_PARTY.txt").decode()
        for package in ("onnxruntime-web", "svelte"):
            assert re.search(rf"^{package} [\d.]+ \(MIT\)$", licences, re.MULTILINE)
        assert "Copyright (c) Microsoft Corporation" in licences
        # The page's sources are for those who build it.
        assert not [name for name in names if "node_modules" in name or "/web/src/" in name]


def test_a_checkout_without_the_built_page_can_be_installed_too(tmp_path: Path) -> None:
    with build_wheel(tmp_path, with_page=False) as wheel:
        names = wheel.namelist()
        assert "engine/annotation/http/static.py" in names
        assert not [name for name in names if name.startswith("engine/annotation/web")]
