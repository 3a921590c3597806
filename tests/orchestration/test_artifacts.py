"""What runs leave in the Prefect UI, on a real server, and in a real browser."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Dialog, Page, sync_playwright
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES
from prefect.settings.context import temporary_settings

from engine.dataset.catalog import Workspace
from engine.dataset.runs import load_run, run_statuses
from engine.records import AutomaticOutcome, ShardOutcome, SkippedImage
from flows.artifacts.automatic import show_outcome
from flows.artifacts.links import show_link
from flows.artifacts.pages import MAX_PAGE_BYTES, show_page
from flows.artifacts.progress import Progress
from flows.artifacts.tables import MAX_ROWS, show_table
from flows.artifacts.texts import Cell
from flows.naming import describe_run
from tests.browser import launched
from tests.orchestration.conftest import newest_artifact
from tests.prefect_server import PrefectServer, free_port, run_prefect_server
from tests.quality.release_builders import random_rectangles, release_of, write_photos

HOSTILE = "<img src=x onerror=alert(1)>|[a](http://evil.example) *b*.jpg"


def bar_of(client: SyncPrefectClient, run_id: str) -> Artifact:
    """The one progress artifact of a flow run."""
    runs = FlowRunFilter.model_validate({"id": {"any_": [run_id]}})
    found = client.read_artifacts(flow_run_filter=runs)
    [bar] = [artifact for artifact in found if artifact.type == "progress"]
    return bar


class HandClock:
    """A clock that only the test moves, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_table_of_ten_thousand_rows_shows_the_first_and_says_where_the_rest_is(
    prefect_client: SyncPrefectClient,
) -> None:
    @flow
    def show() -> None:
        rows: list[dict[str, Cell]] = [
            {"photo": f"{i}.jpg", "masks": 1000 + i, "share": i / 3} for i in range(10_000)
        ]
        show_table("ten thousand", rows, "All photos", rest="all in the report")

    show()
    table = newest_artifact(prefect_client, "ten-thousand")
    rows = json.loads(str(table.data))
    assert len(rows) == MAX_ROWS
    assert rows[1] == {"photo": "1.jpg", "masks": "1,001", "share": "0.333"}
    assert table.description == "All photos. The first 200 of 10,000 rows; all in the report"


def test_an_empty_table_is_a_table(prefect_client: SyncPrefectClient) -> None:
    @flow
    def show() -> None:
        show_table("no-rows", [], "Nothing was skipped")

    show()
    assert json.loads(str(newest_artifact(prefect_client, "no-rows").data)) == []


