"""The Python client against the real service, and against connections that fail."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator

import pytest

from engine.annotation.client import AnnotationClient
from engine.annotation.client_connection import Call, Patience
from engine.annotation.client_errors import RefusedCallError, UnreachableError
from engine.annotation.client_values import TaskLease
from engine.annotation.errors import (
    DraftConflictError,
    LeaseLostError,
    NotAllowedError,
    NotSignedInError,
)
from engine.annotation.records import (
    DraftContent,
    Event,
    MaskObject,
    PointPrompt,
    StrokePrompt,
    Verdict,
)
from engine.annotation.submissions import finished_tasks, submission
from engine.errors import BadInputError
from tests.annotation.annotation_builders import a_mask
from tests.annotation.service import Service, running_service

SCENE = {"height": 120, "width": 160}
IMPATIENT = Patience(seconds=0)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with running_service(folder, images=12, review=True) as running:
        yield running


@pytest.fixture
def ada(service: Service) -> Iterator[AnnotationClient]:
    with AnnotationClient.join(service.links["ada"], patience=IMPATIENT) as client:
        yield client


@pytest.fixture
def rita(service: Service) -> Iterator[AnnotationClient]:
    with AnnotationClient.join(service.links["rita"], patience=IMPATIENT) as client:
        yield client


def next_task(client: AnnotationClient, service: Service) -> TaskLease:
    lease = client.next(service.campaign.campaign_id)
    assert isinstance(lease, TaskLease), lease
    return lease


def an_object(name: str = "a", x0: int = 5) -> MaskObject:
    return MaskObject(
        object_id=name,
        rle=a_mask(x0, 5, x0 + 30, 40, **SCENE),
        predicted_iou=0.75,
        prompts=(PointPrompt(x0 + 10.5, 20.25, 1), StrokePrompt("brush", 3.5, ((1.0, 2.0),))),
        decoder="server",
    )


def test_a_link_or_an_address_with_a_token_signs_in(service: Service) -> None:
    with AnnotationClient.join(service.links["ada"]) as client:
        assert (client.name, client.role) == ("ada", "annotator")
    with AnnotationClient.join(service.url, service.tokens["max"]) as client:
        assert client.role == "admin"


def test_who_may_not_come_in_is_told_why(service: Service) -> None:
    with pytest.raises(NotSignedInError):
        AnnotationClient.join(service.url, "wrong", patience=IMPATIENT)
    with pytest.raises(BadInputError, match="needs the token of an invitation"):
        AnnotationClient.join(service.url)
    with pytest.raises(BadInputError, match="an address like"):
        AnnotationClient.join("not an address", "token")


def test_campaigns_are_found_by_name(service: Service, ada: AnnotationClient) -> None:
    campaign = ada.campaign("test")
    assert campaign.campaign_id == service.campaign.campaign_id
    assert campaign.tasks["total"] == 12
    with pytest.raises(BadInputError, match="the service has: test"):
        ada.campaign("whales")


def test_work_goes_from_the_draft_to_the_database(service: Service, ada: AnnotationClient) -> None:
    lease = next_task(ada, service)
    assert (lease.image.height, lease.image.width) == (120, 160)
    assert lease.image.image_id in service.image_ids
    ada.heartbeat(lease)
    content = DraftContent(objects=(an_object(),), current=an_object("b", 60))
    version = ada.save_draft(lease, content, lease.draft_version)
    with pytest.raises(DraftConflictError) as conflict:
        ada.save_draft(lease, DraftContent(), version + 7)
    assert conflict.value.version == version
    again = next_task(ada, service)
    assert again.task_id == lease.task_id
    assert again.draft == content
    assert again.draft_version == version
    with pytest.raises(LeaseLostError):  # the first tab has lost it to the second
        ada.heartbeat(lease)
    events = [Event(seq=seq, at_ms=1000 * seq, kind="click", object_id="a") for seq in (1, 2, 3)]
    ada.send_events(again, "page", events[:2])
    ada.send_events(again, "page", events[:2])
    told = ada.submit(
        again, [an_object()], exhaustive=True, page_id="page", last_seq=3, events=events[2:]
    )
    assert (told.objects, told.state) == (1, "submitted")
    with service.database() as db:
        stored = submission(db, told.submission_id)
    assert stored.objects[0].mask == an_object()
    assert (stored.objects[0].clicks, stored.exhaustive) == (3, True)


def test_a_submission_that_is_repeated_is_the_same_one(
    service: Service, ada: AnnotationClient
) -> None:
    lease = next_task(ada, service)
    name = "8b0e6a52-93f1-4d8e-9a57-0d3c2f6b7e11"
    first = ada.submit(lease, [an_object()], submission_id=name)
    again = ada.submit(lease, [an_object()], submission_id=name)
    assert first == again
    with service.database() as db:
        stored = list(finished_tasks(db, service.campaign.campaign_id))
    assert sum(str(task.submission.task_id) == lease.task_id for task in stored) == 1


def test_tasks_can_be_skipped_and_given_back(service: Service, ada: AnnotationClient) -> None:
    skipped = next_task(ada, service)
    ada.skip(skipped, "it is blurred")
    lease = next_task(ada, service)
    assert lease.task_id != skipped.task_id
    ada.give_back(lease)
    with pytest.raises(LeaseLostError):
        ada.heartbeat(lease)


def test_a_review_sends_work_back_with_reasons(
    service: Service, ada: AnnotationClient, rita: AnnotationClient
) -> None:
    campaign_id = service.campaign.campaign_id
    while isinstance(lease := rita.next_review(campaign_id), TaskLease):  # what other tests left
        assert lease.submission is not None
        ids = [item.mask.object_id for item in lease.submission.objects]
        rita.judge(lease, [Verdict(object_id=name, kind="accept") for name in ids])
    made = next_task(ada, service)
    ada.submit(made, [an_object("good"), an_object("bad", 70)])
    review = rita.next_review(campaign_id)
    assert isinstance(review, TaskLease)
    assert review.submission is not None
    assert review.submission.annotator == "ada"
    assert [item.mask for item in review.submission.objects] == [
        an_object("good"),
        an_object("bad", 70),
    ]
    fixed = Verdict(object_id="good", kind="fix", rle=a_mask(6, 5, 30, 40, **SCENE))
    rejected = Verdict(object_id="bad", kind="reject", reason="no object")
    assert rita.judge(review, [fixed, rejected], reason="look again") == "returned"
    again = next_task(ada, service)
    assert again.task_id == made.task_id
    assert again.returned
    assert again.rejected == {"bad": "no object"}
    assert again.draft is not None
    assert {item.object_id for item in again.draft.objects} == {"good", "bad"}
    told = ada.submit(again, [an_object("good")])
    assert told.submission_id


def test_images_are_loaded_as_the_page_does(service: Service, ada: AnnotationClient) -> None:
    lease = next_task(ada, service)
    assert ada.pixels(lease).startswith((b"\x89PNG", b"\xff\xd8", b"RIFF"))
    assert ada.pixels(lease, preview=True)
    ada.give_back(lease)


def test_what_people_may_not_do_is_refused(service: Service, ada: AnnotationClient) -> None:
    with pytest.raises(NotAllowedError):
        ada.invite("eve", "admin")
    with pytest.raises(NotAllowedError):
        ada.figures(service.campaign.campaign_id)
    lease = next_task(ada, service)
    with pytest.raises(RefusedCallError) as refused:
        ada.submit(lease, [MaskObject(object_id="a", rle=a_mask())])  # of another image's size
    assert refused.value.status == 422
    ada.give_back(lease)


def test_figures_come_as_the_page_gets_them(service: Service, rita: AnnotationClient) -> None:
    said = json.loads(rita.figures(service.campaign.campaign_id))
    assert said["campaign"]["name"] == "test"


def test_invited_people_can_join_until_they_are_shut_out(service: Service) -> None:
    with AnnotationClient.join(service.links["max"]) as admin:
        invited = admin.invite("eve")
        assert invited.token not in repr(invited)
        with AnnotationClient.join(service.url, invited.token) as eve:
            admin.revoke(invited.annotator_id)
            with pytest.raises(NotSignedInError):
                eve.campaigns()


def test_without_a_service_the_patience_ends() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        slept: list[float] = []
        calls: list[Call] = []
        with pytest.raises(UnreachableError, match="is the service running"):
            AnnotationClient.join(
                address,
                "token",
                patience=Patience(seconds=0.05, first_pause=0.01, longest_pause=0.02),
                on_call=calls.append,
                sleep=slept.append,
            )
    # `sleep` only notes, so that attempts follow each other until the patience is over.
    assert len(calls) == len(slept) + 1 > 1
    assert {call.status for call in calls} == {None}
    assert all(0.01 <= pause <= 0.04 for pause in slept)


class FlakyServer:
    """Answers each connection with the next of some scripted answers; None: hangs up."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.requests: list[bytes] = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(65536)
                self.requests.append(head)
                if answer is not None:
                    connection.sendall(answer)
        self._listener.close()

    def join(self) -> None:
        self._thread.join(30)


