"""What infra/compose.yaml wires, run without containers: the same commands, variables and checks.

    with run_stack(tmp_path) as stack:
        stack.run("worker-control", ["maskwheel", "releases", "list", "--json"])

Names of services become ports on loopback, ``/data`` a folder for each service. PostgreSQL and the
S3 store are real servers of other makes than the containers'.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.infra.infra_files import INFRA, ROOT, compose, example_environment, image_environment
from tests.prefect_server import QUIET, free_port
from tests.servers import run_moto

__all__ = ["ComposeStack", "run_stack"]

_NOBODY = 65534
_WELL_SECONDS = 180
_STOP_SECONDS = 40
_PROGRAMS = {
    "python": [sys.executable],
    "maskwheel": [sys.executable, "-m", "flows.cli"],
    "prefect": [sys.executable, "-m", "prefect"],
}


class ComposeStack:
    """Services of the Compose file, as processes; made by `run_stack`.

    Attributes:
        folder: a folder below it for each service, which is its ``/data``.
        ports: by the address in the file, ``postgres:5432``.
    """

    def __init__(self, folder: Path, services: Mapping[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.services = services
        self.ports = {
            name: free_port()
            for name in ("postgres:5432", "s3:8333", "prefect-server:4200", "annotation:8765")
        }
        self._processes: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._health_ports: dict[str, int] = {}

    def environment(self, name: str) -> dict[str, str]:
        """Return what a service's process is given: the image's variables, then the file's."""
        given = {
            **{key: value for key, value in os.environ.items() if key in ("PATH", "LANG")},
            **image_environment(),
            **self.services[name].get("environment", {}),
        }
        given.pop("PATH")
        moved = {key: self._moved(name, str(value)) for key, value in given.items()}
        return {
            "PATH": os.environ["PATH"],
            **moved,
            # Of this machine: the sources, one port for each worker's health, and no proxies.
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "PREFECT_WORKER_WEBSERVER_PORT": str(self._health_port(name)),
            "AWS_EC2_METADATA_DISABLED": "true",
            **{key: QUIET[key] for key in ("NO_PROXY", "PREFECT_CLI_PROMPT")},
        }

    def command(self, name: str, words: Sequence[str]) -> list[str]:
        """Return a command as this machine runs it for a service."""
        program, *arguments = words
        return [*_PROGRAMS[program], *(self._moved(name, word) for word in arguments)]

    def start(self, name: str) -> None:
        """Start a service; `wait_until_well` says when it is there."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(
            self.command(name, self.services[name]["command"]),
            cwd=home,
            env=self.environment(name),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._processes[name] = (process, log)

    def wait_until_well(self, name: str) -> None:
        """Ask as the file's health check asks, until the answer is yes."""
        check = self.services[name]["healthcheck"]["test"]
        words = self.command(name, check[1:])
        deadline = time.monotonic() + _WELL_SECONDS
        while time.monotonic() < deadline:
            assert self._processes[name][0].poll() is None, self.log(name)
            done = subprocess.run(
                words, env=self.environment(name), capture_output=True, check=False
            )
            if done.returncode == 0:
                return
        raise AssertionError(f"{name} did not become well: {self.log(name)}")

    def run(self, name: str, words: Sequence[str]) -> str:
        """Run a command beside a service, as ``docker compose exec`` does; return what it says."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        done = subprocess.run(
            self.command(name, words),
            cwd=home,
            env=self.environment(name),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def run_json(self, name: str, words: Sequence[str]) -> dict[str, Any]:
        """Run a command that prints JSON."""
        found = json.loads(self.run(name, [*words, "--json"]))
        assert isinstance(found, dict)
        return found

    def log(self, name: str) -> str:
        """Return what a service has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        """Stop all services as Compose does: a word first, force for those that do not listen."""
        for process, _ in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
        for process, log in self._processes.values():
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()

    def _health_port(self, name: str) -> int:
        return self._health_ports.setdefault(name, free_port())

    def _moved(self, name: str, text: str) -> str:
        for address, port in self.ports.items():
            host, _, number = address.partition(":")
            text = text.replace(address, f"127.0.0.1:{port}")
            if host == name:
                text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{port}")
                text = text.replace(f"localhost:{number}", f"localhost:{port}")
                text = str(port) if text == number else text
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{self._health_port(name)}")
        if text.startswith(("/data", "/tmp/")):  # noqa: S108  (the image's own)
            text = f"{self.folder / name}{text.removeprefix('/data')}"
        return "127.0.0.1" if text == "0.0.0.0" else text  # noqa: S104


