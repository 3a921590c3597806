"""What the tests of the orchestration share: a real Prefect server with all its services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_UI_URL
from prefect.settings.context import temporary_settings

from tests.prefect_server import PrefectServer, run_prefect_server

T = TypeVar("T")

_PATIENCE_SECONDS = 90
_LOOK_SECONDS = 0.2


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Return a server that all tests share: name what you make after your test.

    Give `PrefectServer.environment` to child processes; for Prefect in the test's own process there
    is the fixture ``prefect_client``.
    """
    with run_prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture
def prefect_client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Return a client of the server, to which this process's Prefect talks in the meantime."""
    with connected(prefect_server), get_client(sync_client=True) as client:
        yield client


@contextmanager
def connected(server: PrefectServer) -> Iterator[None]:
    """Let this process's Prefect talk to a server inside the block."""
    settings = {
        PREFECT_API_URL: server.api_url,
        PREFECT_UI_URL: server.ui_url,
        PREFECT_HOME: str(server.home),
    }
    with pytest.MonkeyPatch.context() as environment, temporary_settings(settings):
        for name, value in server.environment().items():
            environment.setenv(name, value)
        yield


def newest_artifact(client: SyncPrefectClient, key: str) -> Artifact:
    """Return the newest artifact of a key: other tests' stay on the server that all share."""
    found = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
    return max(found, key=lambda artifact: str(artifact.created))


def wait_for(look: Callable[[], T | None], what: str, seconds: float = _PATIENCE_SECONDS) -> T:
    """Return the first thing that is found (not None, not empty), or fail with what was missed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(_LOOK_SECONDS)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")
