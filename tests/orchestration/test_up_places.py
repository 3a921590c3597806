"""What `maskwheel up` writes down: its state, its lock, and where its Prefect server is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.settings.context import temporary_settings

from engine.errors import BadInputError
from flows.up.names import deployment_name
from flows.up.ports import free_port, name_of_host
from flows.up.prefect_server import ServerPlace, is_healthy, recorded_server
from flows.up.processes import ProcessId, process_id
from flows.up.state_file import (
    PartState,
    UpState,
    is_up,
    read_state,
    runs_once,
    write_state,
)
from flows.up.stopping import stop_up
from tests.prefect_server import PrefectServer

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
STATE = UpState(
    workspace="/data/birds",
    workspace_id="0" * 32,
    supervisor=ProcessId(1234, 1795309480.79),
    since=NOW,
    is_ready=True,
    deployment="birds-000000",
    server="own",
    api_url="http://127.0.0.1:4200/api",
    ui_url="http://127.0.0.1:4200",
    annotation_url="http://127.0.0.1:8765",
    parts=(
        PartState(name="worker-1", process=ProcessId(1235, 1795309490.5), since=NOW, restarts=2),
        PartState(name="annotation", process=None, since=NOW, restarts=1),
    ),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A PREFECT_HOME without a server, in a process that has none configured."""
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield tmp_path / "home"


def test_the_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    write_state(tmp_path, STATE)
    assert read_state(tmp_path) == STATE


@pytest.mark.parametrize("text", ["", "{}", '{"parts": 3}', "[]", '{"since": "yesterday"}'])
def test_a_state_of_another_version_is_none(tmp_path: Path, text: str) -> None:
    write_state(tmp_path, STATE)
    (tmp_path / "up" / "state.json").write_text(text)
    assert read_state(tmp_path) is None


def test_one_up_at_a_time_and_looking_does_not_stand_in_its_way(tmp_path: Path) -> None:
    assert not is_up(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with runs_once(tmp_path) as is_first:
        assert is_first
        assert is_up(tmp_path)
        with runs_once(tmp_path) as is_second:
            assert not is_second
        assert is_up(tmp_path)
    assert not is_up(tmp_path)


def test_where_nothing_runs_nothing_is_stopped(tmp_path: Path) -> None:
    assert stop_up(str(tmp_path / "nowhere"), now=False) == ()
    assert list(tmp_path.iterdir()) == []


def test_the_next_port_is_taken_only_where_none_was_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadInputError, match=f"port {port} is taken.*--prefect-port"):
            free_port("127.0.0.1", port, next_ports=0, option="--prefect-port")
        assert port < free_port("127.0.0.1", port, next_ports=50, option="--port") <= port + 50
    with pytest.raises(BadInputError, match="cannot listen on"):
        free_port("203.0.113.7", 0, next_ports=0, option="--port")


def test_a_browser_elsewhere_gets_a_name_that_leads_here() -> None:
    assert name_of_host("::") == socket.gethostname()
    assert name_of_host("::", local=True) == "127.0.0.1"
    assert name_of_host("::1") == "[::1]"


def test_the_first_runs_the_server_and_the_others_find_it(home: Path) -> None:
    assert recorded_server() is None
    with ServerPlace.find(host="127.0.0.1", port=0) as mine:
        assert mine.kind == "own"
        assert mine.api_url == f"{mine.ui_url}/api" == recorded_server()
        with ServerPlace.find(host="127.0.0.1", port=None) as shared:
            assert (shared.kind, shared.api_url) == ("shared", mine.api_url)
            assert not shared.take_over()
            with pytest.raises(BadInputError, match=r"runs at .* already"):
                ServerPlace.find(host="127.0.0.1", port=mine.port + 1)
            mine.close()
            assert shared.take_over()
            assert shared.kind == "own"
            assert recorded_server() == mine.api_url
    # The next one is where the last one was: links and settings still lead there.
    with ServerPlace.find(host="127.0.0.1", port=None) as again:
        assert again.api_url == mine.api_url


def test_a_workspace_keeps_the_name_that_it_got_and_one_called_alike_gets_another(
    tmp_path: Path,
) -> None:
    first, second = "90dd0d" + "0" * 26, "3fa92c" + "0" * 26
    assert deployment_name(tmp_path, "/data/Birds of 2026", first) == "birds-of-2026"
    assert deployment_name(tmp_path, "s3://team/birds of 2026", second) == "birds-of-2026-3fa92c"
    assert deployment_name(tmp_path, "/data/Birds of 2026", first) == "birds-of-2026"
    # Made again at the same place it goes on under its name, which the deployments there have.
    assert deployment_name(tmp_path, "/data/Birds of 2026", second) == "birds-of-2026"
    assert deployment_name(None, "/data/birds", first) == "birds-90dd0d"
    assert deployment_name(tmp_path, "/data/鳥", first) == "maskwheel"
    assert len(deployment_name(None, "/data/" + "x" * 200, first)) <= 63


def test_a_record_of_a_process_that_has_ended_leads_nowhere(home: Path) -> None:
    with ServerPlace.find(host="127.0.0.1", port=0):
        record = home / "maskwheel-server.json"
        me = process_id()
        assert me is not None
        record.write_text(record.read_text().replace(str(me.created), str(me.created - 100)))
        assert recorded_server() is None
        record.write_text("{")
        assert recorded_server() is None


def test_a_server_that_is_configured_is_used(home: Path, prefect_server: PrefectServer) -> None:
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        with ServerPlace.find(host="127.0.0.1", port=None) as place:
            assert (place.kind, place.api_url) == ("configured", prefect_server.api_url)
            assert place.ui_url == prefect_server.ui_url
        with pytest.raises(BadInputError, match="leave --prefect-port out"):
            ServerPlace.find(host="127.0.0.1", port=4211)
    assert is_healthy(prefect_server.api_url)
    assert recorded_server() is None


def test_a_server_that_is_configured_and_away_is_started_if_it_is_on_this_machine(
    home: Path,
) -> None:
    port = free_port("127.0.0.1", 0, next_ports=0, option="--port")
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"}),
        ServerPlace.find(host="127.0.0.1", port=None) as place,
    ):
        assert (place.kind, place.port) == ("own", port)
    with (
        temporary_settings({PREFECT_API_URL: "http://prefect.invalid:4200/api"}),
        pytest.raises(BadInputError, match=r"prefect\.invalid.*does not answer"),
    ):
        ServerPlace.find(host="127.0.0.1", port=None)