def test_a_page_is_cut_at_what_the_server_should_hold(
    prefect_client: SyncPrefectClient, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def show() -> None:
        show_page("endless", "é" * MAX_PAGE_BYTES)

    show()
    page = str(newest_artifact(prefect_client, "endless").data)
    assert len(page.encode()) < MAX_PAGE_BYTES + 100
    assert page.endswith("*cut off here*\n")
    assert "is cut at" in caplog.text


def test_progress_says_counts_and_ends_at_all(prefect_client: SyncPrefectClient) -> None:
    @flow
    def work() -> str:
        with Progress(3, "masking <r1>") as progress:
            for _ in range(3):
                progress.advance(note="1,204 masks")
        return str(flow_run.id)

    bar = bar_of(prefect_client, work())
    assert bar.data == 100
    assert str(bar.description).startswith(r"masking \<r1\>: 3 of 3 shards, 1,204 masks, in ")


def test_progress_of_a_run_that_fails_stays_where_it_was(prefect_client: SyncPrefectClient) -> None:
    ids: list[str] = []

    @flow
    def work() -> None:
        ids.append(str(flow_run.id))
        with Progress(4, "masking") as progress:
            progress.advance()
            raise ValueError("the disk is full")

    with pytest.raises(ValueError, match="the disk is full"):
        work()
    bar = bar_of(prefect_client, ids[0])
    assert bar.data == 25
    assert "1 of 4 shards" in str(bar.description)


def test_ten_thousand_shards_cost_an_update_every_few_seconds(
    prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[float] = []

    def counted(artifact_id: UUID, progress: float, description: str | None = None) -> UUID:
        sent.append(progress)
        return artifact_id

    monkeypatch.setattr("prefect.artifacts.update_progress_artifact", counted)
    clock = HandClock()

    @flow
    def work() -> None:
        with Progress(10_000, "masking", clock=clock) as progress:
            for _ in range(10_000):
                clock.now += 0.01
                progress.advance()

    work()
    assert 30 <= len(sent) <= 35, "in 100 seconds"
    assert sent == sorted(sent)
    assert sent[-1] == 100


def test_progress_that_cannot_be_told_is_one_warning_and_the_run_goes_on(
    prefect_client: SyncPrefectClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[float] = []

    def away(*_: object, **__: object) -> UUID:
        tries.append(clock.now)
        clock.now += 60  # so long Prefect's client tries again
        raise httpx.ConnectError("connection refused")

    clock = HandClock()

    @flow
    def work() -> str:
        with Progress(5, "masking", clock=clock) as progress:
            with monkeypatch.context() as patch:
                patch.setattr("prefect.artifacts.update_progress_artifact", away)
                for _ in range(4):
                    clock.now += 400
                    progress.advance()
            progress.advance()
        return str(flow_run.id)

    with caplog.at_level(logging.WARNING, logger="flows"):
        run_id = work()
    assert tries == [400, 1260], "600 seconds after the first was given up"
    assert told(caplog) == ["cannot show the progress of masking"]
    assert bar_of(prefect_client, run_id).data == 100, "back again, it learns the end"


def test_without_a_server_nothing_is_shown_and_nothing_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: nowhere, PREFECT_CLIENT_MAX_RETRIES: 0}),
        caplog.at_level(logging.WARNING, logger="flows"),
    ):
        with pytest.warns(FutureWarning, match="outside of a flow"):
            show_table("lost", [{"a": 1}])
        with pytest.warns(FutureWarning, match="outside of a flow"):
            show_page("lost", "# lost")
    assert told(caplog) == ["cannot show table lost", "cannot show page lost"]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What our own warnings say, without what the network said."""
    messages = [record.getMessage() for record in caplog.records if "flows." in record.name]
    return [message.split(" in the Prefect UI")[0] for message in messages]


def test_a_run_says_what_it_is_about(prefect_client: SyncPrefectClient) -> None:
    @flow
    def work() -> str:
        describe_run("mask 40 photos with m3", workspace="/data/birds", model="m3")
        describe_run(release="r12")
        return str(flow_run.id)

    run = prefect_client.read_flow_run(UUID(work()))
    assert run.name == "mask 40 photos with m3"
    assert sorted(run.tags) == ["model:m3", "release:r12", "workspace:birds"]
    describe_run("outside of a run it does nothing", workspace="/data/birds")


SHOW_EVERYTHING = """
import sys
from tests.orchestration.test_artifacts import shown_run
shown_run(sys.argv[1])
"""


@flow(flow_run_name="mask 3 photos with m3")
def shown_run(folder: str) -> None:
    """Leave everything that an automatic run leaves, with a hostile name among the photos."""
    photos, data = Path(folder) / "photos", str(Path(folder) / "data")
    names = ["a.png", "b.png", "c.png"]
    write_photos(photos, names)
    skipped = SkippedImage(HOSTILE, "not-an-image", f"{HOSTILE} is no photo")
    with Workspace.open(data) as workspace:
        masks = {name: random_rectangles(1, 3 + i) for i, name in enumerate(names)}
        release = release_of(workspace, photos, masks)
        statuses = list(run_statuses(workspace.store, load_run(workspace.store, release.runs[0])))
    outcome = AutomaticOutcome(
        release=release.name,
        images_listed=3,
        images_masked=3,
        images_without_masks=0,
        duplicates=0,
        masks=12,
        median_masks_per_image=4.0,
        skipped=(skipped,),
        seconds=6.0,
    )
    shard = ShardOutcome(
        index=0, images=3, masks=12, skipped=1, seconds=6.0, worker="host/1", wrote=True
    )
    show_outcome(outcome, statuses, [shard], workspace=data, model="m3")
    show_link("hostile-link", "http://127.0.0.1:8765/annotate/x?a=(b)&c=<d>", HOSTILE)


@pytest.mark.slow
def test_the_pages_show_their_pictures_and_hostile_names_do_nothing(tmp_path: Path) -> None:
    with run_prefect_server(tmp_path, ui=True) as server, sync_playwright() as playwright:
        subprocess.run(
            [sys.executable, "-c", SHOW_EVERYTHING, str(tmp_path)],
            env={**server.environment(), "PATH": "", "OMP_NUM_THREADS": "1"},
            check=True,
            timeout=120,
        )
        browser = launched(playwright)
        if browser is None:
            pytest.skip("no Chromium: install the distribution's, or `playwright install chromium`")
        page = browser.new_page()
        alerts: list[str] = []
        asked: list[str] = []

        def dismiss(dialog: Dialog) -> None:
            alerts.append(dialog.message)
            dialog.dismiss()

        page.on("dialog", dismiss)
        page.on("request", lambda request: asked.append(request.url))
        for version in ("", "/v2"):
            look_at_everything(page, server, version)
        assert alerts == []
        assert not [url for url in asked if "evil.example" in url or url.endswith("/x")]
        browser.close()


def look_at_everything(page: Page, server: PrefectServer, version: str) -> None:
    """Open the artifacts of `shown_run` in one of Prefect's two UIs."""
    ids = artifact_ids(page, server)
    open_artifact(page, f"{server.ui_url}{version}", ids["automatic-run"])
    page.get_by_role("heading", name="3 photos, 12 masks, 1 skipped").wait_for()
    shown = page.locator("img[src^='data:image/']")
    assert shown.count() == 2, "the sheet and the histogram"
    for picture in shown.all():
        picture.scroll_into_view_if_needed()
        width = picture.evaluate("image => image.decode().then(() => image.naturalWidth)")
        assert width > 100
    text = page.inner_text("body")
    assert "<img src=x onerror=alert(1)>" in text
    assert "host/1" in text
    open_artifact(page, f"{server.ui_url}{version}", ids["automatic-skipped"])
    page.get_by_text("not-an-image").first.wait_for()
    assert page.locator("img[src='x']").count() == 0
    for link in page.locator("a[href*='evil.example']").all():  # a bare address, as it is written
        assert link.inner_text().startswith("http://evil.example")
    open_artifact(page, f"{server.ui_url}{version}", ids["hostile-link"])
    link = page.locator("a[href*='/annotate/x']")
    link.wait_for()
    assert link.get_attribute("href") == "http://127.0.0.1:8765/annotate/x?a=(b)&c=%3Cd%3E"
    assert "onerror=alert(1)" in link.inner_text()


def open_artifact(page: Page, ui_url: str, artifact_id: str) -> None:
    page.goto(f"{ui_url}/artifacts/artifact/{artifact_id}")


def artifact_ids(page: Page, server: PrefectServer) -> dict[str, str]:
    answer = page.request.post(f"{server.api_url}/artifacts/filter", data={})
    return {item["key"]: item["id"] for item in answer.json()}
