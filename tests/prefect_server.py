"""A real Prefect server in a process of its own, for tests.

    with run_prefect_server(tmp_path) as server:
        subprocess.run([...], env={**os.environ, **server.environment()})
        server.kill()
        server.restart()                            # the same port, the same database

All services run (scheduler, triggers, automations), the slow ones at shorter intervals than a
server has by default, so that a test waits for what it asks and not for the next look.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

__all__ = ["PrefectServer", "free_port", "run_prefect_server"]

_SERVER_SECONDS = 180
_LAST_LINES = 30

# Prefect without what leaves the machine, or asks.
QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "DO_NOT_TRACK": "1",
    "NO_PROXY": "127.0.0.1,localhost",
}
# How often the server's services look, in seconds; the defaults are 60, 5, 5, 5, 15 and 5.
_QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
    "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "2",
    "PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY": "PT1S",
    "PREFECT_SERVER_SERVICES_FOREMAN_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
}


class PrefectServer:
    """A running server; made by `run_prefect_server`.

    Attributes:
        home: its PREFECT_HOME: the database, and ``server.log``.
        port: the port on loopback, the same after a restart.
    """

    def __init__(self, home: Path, port: int, environment: Mapping[str, str], *, ui: bool) -> None:
        self.home = home
        self.port = port
        self._environment = dict(environment)
        self._ui = ui
        self._log: IO[str] | None = None
        self._process: subprocess.Popen[str] | None = None

    @property
    def api_url(self) -> str:
        """The address for PREFECT_API_URL."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui_url(self) -> str:
        """The address of the pages; only a server started with ``ui=True`` has them."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process of the server: there is one."""
        return self._running().pid

    def environment(self) -> dict[str, str]:
        """Return the variables that lead a client process to this server."""
        return {**QUIET, "PREFECT_HOME": str(self.home), "PREFECT_API_URL": self.api_url}

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            RuntimeError: it ended; the message has its last lines.
            TimeoutError: it did not answer.
        """
        self._log = (self.home / "server.log").open("a")
        ui = "--ui" if self._ui else "--no-ui"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port), ui],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            text=True,
        )
        self._wait_until_healthy()

    def stop(self) -> None:
        """End the server the gentle way; by force if that takes too long."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._forget()

    def kill(self) -> None:
        """End the server without a warning, as a power cut does."""
        self._running().kill()
        self._forget()

    def restart(self) -> None:
        """Start again on the same port and database; ends the server first if it still runs."""
        self.stop()
        self.start()

    def last_lines(self) -> str:
        """Return the end of the server's log."""
        return "\n".join((self.home / "server.log").read_text().splitlines()[-_LAST_LINES:])

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the Prefect server does not run")
        return self._process

    def _forget(self) -> None:
        if self._process is not None:
            self._process.wait(30)
        if self._log is not None:
            self._log.close()
        self._process = self._log = None

    def _wait_until_healthy(self) -> None:
        deadline = time.monotonic() + _SERVER_SECONDS
        while time.monotonic() < deadline:
            if self._running().poll() is not None:
                raise RuntimeError(f"the Prefect server ended:\n{self.last_lines()}")
            if _answers(f"{self.api_url}/health"):
                return
            time.sleep(0.2)
        raise TimeoutError(
            f"the Prefect server did not answer within {_SERVER_SECONDS} s:\n{self.last_lines()}"
        )


@contextmanager
def run_prefect_server(
    home: Path,
    *,
    ui: bool = False,
    database_url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[PrefectServer]:
    """Run a server until the block ends.

    Args:
        home: a folder of its own.
        ui: serve the pages too.
        database_url: ``sqlite+aiosqlite://`` or ``postgresql+asyncpg://``; by default SQLite in
            `home`.
        environment: further variables of the server's process; they win over the short intervals.
    """
    home.mkdir(parents=True, exist_ok=True)
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MASKWHEEL"))}
    # Else its pages ask on Prefect's usual port, and not the server that they come from.
    variables |= {**QUIET, **_QUICK, "PREFECT_HOME": str(home), "PREFECT_UI_API_URL": "/api"}
    if database_url is not None:
        variables["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database_url
    server = PrefectServer(home, free_port(), {**variables, **(environment or {})}, ui=ui)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """Return a port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - loopback
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
