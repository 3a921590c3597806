"""The annotation page in a real browser, as a person uses it: mouse, keyboard, eyes.

with opened(chromium, service, "ada") as page:
    page.click_at(40, 30)           # pixels of the image
    page.press("Enter")
    page.state()["objects"]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from tests.annotation.service import Service

__all__ = ["AnnotationPage", "opened", "signed_in"]

PATIENCE_MS = 120_000


class AnnotationPage:
    """One tab with the editor."""

    def __init__(self, page: Page, name: str) -> None:
        self.page = page
        self.name = name

    def state(self) -> dict[str, Any]:
        """What the page says of itself: objects, what is in hand, what is on its way."""
        state: dict[str, Any] = self.page.evaluate("() => window.maskwheel.state()")
        return state

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the image lies in the window."""
        left, top = self.page.evaluate("([x, y]) => window.maskwheel.toScreen(x, y)", [x, y])
        return left, top

    def click_at(self, x: float, y: float, button: Any = "left") -> None:
        """Click on a point of the image, and wait for the model's answer."""
        self.page.mouse.move(*self.place(x, y))
        self.page.mouse.click(*self.place(x, y), button=button)
        self.settle()

    def drag(self, *points: tuple[float, float]) -> None:
        """Press at the first point of the image, move along the others, let go at the last."""
        self.page.mouse.move(*self.place(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.place(*point), steps=8)
        self.page.mouse.up()
        self.settle()

    def press(self, *keys: str) -> None:
        """Press keys one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def settle(self) -> None:
        """Wait until no answer is on its way."""
        self.wait("() => window.maskwheel.state().pending === 0")

    def wait(self, condition: str, value: Any = None) -> None:
        """Wait until a condition holds in the page."""
        self.page.wait_for_function(condition, arg=value, timeout=PATIENCE_MS)

    def find(self, testid: str) -> Locator:
        """Find an element by its test id."""
        return self.page.get_by_test_id(testid)

    def ready(self) -> None:
        """Wait for the editor; the first click waits for the model by itself."""
        self.find("canvas").wait_for(timeout=PATIENCE_MS)
        self.wait("() => window.maskwheel !== undefined")
        self.page.evaluate("() => window.maskwheel.setPreview(false)")

    def decoder_ready(self) -> None:
        """Wait until the page says how fast its decoder is."""
        self.wait("() => /\\d ms/.test(document.body.innerText)")

    def saved(self) -> None:
        """Wait until the page says that everything is saved."""
        self.wait(
            "() => document.querySelector('[data-testid=status]').innerText.includes('Saved')"
        )

    def submitted(self) -> None:
        """Hand the image in, and wait until the service has acknowledged it."""
        with self.page.expect_response(
            lambda answer: answer.url.endswith("/submit") and answer.ok, timeout=PATIENCE_MS
        ):
            self.find("submit").click()

    def away(self) -> None:
        """Take the pointer off the picture."""
        self.page.mouse.move(2, 2)

    def painted(self, height: int, width: int) -> NDArray[np.bool_]:
        """Return which pixels of the image the page shows as masked: (height, width).

        Two looks at the canvas, with masks and with masks hidden, at the centre of every pixel;
        so large that the lines around masks stay clear of the centres.
        """
        self.page.mouse.move(*self.place(width / 2, height / 2))
        self.press("+", "+", "+")
        self.away()
        shown = self._look()
        self.page.keyboard.down("h")
        self.page.wait_for_timeout(150)
        hidden = self._look()
        self.page.keyboard.up("h")
        changed = (np.abs(shown - hidden) > 2).any(axis=2)
        box = self.find("canvas").bounding_box()
        left, top = self.place(0, 0)
        scale = self.page.evaluate("() => window.maskwheel.viewport().scale")
        if scale < 7:
            raise RuntimeError(f"at {scale} to one the edges of masks hide their pixels")
        if box is None:
            raise RuntimeError("the canvas is not on the page")
        columns = np.round(left - box["x"] + (np.arange(width) + 0.5) * scale - 0.5).astype(int)
        rows = np.round(top - box["y"] + (np.arange(height) + 0.5) * scale - 0.5).astype(int)
        picked: NDArray[np.bool_] = changed[np.ix_(rows, columns)]
        return picked

    def _look(self) -> NDArray[np.int16]:
        picture = Image.open(BytesIO(self.find("canvas").screenshot())).convert("RGB")
        return np.asarray(picture, dtype=np.int16)


@contextmanager
def signed_in(chromium: Browser, service: Service, name: str) -> Iterator[BrowserContext]:
    """A browser profile of its own in which somebody has followed the invite link."""
    context = chromium.new_context(viewport={"width": 1900, "height": 1300})
    page = context.new_page()
    page.goto(service.links[name])
    page.wait_for_url(lambda url: "join" not in url, timeout=PATIENCE_MS)
    page.close()
    try:
        yield context
    finally:
        context.close()


@contextmanager
def opened(
    chromium: Browser,
    service: Service,
    name: str,
    *,
    decoder: str = "browser",
) -> Iterator[AnnotationPage]:
    """The editor of the service's campaign, ready for a click; errors of the page fail the test."""
    with signed_in(chromium, service, name) as context:
        page = context.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{service.url}/annotate/{service.campaign.campaign_id}?decoder={decoder}")
        editor = AnnotationPage(page, name)
        editor.ready()
        yield editor
        if errors:
            raise AssertionError(f"errors in the page: {errors}")
