"""Settings: the one place that reads the environment (``MASKWHEEL_*``).

    settings = load_settings()             # defaults < environment < keyword arguments
    settings = load_settings(workspace="/data/birds")

Options of one stage (`AutomaticConfig` and the like) live beside their owner, not here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.errors import BadInputError

__all__ = ["LogLevel", "Settings", "current_time", "default_environment", "load_settings"]

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class Settings(BaseSettings):
    """What a user may set for every command, by ``MASKWHEEL_<NAME>`` or by an option.

    Attributes:
        workspace: the folder that holds the catalog, the shards and the releases.
        max_image_pixels: larger images are skipped before they are decoded.
        max_image_bytes: larger files are skipped before they are read.
        images_per_shard: images that one task masks into one Parquet file; None: by the number of
            images, see `engine.dataset.runs.shard_size`.
        read_threads: files read at the same time while ingesting.
        log_level: what is written to the log.
    """

    model_config = SettingsConfigDict(env_prefix="MASKWHEEL_", frozen=True, extra="ignore")

    workspace: Path = Path("maskwheel-data")
    max_image_pixels: int = Field(default=200_000_000, gt=0)
    max_image_bytes: int = Field(default=512 * 1024 * 1024, gt=0)
    images_per_shard: int | None = Field(default=None, gt=0)
    read_threads: int = Field(default=8, gt=0, le=256)
    log_level: LogLevel = "INFO"


def current_time() -> datetime:
    """Return the time that goes into records, UTC.

    SOURCE_DATE_EPOCH (seconds since 1970; see reproducible-builds.org) fixes it, so that a data set
    can be made again byte for byte.

    Raises:
        BadInputError: SOURCE_DATE_EPOCH is set to something else.
    """
    fixed = os.environ.get("SOURCE_DATE_EPOCH")
    if fixed is None:
        return datetime.now(UTC)
    try:
        return datetime.fromtimestamp(int(fixed), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInputError(f"SOURCE_DATE_EPOCH must be whole seconds; got {fixed!r}") from error


def default_environment(defaults: Mapping[str, str]) -> None:
    """Set environment variables, for libraries and child processes, that are not set yet."""
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def load_settings(**overrides: object) -> Settings:
    """Read the settings: defaults, then the environment, then `overrides` that are not None.

    Raises:
        BadInputError: a value that does not fit, with the name of the variable that set it.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(set(given) - set(Settings.model_fields))
    if unknown:
        raise BadInputError(
            f"unknown settings {unknown}; expected some of {sorted(Settings.model_fields)}"
        )
    try:
        return Settings(**given)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        problems = "; ".join(
            f"{_origin(str(item['loc'][0]), given)}: got {item['input']!r}, {item['msg']}"
            for item in error.errors()
        )
        raise BadInputError(f"settings that cannot be used: {problems}") from error


def _origin(name: str, given: dict[str, object]) -> str:
    return name if name in given else f"MASKWHEEL_{name.upper()}"
