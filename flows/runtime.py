"""Prefect without a server started by hand, and without its chatter.

Where the user has configured a Prefect server, runs go there; else to that of `maskwheel up`, while
it runs. Otherwise nobody watches: `maskwheel auto` runs its flow's steps without Prefect, and for
what needs Prefect, several workers or `maskwheel run`, it starts a temporary server on loopback for
as long as the command runs; its database is the one that ``prefect server start`` shows.
"""

from __future__ import annotations

import logging
from pathlib import Path

from engine.config import child_environment, default_environment

_SERVER_SECONDS = "180"

LOGGING_ENVIRONMENT = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": "engine,flows,model",
    # Else a line for every task that says only that it ended; ours say what came of it.
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "WARNING",
    # The engine works outside of runs, too: what it logs there belongs to none.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
"""What every process that runs flows or tasks needs, so that a run's page tells its story."""


def prepare_prefect(*, verbose: bool) -> None:
    """Set Prefect's defaults before it is imported; what the user has set stays.

    Logs go to the Prefect UI in either case, the engine's too.

    Args:
        verbose: show them on the console as well.
    """
    from flows.up.prefect_server import recorded_server

    if (server := recorded_server()) is not None:
        default_environment({"PREFECT_API_URL": server})
    default_environment(
        {
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO" if verbose else "CRITICAL",
            **LOGGING_ENVIRONMENT,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": _SERVER_SECONDS,
            "PREFECT_CLI_PROMPT": "false",
            "DO_NOT_TRACK": "1",
        }
    )


def may_have_server() -> bool:
    """Return whether a Prefect server may be known; tells without importing Prefect.

    Where the environment names none, a profile or a settings file of the user's may, or
    `maskwheel up` runs one.
    """
    from flows.up.prefect_server import recorded_server

    if recorded_server() is not None:
        return True
    environment = child_environment()
    home = Path(environment.get("PREFECT_HOME", "~/.prefect")).expanduser()
    profiles = Path(environment.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    return "PREFECT_API_URL" in environment or profiles.exists() or Path("prefect.toml").exists()


def log_story() -> None:
    """Let what our packages log at INFO through, in this process; Prefect only attaches to them."""
    for name in ("engine", "flows", "model"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
