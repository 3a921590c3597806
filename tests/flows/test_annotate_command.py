"""`maskwheel annotate` as a user runs it: one command, a link, Ctrl-C, and the same again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.images import encode_png
from tests.annotation.service import UNSAFE, scene
from tests.flows.terminal import Terminal

_END_SECONDS = 60


@contextmanager
def annotate(folder: Path, *arguments: str | Path) -> Iterator[dict[str, Any]]:
    """Run the command until the block ends, then press Ctrl-C."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MASKWHEEL")}
    errors = (folder / "stderr.txt").open("w+")
    command = ["from flows.cli import main; main()", "annotate", "--json", *map(str, arguments)]
    process = subprocess.Popen(
        [sys.executable, "-c", *command],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "stderr.txt").read_text()
        yield json.loads(line)
        process.send_signal(signal.SIGINT)
        assert process.wait(_END_SECONDS) == 0
    finally:
        process.kill()
        process.wait(_END_SECONDS)
        process.stdout.close()
        errors.close()


@contextmanager
def signed_in(said: dict[str, Any]) -> Iterator[httpx.Client]:
    token = said["admin_link"].partition("#token=")[2]
    with httpx.Client(base_url=said["url"], headers=UNSAFE, timeout=60) as client:
        assert client.post("/api/session", json={"token": token}).status_code == 200
        yield client


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(tmp_path / "workspace", capsys)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        (folder / f"{number}.png").write_bytes(encode_png(scene(number)))
    return folder


def test_the_demo_opens_a_campaign_with_one_command(tmp_path: Path) -> None:
    with annotate(tmp_path, "--demo", "--port", "0") as said, signed_in(said) as admin:
        (campaign,) = admin.get("/api/campaigns").json()
        assert campaign["name"] == "demo"
        assert campaign["images"] == said["images_added"] > 3
        lease = admin.post(f"/api/campaigns/{campaign['id']}/next").json()
        task = lease["task"]
        assert admin.get(task["image"]["pixels"]).status_code == 200
        decoder = admin.get(task["decoder"]).json()
        name = decoder["files"]["decode"]["name"]
        file = admin.get(f"/api/models/{decoder['model_id']}/{name}")
        assert len(file.content) == decoder["files"]["decode"]["bytes"]
        while (embedding := admin.get(task["image"]["embedding"])).status_code == 503:
            assert embedding.json()["code"] == "embedding_not_ready"
        assert embedding.status_code == 200
        click = {"kind": "point", "x": 50, "y": 50, "label": 1}
        answer = admin.post(
            f"/api/tasks/{task['id']}/decode",
            json={"prompts": [click]},
            headers={"X-Lease": lease["lease_id"]},
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.slow
def test_the_same_command_goes_on_with_the_same_link(tmp_path: Path) -> None:
    with annotate(tmp_path, "--demo", "--port", "0") as said, signed_in(said) as admin:
        (campaign,) = admin.get("/api/campaigns").json()
        assert "task" in admin.post(f"/api/campaigns/{campaign['id']}/next").json()
        # Without a port of its own it says where the service is that runs already, and ends.
        command = ["from flows.cli import main; main()", "annotate", "--json", "--demo"]
        done = subprocess.run(
            [sys.executable, "-c", *command], cwd=tmp_path, capture_output=True, check=True
        )
        assert json.loads(done.stdout) == {**said, "images_added": 0}
    with annotate(tmp_path, "--demo", "--port", "0") as again, signed_in(again) as admin:
        assert again["images_added"] == 0
        assert again["campaigns"] == said["campaigns"]
        # The link of yesterday still works.
        links = {one["admin_link"].partition("#")[2] for one in (said, again)}
        assert len(links) == 1
        (campaign,) = admin.get("/api/campaigns").json()
        assert campaign["tasks"]["leased"] == 1


def test_a_busy_port_takes_the_next_one_unless_it_was_asked_for(
    tmp_path: Path, photos: Path, terminal: Terminal
) -> None:
    from engine.annotation.http.serve import listen
    from engine.errors import BadInputError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        terminal("annotate", photos, "--port", str(port), code=3)
        assert f"port {port} is taken" in terminal.err
        assert "--port" in terminal.err
        assert not terminal.workspace.exists()
        with listen("127.0.0.1", port, next_ports=50) as listener:
            assert port < listener.port <= port + 50
        with pytest.raises(BadInputError, match="cannot listen on"):
            listen("203.0.113.7", 0)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["nowhere/"], 3, "does not exist"),
        ([], 3, "name photos, or try --demo"),
        (["--demo", "photos"], 2, "leave PHOTOS out"),
        (["--serve", "photos"], 2, "opens no campaign"),
        (["--serve", "--campaign", "birds"], 2, "opens no campaign"),
        (["photos", "--ssl-certfile", __file__], 2, "go together"),
        (["photos", "--port", "70000"], 2, "70000"),
        (["photos", "--model", "m9", "--port", "0"], 3, "unknown model 'm9'"),
        (["photos", "--public-url", "annotate.example", "--port", "0"], 3, "public address"),
        (["photos", "--instructions", "@nothing.txt", "--port", "0"], 3, "cannot be read"),
    ],
)
def test_what_cannot_be_served_is_told(
    terminal: Terminal,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    terminal("annotate", *arguments, code=code)
    assert complaint in terminal.err
