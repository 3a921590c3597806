"""The page's decoder in a real browser, on a page of its own: engine/annotation/web/bench.

    with click_page(site) as page:
        one, _ = page.start(kind="ours", folder="model", width=640, height=480, threads=2)
        click = page.click(one, Clicks(points=((320, 240, 1),)))
        click.masks[0], click.milliseconds

`site` is a folder that `build_click_page` wrote the page to, with a folder for each model.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from playwright.sync_api import Page, sync_playwright

from engine.records import Rle
from tests.browser import launched

WEB = Path(__file__).parents[1] / "engine" / "annotation" / "web"
_ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm"}
_PATIENCE_MS = 600_000


class MissingToolError(Exception):
    """Node, the page's packages or Chromium are not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicks:
    """A prompt as the page takes it, in pixels of the image.

    Attributes:
        points: (x, y, label) each.
        box: XYXY.
        after: go on from this candidate of the answer before.
    """

    points: tuple[tuple[float, float, int], ...] = ()
    box: tuple[float, float, float, float] | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clicked:
    """The page's answer.

    Attributes:
        masks: in the order in which they are offered.
        milliseconds: from the request to the masks.
        processor_ms: of all threads of the page.
    """

    masks: list[Rle]
    milliseconds: float
    processor_ms: float


def build_click_page(folder: Path) -> None:
    """Build the page into a folder, which is emptied.

    Raises:
        MissingToolError: no Node, or the page's packages are not installed.
    """
    node = shutil.which("node")
    vite = WEB / "node_modules" / "vite" / "bin" / "vite.js"
    if node is None or not vite.exists():
        raise MissingToolError("needs Node and the page's packages: run `make web`")
    config = "bench/vite.config.ts"
    command = [node, str(vite), "build", "--config", config, "--outDir", str(folder)]
    subprocess.run(command, check=True, cwd=WEB, capture_output=True)


class _Handler(http.server.SimpleHTTPRequestHandler):
    headers_sent: ClassVar[dict[str, str]] = {}

    def end_headers(self) -> None:
        for name, value in self.headers_sent.items():
            self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        """Know the types that the machine's own table may lack."""
        return _TYPES.get(Path(path).suffix) or super().guess_type(path)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class _IsolatedHandler(_Handler):
    headers_sent: ClassVar[dict[str, str]] = _ISOLATED


@contextmanager
def _served(folder: Path, *, isolated: bool) -> Iterator[str]:
    handler = functools.partial(
        _IsolatedHandler if isolated else _Handler, directory=os.fspath(folder)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def click_page(site: Path, *, isolated: bool = True) -> Iterator[ClickPage]:
    """Open the page in a fresh browser.

    Args:
        site: where the page was built.
        isolated: serve it with the headers that let wasm have threads.

    Raises:
        MissingToolError: no Chromium on PATH.
    """
    with _served(site, isolated=isolated) as address, sync_playwright() as playwright:
        browser = launched(playwright)
        if browser is None:
            raise MissingToolError("needs Chromium: install the distribution's")
        try:
            page = browser.new_page()
            page.set_default_timeout(_PATIENCE_MS)
            page.goto(f"{address}/index.html")
            yield ClickPage(page, address)
        finally:
            browser.close()


class ClickPage:
    """An open page; decoders are numbered as they were started."""

    def __init__(self, page: Page, address: str) -> None:
        self._page = page
        self._address = address
        self._started = 0
        self._renderers: list[int] = []

    def fact(self, name: str) -> Any:  # whatever JSON the page has
        """Read a property of the page's `bench`."""
        return self._page.evaluate(f"bench.{name}")

    def start(
        self, *, kind: str, folder: str, width: int, height: int, threads: int
    ) -> tuple[int, float]:
        """Start a decoder: ours, public or public-low-res; returns its number and milliseconds."""
        contestant = {
            "kind": kind,
            "base": f"{self._address}/{folder}/",
            "width": width,
            "height": height,
            "threads": threads,
        }
        milliseconds = float(self._page.evaluate("c => bench.open(c)", contestant))
        self._started += 1
        self._renderers = _renderers()
        return self._started - 1, milliseconds

    def click(self, decoder: int, clicks: Clicks) -> Clicked:
        """Let a decoder answer."""
        prompts = {
            "points": [{"x": x, "y": y, "label": label} for x, y, label in clicks.points],
            "box": clicks.box,
            "after": clicks.after,
        }
        before = _processor_ms(self._renderers)
        answer = self._page.evaluate("([i, p]) => bench.click(i, p)", [decoder, prompts])
        return Clicked(
            masks=[
                Rle(height=rle["size"][0], width=rle["size"][1], counts=rle["counts"])
                for rle in answer["rles"]
            ],
            milliseconds=float(answer["ms"]),
            processor_ms=_processor_ms(self._renderers) - before,
        )


def _renderers() -> list[int]:
    """Return the processes of ours in which pages run."""
    parents: dict[int, int] = {}
    renderers = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text()
            parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
            if b"--type=renderer" in (folder / "cmdline").read_bytes():
                renderers.append(int(folder.name))
    return [pid for pid in renderers if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


def _processor_ms(pids: list[int]) -> float:
    """Return how long all threads of processes ran so far; what others run does not count."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e6
