"""Options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])


def workspace_option(function: F) -> F:
    """Add ``--workspace``."""
    return click.option(
        "--workspace",
        "-w",
        metavar="FOLDER|s3://BUCKET/PREFIX",
        help="Folder of the data set, or s3://bucket/prefix.  [default: MASKWHEEL_WORKSPACE or "
        "./maskwheel-data]",
    )(function)


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object, nothing else."
    )(function)


def workspace_address(given: str | None) -> str:
    """Return the workspace's address: the option, the environment, or the default."""
    from engine.config import load_settings

    return load_settings(workspace=given).workspace


def print_json(values: Mapping[str, object]) -> None:
    """Print one JSON object for machines."""
    click.echo(json.dumps(values, indent=2, default=str))