def http(status: str, body: object, *headers: str) -> bytes:
    text = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(text)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


ME = {"name": "ada", "role": "admin"}
BUSY = {"code": "busy", "message": "the service is busy"}


def test_lost_connections_and_busy_answers_are_repeated() -> None:
    server = FlakyServer(
        [None, http("503 x", BUSY, "Retry-After: 3"), http("429 x", BUSY), http("200 OK", ME)]
    )
    slept: list[float] = []
    client = AnnotationClient.join(server.address, "token", sleep=slept.append)
    client.close()
    server.join()
    assert client.name == "ada"
    assert len(server.requests) == 4
    assert slept[1] >= 3  # as the service asked


def test_what_may_have_happened_already_is_not_done_twice() -> None:
    server = FlakyServer([http("200 OK", ME), None])
    with (
        AnnotationClient.join(server.address, "token", sleep=lambda seconds: None) as client,
        pytest.raises(UnreachableError, match="no answer to POST /api/annotators"),
    ):
        client.invite("eve")
    server.join()
    assert len(server.requests) == 2


def test_answers_of_something_else_are_told_as_they_are() -> None:
    server = FlakyServer([http("404 Not Found", "no such page")])
    with pytest.raises(RefusedCallError, match="404"):
        AnnotationClient.join(server.address, "token")
    server.join()
