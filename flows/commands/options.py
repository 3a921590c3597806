"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])


def workspace_option(function: F) -> F:
    """Add ``--workspace``."""
    return click.option(
        "--workspace",
        "-w",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder of the data set.  [default: MASKWHEEL_WORKSPACE or ./maskwheel-data]",
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object, nothing else."
    )(function)


def workspace_path(given: Path | None) -> Path:
    """Return the workspace's folder: the option, the environment, or the default."""
    from engine.config import load_settings

    return load_settings(workspace=given).workspace


def print_json(values: Mapping[str, object]) -> None:
    """Print one JSON object for machines."""
    click.echo(json.dumps(values, indent=2, default=str))
