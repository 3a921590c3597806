"""The files of infra/, read as the tools read them: Compose's variables, commands, settings.

services = compose_services(environment)          # interpolated, replicas file on top if asked
check_command(["maskwheel", "annotate", "--serve"])        # raises when an option is none
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from engine.config import Settings

__all__ = [
    "INFRA",
    "ROOT",
    "check_command",
    "check_variables",
    "compose",
    "documents",
    "example_environment",
    "extras",
    "image_environment",
    "instructions",
    "pins",
    "project_version",
]

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"

# ${NAME}, ${NAME:-default}, ${NAME:?message}: what our Compose files use.
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a YAML file, anchors resolved."""
    return [found for found in yaml.safe_load_all(path.read_text()) if found is not None]


def example_environment(path: Path = INFRA / ".env.example") -> dict[str, str]:
    """Return the variables of an example, a value made up for each that is empty."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value or f"made-up-{name.lower().replace('_', '-')}" for name, _, value in pairs}


def compose(*files: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return Compose files merged in their order, with the variables filled in."""
    merged: dict[str, Any] = {}
    for name in files:
        merged = _merge(merged, documents(INFRA / name)[0])
    filled = _filled(merged, environment)
    assert isinstance(filled, dict)
    return filled


def instructions(path: Path = INFRA / "Dockerfile") -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile: keyword and the rest, on one line."""
    text = "\n".join(
        line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")
    )
    joined = re.sub(r"\\\n\s*", " ", text)
    return [
        (keyword.upper(), rest.strip())
        for keyword, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    found = instructions()
    start = max(number for number, (keyword, _) in enumerate(found) if keyword == "FROM")
    texts = [rest for keyword, rest in found[start:] if keyword == "ENV"]
    return dict(re.findall(r"(\w+)=(\S+)", " ".join(texts)))


@cache
def pins() -> dict[str, str]:
    """Return the versions of constraints.txt by normalised name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {_normal(name): version.strip() for name, version in pairs}


def pin(requirement: str) -> str | None:
    """Return the pinned version of what a requirement such as ``ray[default]>=2.40`` names."""
    return pins().get(_normal(re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0]))


def project_version() -> str:
    """Return the version in pyproject.toml."""
    return str(_project()["version"])


def extras() -> set[str]:
    """Return the names of the optional dependencies."""
    return set(_project()["optional-dependencies"])


def check_variables(names: Iterator[str] | Sequence[str] | Mapping[str, object]) -> None:
    """Check that each MASKWHEEL_ and PREFECT_ variable is one that something reads."""
    ours = {f"MASKWHEEL_{name.upper()}" for name in Settings.model_fields}
    known = {"MASKWHEEL_": ours, "PREFECT_": _prefect_variables()}
    for name in names:
        for prefix, readers in known.items():
            # Prefect's logging.yml takes any of its fields from such a variable.
            if name.startswith(prefix) and not name.startswith("PREFECT_LOGGING_LOGGERS_"):
                assert name in readers, f"nothing reads {name}"


def check_command(words: Sequence[str]) -> None:
    """Check that a command exists and takes its options; it is not run."""
    program, *arguments = words
    if program == "maskwheel":
        _check_ours(arguments)
    elif program == "prefect":
        from prefect.cli._app import _app

        _app.parse_args(arguments, exit_on_error=False, print_error=False)
    else:
        raise AssertionError(f"a command of neither Maskwheel nor Prefect: {words}")


def _check_ours(arguments: Sequence[str]) -> None:
    import click

    from flows.cli import cli

    outer = click.Context(cli, info_name="maskwheel")
    name, command, rest = cli.resolve_command(outer, list(arguments))
    assert command is not None, arguments
    command.make_context(name, rest, parent=outer)


@cache
def _prefect_variables() -> set[str]:
    from prefect.settings.models.root import Settings as PrefectSettings
    from prefect_redis.cleanup_queue import (  # type: ignore[import-untyped]
        RedisWorkerCleanupQueueSettings,
    )
    from prefect_redis.client import RedisMessagingSettings  # type: ignore[import-untyped]

    readers = (PrefectSettings, RedisMessagingSettings, RedisWorkerCleanupQueueSettings)
    return {name for reader in readers for name in _variables_of(reader)}


def _variables_of(model: Any) -> Iterator[str]:
    from pydantic import AliasChoices
    from pydantic_settings import BaseSettings

    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
            yield from _variables_of(field.annotation)
            continue
        yield f"{model.model_config['env_prefix']}{name}".upper()
        if isinstance(field.validation_alias, AliasChoices):
            yield from (
                one.upper() for one in field.validation_alias.choices if isinstance(one, str)
            )


def _project() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert isinstance(project, dict)
    return project


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _merge(base: Any, over: Any) -> Any:
    """Merge as Compose does: mappings key by key; commands and the like are replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        both = {**base, **over}
        return {key: _merge(base.get(key), both[key]) for key in both}
    return over


def _filled(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, environment) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, environment) for one in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if environment.get(name):
            return environment[name]
        assert kind == "-", f"{name} is not set: {rest}"
        return rest

    return _VARIABLE.sub(fill, value)
