"""The house rules: who imports whom, one home per delicate library, quiet imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("model", "engine", "flows")
MAY_IMPORT = {"model": {"model"}, "engine": {"model", "engine"}, "flows": set(ROOMS)}
ALLOWED_IN_MODEL = {"torch", "numpy", "safetensors", "onnx"}
HOMES = {
    "cv2": "engine/images/",
    "pycocotools": "engine/masks/",
    "boto3": "engine/objects/s3",
    "botocore": "engine/objects/s3",
    "onnx": "model/onnx_graph.py",
    "onnxruntime": "engine/annotation/onnx_decoder.py",
    "fastapi": "engine/annotation/http/",
    "starlette": "engine/annotation/http/",
    "ray": "flows/task_runners.py",
    "prefect_ray": "flows/task_runners.py",
    "dask": "flows/task_runners.py",
    "distributed": "flows/task_runners.py",
    "prefect_dask": "flows/task_runners.py",
}
MAX_LINES = 500


def sources(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def all_sources() -> list[Path]:
    return [path for room in ROOMS for path in sources(room)]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def test_there_is_something_to_check() -> None:
    assert all(len(sources(room)) > 5 for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_from_flows_to_engine_to_model(room: str) -> None:
    for path in sources(room):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ROOMS or top in MAY_IMPORT[room], f"{path} imports {name}"


def test_the_model_knows_torch_and_numpy_only() -> None:
    allowed = ALLOWED_IN_MODEL | {"model"} | set(sys.stdlib_module_names)
    for path in sources("model"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


def test_the_engine_knows_no_prefect() -> None:
    for path in sources("engine"):
        assert "prefect" not in {name.split(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("library", HOMES)
def test_each_delicate_library_has_one_home(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in all_sources()
        if library in {name.split(".")[0] for name in imports(path)}
    }
    assert all(user.startswith(HOMES[library]) for user in users), users


def test_only_the_settings_read_the_environment() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in all_sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv"}
    }
    assert readers <= {"engine/config.py"}


def test_input_is_never_checked_by_assert_and_no_error_is_swallowed() -> None:
    for path in all_sources():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno} asserts"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno} catches everything"


def test_modules_stay_readable_in_one_sitting() -> None:
    for path in all_sources():
        lines = path.read_text().count("\n")
        assert lines <= MAX_LINES, f"{path} has {lines} lines; is it one concept?"


def test_no_module_is_called_utils() -> None:
    assert not [path for path in all_sources() if path.stem in {"utils", "helpers", "common"}]


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("model", {"Prompts", "Sam", "build_sam"}),
        ("engine.automatic", {"AutomaticConfig", "generate_masks"}),
    ],
)
def test_the_names_that_outside_code_relies_on_are_exported(package: str, names: set[str]) -> None:
    module = __import__(package, fromlist=["__all__"])
    assert names <= set(module.__all__)
    assert list(module.__all__) == sorted(module.__all__, key=_isort_key)
    assert all(hasattr(module, name) for name in module.__all__)


def _isort_key(name: str) -> tuple[int, str]:
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_help_imports_neither_torch_nor_prefect_nor_the_catalog() -> None:
    code = (
        "import sys, flows.cli\n"
        "try: flows.cli.cli(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'prefect', 'pyiceberg', 'cv2', 'pandas', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "auto" in done.stdout


def test_importing_the_engine_starts_nothing(tmp_path: Path) -> None:
    code = (
        "import threading, engine.automatic, engine.dataset.catalog, engine.dataset.ingest\n"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert not list(tmp_path.iterdir())
