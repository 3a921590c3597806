"""A real Chromium for tests: the distribution's, or Playwright's own.

    def test_the_page_opens(chromium: Browser) -> None:
        page = chromium.new_page()

Without one the tests are skipped, and say so. Nothing leaves the machine: Chromium's own traffic
is switched off and pages are served on loopback.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

__all__ = ["BUILT_PAGE", "chromium", "launched"]

BUILT_PAGE = Path(__file__).resolve().parents[1] / "engine/annotation/web/dist/index.html"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start the browser for the tests of a module; while it runs, asyncio.run does not work."""
    if not BUILT_PAGE.exists():
        pytest.skip("the annotation page is not built: run `make web`")
    with sync_playwright() as playwright:
        browser = launched(playwright)
        if browser is None:
            pytest.skip("no Chromium: install the distribution's, or `playwright install chromium`")
        yield browser
        browser.close()


def launched(playwright: Playwright) -> Browser | None:
    """Start the browser; None where there is none."""
    installed = next((path for name in _NAMES if (path := shutil.which(name))), None)
    executable = installed or playwright.chromium.executable_path
    if not Path(executable).exists():
        return None
    return playwright.chromium.launch(executable_path=executable, args=list(_ARGUMENTS))
