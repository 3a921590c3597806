"""Prefect without a server started by hand, and without its chatter.

Where the user has configured a Prefect server, runs go there. Otherwise Prefect starts a temporary
one on loopback for as long as the command runs; its database is the one that ``prefect server
start`` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from engine.config import default_environment

_SERVER_SECONDS = "180"


def prepare_prefect(log_level: str = "WARNING") -> None:
    """Set Prefect's defaults before it is imported; what the user has set stays.

    Args:
        log_level: of Prefect's own loggers and of flow runs, on the console.
    """
    default_environment(
        {
            "PREFECT_LOGGING_LEVEL": log_level,
            "PREFECT_LOGGING_SERVER_LEVEL": "ERROR",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": _SERVER_SECONDS,
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
        }
    )


@contextmanager
def tagged(*names: str) -> Iterator[None]:
    """Tag the flow runs that start inside the block."""
    from prefect import tags

    with tags(*names):
        yield
