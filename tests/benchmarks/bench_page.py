"""From the click to the mask on the screen: the annotation page in Chromium, as people see it.

    python -m tests.benchmarks.bench_page [--clicks 30] [--decoder browser]

The real service with the bundled model, a sample photo, one click a second at random places; each
mask is kept before the next. Time runs from the pointer's release to the frame that shows the mask.
Needs the page (`make web`) and Chromium, which draws without a GPU here.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import sync_playwright

from engine.dataset.demo_photos import demo_photos
from engine.images import probe_image
from tests.annotation.annotation_page import AnnotationPage, opened
from tests.annotation.service import running_service
from tests.browser import launched


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=30)
    parser.add_argument("--decoder", choices=("browser", "server"), default="browser")
    parser.add_argument("--photo", default="china", help="of the sample photos")
    options = parser.parse_args()
    photo = next(file for file in demo_photos() if options.photo in file.name).read_bytes()
    size = probe_image(photo)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), model="bundled", images=[photo]) as service,
        sync_playwright() as playwright,
    ):
        browser = launched(playwright)
        if browser is None:
            raise SystemExit("no Chromium on this machine")
        with opened(browser, service, "ada", decoder=options.decoder) as page:
            if options.decoder == "browser":
                page.decoder_ready()
            page.page.wait_for_timeout(5000)
            times = clicked(page, options.clicks, size.width, size.height)
        browser.close()
    ordered = sorted(times)
    print(
        f"{size.width}x{size.height}, {options.decoder}: {len(times)} clicks, median "
        f"{median(times):.0f} ms, p95 {ordered[int(0.95 * len(ordered))]:.0f} ms, "
        f"first {times[0]:.0f} ms"
    )


def clicked(page: AnnotationPage, clicks: int, width: int, height: int) -> list[float]:
    """Click at random places, a second apart, and return the milliseconds of each."""
    chance = random.Random(0)  # noqa: S311
    times = []
    for _ in range(clicks):
        page.click_at(chance.uniform(0, width), chance.uniform(0, height))
        page.page.wait_for_timeout(600)
        times.append(page.page.evaluate("() => window.maskwheel.lastClickMs()"))
        page.press("Enter")
        page.page.wait_for_timeout(400)
    return times


if __name__ == "__main__":
    main()
