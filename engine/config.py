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

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from engine.errors import BadInputError

__all__ = [
    "Compile",
    "LogLevel",
    "Settings",
    "TaskRunnerName",
    "child_environment",
    "current_time",
    "default_environment",
    "load_settings",
]

Compile = Literal["off", "auto"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
TaskRunnerName = Literal["threads", "processes", "ray", "dask"]


class Settings(BaseSettings):
    """What a user may set for every command, by ``MASKWHEEL_<NAME>`` or by an option.

    Attributes:
        workspace: what holds the tables, the shards and the releases: a folder, or
            ``s3://bucket/prefix``.
        database_url: ``postgresql://user:password@host/name`` of the database that the catalog is
            in; None: a SQLite file.
        local_folder: where a workspace on S3 keeps what is of this machine only.
        max_image_pixels: larger images are skipped before they are decoded.
        max_image_bytes: larger files are skipped before they are read.
        images_per_shard: images that one task masks into one Parquet file; None: by the number of
            images, see `engine.dataset.runs.shard_size`.
        read_threads: files read at the same time while ingesting.
        task_runner: who makes the shards: ``threads`` of the flow's process, ``processes`` of this
            machine, one for each GPU, or a cluster of ``ray`` or ``dask``.
        workers: shards made at the same time; None: one in threads, one for each GPU or else for
            each core in processes, and what a cluster has room for.
        gpus_per_task: on a cluster, what a shard reserves; half a GPU lets two share it. None: one
            where the run uses GPUs.
        ray_address: ``ray://host:10001``, or ``host:6379`` of the head from a machine of the
            cluster; None: the cluster that this machine belongs to, or a new one on it.
        dask_address: ``tcp://host:8786`` of the scheduler; None: a new cluster on this machine.
        compile: ``auto`` compiles SAM's models on a GPU: minutes once, faster from then on; results
            differ in the last bits.
        log_level: what is written to the log.
        s3_endpoint: address of an S3 server other than AWS's, e.g. ``http://ceph.local:7480``;
            region and credentials come from the usual AWS places (AWS_REGION, AWS_PROFILE, ...).
        s3_addressing: whether a bucket is in an address's path or in its host's name; most servers
            other than AWS's want ``path``, which ``auto`` takes for them.
        annotation_host: what the annotation service listens on.
        annotation_port: likewise; the next free one is taken when it is busy.
        annotation_url: what people reach the annotation service by, where links are made by other
            machines than the one that it runs on.
        annotation_lease_seconds: a page that is silent for so long loses its task to others.
    """

    model_config = SettingsConfigDict(env_prefix="MASKWHEEL_", frozen=True, extra="ignore")

    workspace: str = "maskwheel-data"
    database_url: SecretStr | None = None
    local_folder: Path = Path("~/.local/share/maskwheel")
    max_image_pixels: int = Field(default=200_000_000, gt=0)
    max_image_bytes: int = Field(default=512 * 1024 * 1024, gt=0)
    images_per_shard: int | None = Field(default=None, gt=0)
    read_threads: int = Field(default=8, gt=0, le=256)
    task_runner: TaskRunnerName = "threads"
    workers: int | None = Field(default=None, gt=0)
    gpus_per_task: float | None = Field(default=None, gt=0)
    ray_address: str | None = None
    dask_address: str | None = None
    compile: Compile = "off"
    log_level: LogLevel = "INFO"
    s3_endpoint: str | None = Field(default=None, pattern=r"^https?://[^/\s]+")
    s3_addressing: Literal["auto", "path", "virtual"] = "auto"
    annotation_host: str = "127.0.0.1"
    annotation_port: int = Field(default=8765, ge=0, le=65_535)
    annotation_url: str | None = Field(default=None, pattern=r"^https?://[^/\s]+")
    annotation_lease_seconds: int = Field(default=120, ge=10, le=86_400)


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


def child_environment(
    defaults: Mapping[str, str] | None = None, fixed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the environment for a child process.

    Args:
        defaults: what holds where this process's environment says nothing.
        fixed: what holds whatever it says.
    """
    return {**(defaults or {}), **os.environ, **(fixed or {})}


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
