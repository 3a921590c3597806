"""Parts of `maskwheel up`, as real processes: kept alive, ended in order, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from flows.up.child import Kind
from flows.up.processes import (
    MARK,
    ProcessId,
    ask_to_end,
    end_processes,
    flow_run_processes,
    is_running,
    marked,
    process_id,
)
from flows.up.supervisor import PartEndedError, PartSpec, Supervisor

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE_SECONDS = 60

# Writes what it gets told, and goes on until it is told to end.
STEADY = """
import signal, sys, time
def end(*_):
    print("told to end", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("at work", flush=True)
while True:
    time.sleep(0.05)
"""
# A worker with a flow run in a process of its own.
WORKER = f"""
import os, subprocess, sys
run = subprocess.Popen(
    [sys.executable, "-c", {STEADY!r}], env={{**os.environ, "PREFECT__FLOW_RUN_ID": "run-1"}}
)
{STEADY}
"""
FAILING = "import sys; print('no database', flush=True); sys.exit(7)"


@pytest.fixture
def mark() -> Iterator[str]:
    mark = uuid.uuid4().hex
    yield mark
    end_processes(marked(mark), 0)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, text in [("steady", STEADY), ("worker", WORKER), ("failing", FAILING)]:
        (folder / f"{name}_part.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{ROOT}")
    return folder


def part(module: str, kind: Kind = "service", name: str = "part") -> PartSpec:
    return PartSpec(name=name, kind=kind, module=module, arguments=(), environment={})


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def never() -> bool:
    return False


def test_a_part_that_is_killed_is_started_again_and_that_is_said(
    tmp_path: Path, mark: str, modules: Path
) -> None:
    said: list[str] = []
    log = tmp_path / "logs" / "part.log"
    with Supervisor(log.parent, mark=mark, say=said.append) as parts:
        parts.start(part("steady_part"))
        wait_until(lambda: "at work" in log.read_text())
        (before,) = parts.states()
        assert before.process is not None
        os.kill(before.process.pid, signal.SIGKILL)
        wait_until(lambda: not is_running(before.process or ProcessId(0, 0)))

        def is_again() -> bool:
            parts.look()
            (now,) = parts.states()
            return now.restarts == 1 and now.process not in (None, before.process)

        wait_until(is_again)
        assert "killed by signal 9" in said[0]
        assert str(log) in said[0]
        parts.stop("service", never)
        assert parts.states() == ()
    assert not marked(mark)
    assert log.read_text().count("at work") >= 1


def test_what_fails_five_times_is_given_up_with_its_last_lines(
    tmp_path: Path, mark: str, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.up.supervisor._FIRST_PAUSE_SECONDS", 0.0)
    with Supervisor(tmp_path, mark=mark, say=lambda text: None) as parts:
        parts.start(part("failing_part"))

        def look() -> bool:
            parts.look()
            return False

        with pytest.raises(PartEndedError, match="code 7, 5 times in a row") as refused:
            wait_until(look)
    assert "  no database" in str(refused.value)
    assert (tmp_path / "part.log").read_text().count("no database") == 5


def test_a_worker_tells_its_flow_runs_before_it_ends(
    tmp_path: Path, mark: str, modules: Path
) -> None:
    log = tmp_path / "part.log"
    with Supervisor(tmp_path, mark=mark, say=lambda text: None) as parts:
        parts.start(part("worker_part", kind="worker"))
        wait_until(lambda: log.read_text().count("at work") == 2)
        (run,) = flow_run_processes(marked(mark)).items()
        assert run[0] == "run-1"
        worker = parts.states()[0].process
        assert worker is not None
        assert run[1].ppid() == worker.pid
        parts.stop("worker", never)
        assert not marked(mark)
    assert log.read_text().count("told to end") == 2


def test_parts_end_by_themselves_when_the_supervisor_is_killed(
    tmp_path: Path, mark: str, modules: Path
) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from flows.up.supervisor import PartSpec, Supervisor\n"
        f"parts = Supervisor(Path({str(tmp_path)!r}), mark={mark!r}, say=print)\n"
        "for name, kind in [('a', 'server'), ('b', 'service')]:\n"
        "    parts.start(PartSpec(name=name, kind=kind, module='steady_part', arguments=(),\n"
        "                         environment={}))\n"
        "time.sleep(600)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    wait_until(lambda: all(log.exists() and "at work" in log.read_text() for log in logs))
    supervisor.kill()
    supervisor.wait(_PATIENCE_SECONDS)
    wait_until(lambda: not marked(mark))
    assert all("told to end" in log.read_text() for log in logs)


def test_a_part_that_does_not_end_is_killed_when_it_is_urgent(
    tmp_path: Path, mark: str, modules: Path
) -> None:
    (modules / "deaf_part.py").write_text(
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('at work', flush=True)\n"
        "time.sleep(600)\n"
    )
    with Supervisor(tmp_path, mark=mark, say=lambda text: None) as parts:
        parts.start(part("deaf_part"))
        wait_until(lambda: "at work" in (tmp_path / "part.log").read_text())
        parts.stop("service", lambda: True)
        assert not marked(mark)


def test_a_log_that_has_grown_is_continued_in_a_new_file(tmp_path: Path, modules: Path) -> None:
    log = tmp_path / "part.log"
    (modules / "writer.py").write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from flows.up.child import rotate\n"
        "for number in range(5):\n"
        "    print('line', number, flush=True)\n"
        "    print('problem', number, file=sys.stderr, flush=True)\n"
        "    rotate(Path(sys.argv[1]))\n"
        "print('the end', flush=True)\n"
    )
    with log.open("ab") as out:
        done = subprocess.run(
            [sys.executable, "-m", "writer", str(log)], stdout=out, stderr=out, check=False
        )
    assert done.returncode == 0
    assert log.read_text() == "the end\n"
    assert (tmp_path / "part.log.1").read_text() == "line 4\nproblem 4\n"
    assert (tmp_path / "part.log.3").read_text() == "line 2\nproblem 2\n"
    assert len(list(tmp_path.glob("part.log*"))) == 4


def test_processes_of_others_are_left_alone(mark: str) -> None:
    environment = {**os.environ, MARK: "somebody-else"}
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, env=environment)
    try:
        mine = process_id(other.pid)
        assert mine is not None
        assert is_running(mine)
        assert marked(mark) == []
        assert end_processes(marked(mark), 0) == 0
        # A number that is used again belongs to a process that started at another time.
        reused = ProcessId(other.pid, mine.created - 100)
        assert not is_running(reused)
        ask_to_end(reused)
        assert other.poll() is None
        ask_to_end(mine)
        assert other.wait(_PATIENCE_SECONDS) == -signal.SIGTERM
        assert not is_running(mine)
        assert process_id(other.pid) is None
    finally:
        other.kill()
        other.communicate()


def test_what_a_flow_run_starts_is_not_taken_for_the_run(mark: str) -> None:
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    environment = {**os.environ, MARK: mark, "PREFECT__FLOW_RUN_ID": "run-7"}
    run = subprocess.Popen([sys.executable, "-c", inner], stdin=-1, env=environment)
    try:
        wait_until(lambda: len(psutil.Process(run.pid).children()) == 1)
        wait_until(lambda: len(marked(mark)) == 2)
        assert {name: one.pid for name, one in flow_run_processes(marked(mark)).items()} == {
            "run-7": run.pid
        }
    finally:
        end_processes(marked(mark), 0)
        run.communicate()