@contextmanager
def run_stack(folder: Path) -> Iterator[ComposeStack]:
    """Run PostgreSQL and the S3 store as the file sets them up, and the services that it starts."""
    environment = example_environment()
    stack = ComposeStack(folder, compose("compose.yaml", environment=environment)["services"])
    with ExitStack() as running:
        running.enter_context(_postgres(stack))
        server = running.enter_context(run_moto())
        stack.ports["s3:8333"] = int(server.endpoint.rpartition(":")[2])
        running.callback(stack.stop)
        yield stack


@contextmanager
def _postgres(stack: ComposeStack) -> Iterator[None]:
    """What the image of PostgreSQL does at its first start, with its variables."""
    programs = _postgres_programs()
    variables = stack.services["postgres"]["environment"]
    user, password = variables["POSTGRES_USER"], variables["POSTGRES_PASSWORD"]
    port = str(stack.ports["postgres:5432"])
    home = stack.folder / "postgres"
    home.mkdir()
    (home / "password").write_text(password)
    owner = _NOBODY if os.geteuid() == 0 else None
    if owner is not None:
        for path in (home, home / "password"):
            os.chown(path, owner, owner)
        _let_others_pass(home)
    as_owner: dict[str, Any] = {"user": owner, "group": owner, "cwd": "/"}
    initdb = [
        *(str(programs / "initdb"), "-D", str(home / "data"), "-U", user, "-E", "UTF8"),
        *("-A", "scram-sha-256", "--pwfile", str(home / "password"), "--no-sync"),
    ]
    subprocess.run(initdb, check=True, capture_output=True, **as_owner)
    options = ["-p", port, "-h", "127.0.0.1", "-k", str(home), "-c", "fsync=off"]
    with (stack.folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(
            [str(programs / "postgres"), "-D", str(home / "data"), *options],
            stdout=log,
            stderr=log,
            **as_owner,
        )
    try:
        address = f"postgresql://{user}:{password}@127.0.0.1:{port}"
        _wait_for_postgres(programs, port, process)
        _execute(f"{address}/postgres", f"CREATE DATABASE {variables['POSTGRES_DB']}")
        _execute(f"{address}/postgres", (INFRA / "postgres" / "databases.sql").read_text())
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(timeout=60)


def _postgres_programs() -> Path:
    """Prefect's tables need the extension pg_trgm, which the server on PyPI lacks."""
    on_path = shutil.which("postgres")
    found = [Path(on_path).parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for programs in found:
        share = Path("/usr/share/postgresql") / programs.parent.name
        if (share / "extension" / "pg_trgm.control").is_file():
            return programs
    pytest.skip("no PostgreSQL with its extensions: apt-get install postgresql")


def _let_others_pass(folder: Path) -> None:
    """pytest's folders are its user's alone; the server's user has to get to its own."""
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path(parent.anchor):
            parent.chmod(parent.stat().st_mode | 0o011)


def _wait_for_postgres(programs: Path, port: str, process: subprocess.Popen[bytes]) -> None:
    ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", port, "-t", "1"]
    for _ in range(120):
        if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
            return
        try:
            process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            continue
        break
    raise AssertionError("PostgreSQL did not start; see postgres.log")


def _execute(address: str, script: str) -> None:
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(script.encode())
