"""The page around the editor, in Chromium against the real service.

Signing in, two tabs, lost leases, ended sessions, reviews, and what is said where there is nothing
to do. No model: masks are painted, so that every test takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Response, expect

from engine.annotation.annotators import find_annotator, rotate
from engine.annotation.submissions import finished_tasks
from engine.config import current_time
from tests.annotation.annotation_page import AnnotationPage, signed_in
from tests.annotation.service import Service, running_service

PEOPLE = {"ada": "annotator", "ben": "annotator", "rita": "reviewer", "max": "admin"}

expect.set_options(timeout=60_000)


@contextmanager
def serving(folder: Path, **options: object) -> Iterator[Service]:
    with running_service(folder, people=PEOPLE, **options) as service:  # type: ignore[arg-type]
        yield service


def annotate(context: BrowserContext, service: Service) -> AnnotationPage:
    """Open the campaign in a new tab."""
    page = context.new_page()
    page.goto(f"{service.url}/annotate/{service.campaign.campaign_id}")
    editor = AnnotationPage(page, "")
    editor.ready()
    return editor


def paint(editor: AnnotationPage, y: float) -> None:
    """Paint one more mask across the image."""
    before = len(editor.state()["objects"])
    editor.press("b")
    editor.drag((30, y), (90, y))
    editor.press("Enter", "b")
    editor.wait("count => window.maskwheel.state().objects.length === count", before + 1)


def paint_and_save(editor: AnnotationPage, y: float) -> None:
    """Paint one more mask, and wait until the service has it in the draft."""
    count = len(editor.state()["objects"]) + 1

    def has_it(answer: Response) -> bool:
        sent = answer.request.post_data_json if answer.url.endswith("/draft") else None
        return answer.ok and sent is not None and len(sent["objects"]) == count

    with editor.page.expect_response(has_it, timeout=60_000):
        paint(editor, y)


def test_an_invite_link_signs_in_and_leaves_no_token_behind(
    chromium: Browser, tmp_path: Path
) -> None:
    with serving(tmp_path) as service, signed_in(chromium, service, "ada") as context:
        page = context.new_page()
        page.goto(service.url)
        expect(page.get_by_test_id(f"campaign-{service.campaign.campaign_id}")).to_be_visible()
        stranger = chromium.new_context().new_page()
        stranger.goto(service.links["ben"])
        expect(stranger.get_by_text("ben", exact=True)).to_be_visible()
        assert stranger.url == f"{service.url}/"
        stranger.go_back()
        assert service.tokens["ben"] not in stranger.url
        assert service.tokens["ben"] not in service.log
        stranger.goto(f"{service.url}/join#token=nonsense")
        expect(stranger.get_by_role("alert")).to_contain_text("not valid")
        stranger.context.close()


def test_whoever_works_in_two_places_is_told_and_decides_what_counts(
    chromium: Browser, tmp_path: Path
) -> None:
    with (
        serving(tmp_path) as service,
        signed_in(chromium, service, "ada") as at_home,
        signed_in(chromium, service, "ada") as at_work,
    ):
        first = annotate(at_home, service)
        paint_and_save(first, 30)
        at_home.set_offline(True)
        paint(first, 90)
        second = annotate(at_work, service)
        second.wait("() => window.maskwheel.state().objects.length === 1")
        paint(second, 50)
        paint_and_save(second, 70)
        at_home.set_offline(False)
        expect(first.find("lease-lost")).to_be_visible()
        first.page.get_by_text("Take it back").click()
        expect(first.find("choice")).to_contain_text("2 masks")
        first.page.get_by_text("The other tab or computer").click()
        first.wait("() => window.maskwheel?.state().objects.length === 3")
        paint(first, 110)
        first.submitted()
        with service.database() as db:
            (task,) = finished_tasks(db, service.campaign.campaign_id)
        assert len(task.submission.objects) == 4


def test_work_goes_on_after_a_session_has_ended(chromium: Browser, tmp_path: Path) -> None:
    with serving(tmp_path) as service, signed_in(chromium, service, "ada") as context:
        editor = annotate(context, service)
        with service.database() as db:
            ada = find_annotator(db, "ada").annotator_id
            link = rotate(db, ada, now=current_time()).token
        paint(editor, 30)
        again = editor.page.get_by_label("Invite link")
        expect(again).to_be_visible()
        again.fill(f"{service.url}/join#token={link}")
        editor.page.get_by_role("button", name="Sign in").click()
        expect(again).to_be_hidden()
        paint_and_save(editor, 60)
        editor.submitted()


def test_what_cannot_be_handed_in_any_more_is_said_and_kept(
    chromium: Browser, tmp_path: Path
) -> None:
    with (
        serving(tmp_path, images=1, lease_seconds=2) as service,
        signed_in(chromium, service, "ada") as context,
    ):
        editor = annotate(context, service)
        context.set_offline(True)
        paint(editor, 30)
        editor.find("submit").click()
        expect(editor.find("empty")).to_contain_text("1 finished image is safe")
        with service.client("ben") as ben:
            path = f"/api/campaigns/{service.campaign.campaign_id}/next"
            while "task" not in ben.post(path, json={}).json():  # ada's lease runs out
                editor.page.wait_for_timeout(200)
        context.set_offline(False)
        expect(editor.find("refused")).to_contain_text("given to somebody else")
        editor.page.reload()
        expect(editor.find("refused")).to_contain_text("1 mask")
        with editor.page.expect_download() as download:
            editor.page.get_by_text("Save as a file").click()
        assert '"counts"' in Path(download.value.path()).read_text()
        editor.page.get_by_text("Give it up").click()
        expect(editor.find("refused")).to_be_hidden()


def test_a_rejected_mask_comes_back_with_the_reason_and_is_accepted_in_the_end(
    chromium: Browser, tmp_path: Path
) -> None:
    with (
        serving(tmp_path, images=1, review=True) as service,
        signed_in(chromium, service, "ada") as adas,
        signed_in(chromium, service, "rita") as ritas,
    ):
        ada = annotate(adas, service)
        for y in (30, 60, 90):
            paint(ada, y)
        ada.submitted()
        expect(ada.find("empty")).to_contain_text("waits for a reviewer")

        rita = AnnotationPage(ritas.new_page(), "rita")
        rita.page.goto(f"{service.url}/review/{service.campaign.campaign_id}")
        rita.ready()
        rita.press("a", "r")
        rita.find("reject-reason").fill("The edge is off")
        rita.press("Enter")
        rita.press("b")  # the third one is corrected
        rita.drag((30, 100), (90, 100))
        rita.press("b")
        expect(rita.find("review-panel")).to_contain_text("1 corrected by you")
        expect(rita.find("review-panel")).to_contain_text("1 rejected")
        rita.find("hand-in").click()
        expect(rita.find("empty")).to_contain_text("Nothing waits for a review")

        ada.page.reload()
        ada.ready()
        expect(ada.find("returned")).to_contain_text("The edge is off")
        assert len(ada.state()["objects"]) == 3
        paint(ada, 110)
        ada.submitted()
        rita.page.reload()
        rita.ready()
        rita.press("Shift+A")
        rita.find("hand-in").click()
        expect(rita.find("empty")).to_be_visible()
        ada.page.reload()
        expect(ada.find("empty")).to_contain_text("Everything is done")
        with service.database() as db:
            first, last = finished_tasks(db, service.campaign.campaign_id)
        assert [each.verdict for each in first.submission.objects] == ["accept", "reject", "fix"]
        assert {each.verdict for each in last.submission.objects} == {"accept"}
        assert len(last.submission.objects) == 4

        rita.page.goto(f"{service.url}/lead/{service.campaign.campaign_id}")
        expect(rita.find("seconds-per-mask")).to_contain_text("s")
        expect(rita.page.get_by_role("row", name="ada")).to_be_visible()


def test_an_admin_invites_somebody_and_shuts_them_out_again(
    chromium: Browser, tmp_path: Path
) -> None:
    with serving(tmp_path) as service, signed_in(chromium, service, "max") as context:
        page = context.new_page()
        page.goto(f"{service.url}/lead/people")
        page.get_by_label("Name").fill("eva")
        page.get_by_role("button", name="Invite").click()
        link = page.get_by_test_id("invite-link")
        expect(link).to_be_visible()
        guest = chromium.new_context().new_page()
        guest.goto(link.input_value())
        expect(guest.get_by_text("eva", exact=True)).to_be_visible()
        guest.goto(f"{service.url}/lead/people")
        expect(guest.get_by_text("People are for admins")).to_be_visible()
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("listitem").filter(has_text="eva").get_by_text("Shut out").click()
        expect(page.get_by_text("Shut out: eva.")).to_be_visible()
        guest.goto(link.input_value())
        expect(guest.get_by_role("alert")).to_contain_text("revoked")
        guest.context.close()
