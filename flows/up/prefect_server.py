"""Which Prefect server a workspace uses: the one that is configured, or one per PREFECT_HOME.

    with ServerPlace.find(port=None, host="127.0.0.1") as place:
        place.api_url, place.kind                  # "own": start it there

A server that PREFECT_API_URL or the active profile names is used, wherever it is. Otherwise each
PREFECT_HOME, which holds the server's database, has one: who comes first runs it, the others share
it, and one of them takes it over when the first one ends. Its address is written into the
PREFECT_HOME, so that other commands find it too.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from engine.closing import Closing
from engine.config import child_environment
from engine.errors import BadInputError, EngineError
from engine.files import write_atomically
from flows.up.ports import free_port, is_loopback, name_of_host
from flows.up.processes import ProcessId, is_running, process_id
from flows.up.state_file import ServerKind, held

__all__ = ["ServerPlace", "is_healthy", "prefect_home", "recorded_server"]


_RECORD, _LOCK = "maskwheel-server.json", "maskwheel-server.lock"
_PORT, _NEXT_PORTS = 4200, 20
_HEALTH_SECONDS = 2.0
_OTHERS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int

    @property
    def api_url(self) -> str:
        return f"http://{name_of_host(self.host, local=True)}:{self.port}/api"

    @property
    def ui_url(self) -> str:
        return f"http://{name_of_host(self.host)}:{self.port}"


class ServerPlace(Closing):
    """Where the server is, and whether it is ours to run.

    Attributes:
        kind: ``own``: start it; ``shared``: another `up` runs it; ``configured``: the user named
            it.
        api_url: for PREFECT_API_URL.
        ui_url: for browsers.
        host: to listen on, if it is ours to run.
        port: likewise.
    """

    def __init__(self, kind: ServerKind, api_url: str, ui_url: str) -> None:
        self.kind: ServerKind = kind
        self.api_url = api_url
        self.ui_url = ui_url
        parts = urlsplit(api_url)
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 80
        self._stack = ExitStack()

    @classmethod
    def find(cls, *, host: str, port: int | None) -> ServerPlace:
        """Decide which server is used.

        Args:
            host: to listen on, for a server of our own.
            port: likewise; None: the port of last time, else 4200, or the next that is free.

        Raises:
            BadInputError: the configured server does not answer, or a port that cannot be had.
        """
        configured = _configured()
        if configured is None:
            return cls._of_home(host, port)
        if port is not None:
            raise BadInputError(
                f"the Prefect settings name the server {configured.api_url}; leave --prefect-port "
                "out, or unset PREFECT_API_URL (`prefect config view` shows where it comes from)"
            )
        if is_healthy(configured.api_url):
            return _shared() if configured.api_url == recorded_server() else configured
        if not is_loopback(configured.host):
            raise BadInputError(
                f"the Prefect server {configured.api_url}, which the Prefect settings name, does "
                "not answer; start it, or unset PREFECT_API_URL for one on this machine"
            )
        # The address that `prefect server start` would use: the server there is ours to run.
        return cls._of_home(configured.host, configured.port)

    @classmethod
    def _of_home(cls, host: str, port: int | None) -> ServerPlace:
        home = prefect_home()
        with ExitStack() as stack:
            if not stack.enter_context(held(home / _LOCK)):
                return _shared(port)
            address = _Address(host, _choose_port(host, port, _read_record(home)))
            place = cls("own", address.api_url, address.ui_url)
            place.host, place._stack = host, stack.pop_all()
        _write_record(home, address)
        return place

    def take_over(self) -> bool:
        """Make a shared server ours, if the process that ran it has ended; return whether it is."""
        home = prefect_home()
        with ExitStack() as stack:
            if not stack.enter_context(held(home / _LOCK)):
                return False
            self._stack = stack.pop_all()
        record = _read_record(home)
        if record is not None:
            self.host = record.address.host
        self.kind = "own"
        _write_record(home, _Address(self.host, self.port))
        return True

    def close(self) -> None:
        """Let another `up` run the server; ours must have ended."""
        self._stack.close()


def is_healthy(api_url: str) -> bool:
    """Return whether a Prefect server, or an annotation service, says that it is well."""
    import httpx

    # A proxy that is set for the internet has nothing to do with this machine.
    is_far = not is_loopback(urlsplit(api_url).hostname)
    try:
        with httpx.Client(verify=_certificates(), trust_env=is_far) as client:
            return client.get(f"{api_url}/health", timeout=_HEALTH_SECONDS).is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


@cache
def _certificates() -> ssl.SSLContext:
    # Reading them takes longer than asking, and a server that starts is asked often.
    return ssl.create_default_context()


def recorded_server() -> str | None:
    """Return the address of the server that some `up` of this PREFECT_HOME runs; None: none."""
    record = _read_record(prefect_home())
    if record is None or not is_running(record.owner):
        return None
    return record.address.api_url


@dataclass(frozen=True, slots=True)
class _Record:
    address: _Address
    owner: ProcessId


def _shared(port: int | None = None) -> ServerPlace:
    """Return the server that another `up` runs.

    Raises:
        BadInputError: it is not at the port that is asked for.
    """
    home = prefect_home()
    address = _wait_for_record(home).address
    if port not in (None, address.port):
        raise BadInputError(
            f"the Prefect server of {home} runs at {address.api_url} already; leave --prefect-port "
            "out, or name another PREFECT_HOME"
        )
    return ServerPlace("shared", address.api_url, address.ui_url)


def _configured() -> ServerPlace | None:
    """Return the server that the environment, a profile or a settings file names."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    if settings.api.url is None:
        return None
    return ServerPlace(
        "configured", settings.api.url.rstrip("/"), settings.ui_url or settings.api.url
    )


def _choose_port(host: str, port: int | None, record: _Record | None) -> int:
    if port is not None:
        return free_port(host, port, next_ports=0, option="--prefect-port")
    first = _PORT
    if record is not None and record.address.host == host:
        first = record.address.port  # so that yesterday's links and settings still work
    return free_port(host, first, next_ports=_NEXT_PORTS, option="--prefect-port")


def prefect_home() -> Path:
    """Return the folder that holds the database of a server of our own."""
    return Path(child_environment({"PREFECT_HOME": "~/.prefect"})["PREFECT_HOME"]).expanduser()


def _write_record(home: Path, address: _Address) -> None:
    owner = process_id()
    fields = {"host": address.host, "port": address.port, "owner": None}
    if owner is not None:
        fields["owner"] = {"pid": owner.pid, "created": owner.created}
    write_atomically(home / _RECORD, json.dumps(fields, indent=2).encode())


def _read_record(home: Path) -> _Record | None:
    try:
        fields = json.loads((home / _RECORD).read_bytes())
        address = _Address(str(fields["host"]), int(fields["port"]))
        return _Record(address, ProcessId(**fields["owner"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it is a hint; without it the server gets the next free port


def _wait_for_record(home: Path, pause: Callable[[float], None] = time.sleep) -> _Record:
    """Wait for another `up` that has taken the lock, and writes its address in a moment."""
    deadline = time.monotonic() + _OTHERS_SECONDS
    while time.monotonic() < deadline:
        record = _read_record(home)
        if record is not None and is_running(record.owner):
            return record
        pause(0.2)
    raise EngineError(f"somebody starts a Prefect server in {home}, but does not say where")
