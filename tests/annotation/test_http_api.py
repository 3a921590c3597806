"""The service as a program sees it: signing in, tasks, drafts, events, submissions, reviews."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from engine.annotation.records import MaskObject
from engine.images import content_id, encode_jpeg, encode_png
from engine.masks import encode_mask
from tests.annotation.service import Service, running_service, scene

HEIGHT, WIDTH = 120, 160


def rle(y0: int, y1: int, x0: int, x1: int) -> dict[str, Any]:
    mask_HW = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    mask_HW[y0:y1, x0:x1] = True
    return {"size": [HEIGHT, WIDTH], "counts": encode_mask(mask_HW).counts}


def obj(name: str, *box: int, **fields: Any) -> dict[str, Any]:
    prompts = [{"kind": "point", "x": 10.5, "y": 20.0, "label": 1}]
    values = {"predicted_iou": 0.8, "prompts": prompts, "decoder": "browser", "accepted": None}
    return {"id": name, "proposal": False, "rle": rle(*(box or (5, 50, 5, 60))), **values, **fields}


def submission(*objects: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "submission_id": str(uuid.uuid4()),
        "objects": list(objects),
        "deleted": [],
        "exhaustive": True,
        "page_id": "page",
        "last_seq": 0,
        "events": [],
        **fields,
    }


def event(seq: int, kind: str = "click", object_id: str | None = "a") -> dict[str, Any]:
    return {
        "seq": seq,
        "at_ms": 1_000_000 + 2000 * seq,
        "kind": kind,
        "object_id": object_id,
        "data": {"x": 1.5},
    }


class Person:
    """Somebody at work in one campaign."""

    def __init__(self, service: Service, name: str) -> None:
        self.client = service.client(name)
        self.campaign = f"/api/campaigns/{service.campaign.campaign_id}"
        self.task = self.lease = ""

    def next(self, route: str = "next") -> dict[str, Any]:
        answer = self.client.post(f"{self.campaign}/{route}")
        assert answer.status_code == 200, answer.text
        lease: dict[str, Any] = answer.json()
        if "task" in lease:
            self.task, self.lease = lease["task"]["id"], lease["lease_id"]
        return lease

    def post(self, action: str, body: object = None, **headers: str) -> httpx.Response:
        return self._send("POST", action, body, headers)

    def put_draft(self, version: int, **draft: Any) -> httpx.Response:
        body = {"version": 0, "objects": [], "deleted": [], "exhaustive": False, "current": None}
        return self._send("PUT", "draft", body | draft, {"If-Match": f'"{version}"'})

    def _send(
        self, method: str, action: str, body: object, headers: dict[str, str]
    ) -> httpx.Response:
        path = f"/api/tasks/{self.task}/{action}"
        return self.client.request(
            method, path, headers={"X-Lease": self.lease, **headers}, json=body
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    turned = encode_jpeg(scene(100))
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = turned[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + turned[2:]
    files = [*(encode_png(scene(i)) for i in range(40)), turned]
    with running_service(tmp_path_factory.mktemp("service"), images=files) as running:
        yield running


@pytest.fixture
def ada(service: Service) -> Iterator[Person]:
    person = Person(service, "ada")
    yield person
    person.client.close()


def test_a_token_opens_a_session_that_ends_when_one_signs_out(service: Service) -> None:
    with service.client() as client:
        assert client.get("/api/me").json()["code"] == "no_session"
        signed_in = client.post("/api/session", json={"token": service.tokens["rita"]})
        cookie = signed_in.headers["set-cookie"]
        assert {"HttpOnly", "Path=/api", "SameSite=strict"} <= set(cookie.split("; "))
        assert client.get("/api/me").json() == signed_in.json()
        assert signed_in.json()["role"] == "reviewer"
        session = client.cookies["maskwheel_session"]
        assert client.delete("/api/session").status_code == 204
        assert "maskwheel_session" not in client.cookies
        # The session itself is over, not only its cookie.
        stolen = {"Cookie": f"maskwheel_session={session}"}
        assert client.get("/api/me", headers=stolen).status_code == 401


def test_work_goes_from_a_lease_over_drafts_and_events_to_a_submission(
    service: Service, ada: Person
) -> None:
    lease = ada.next()
    assert lease["seconds"] == 120
    image = lease["task"]["image"]
    assert (image["width"], image["height"]) == (WIDTH, HEIGHT)
    assert int(image["id"]) in service.image_ids
    assert ada.post("heartbeat").json()["seconds"] == 120
    assert ada.put_draft(0, objects=[obj("a")], current=obj("b")).json() == {"version": 1}
    assert ada.put_draft(1, objects=[obj("a")]).json() == {"version": 2}
    stale = ada.put_draft(1)
    assert (stale.status_code, stale.json()["code"], stale.json()["version"]) == (
        409,
        "draft_conflict",
        2,
    )
    assert [o["id"] for o in stale.json()["draft"]["objects"]] == ["a"]
    batch = {"page_id": "page", "events": [event(1), event(2)]}
    assert ada.post("events", batch).json() == {"saved": 2, "last_seq": 2}
    assert ada.post("events", batch).json() == {"saved": 0, "last_seq": 2}
    seen = ada.client.get(f"/api/tasks/{ada.task}").json()
    assert seen["draft"]["version"] == 2
    assert seen["draft"]["objects"][0] == obj("a")
    body = submission(obj("a"), last_seq=3, events=[event(3, "commit")])
    receipt = ada.post("submit", body)
    assert receipt.json() == {
        "submission_id": body["submission_id"],
        "task_id": ada.task,
        "objects": 1,
        "state": "accepted",
    }
    assert ada.post("submit", body).json() == receipt.json()
    mine = ada.client.get(ada.campaign).json()
    assert mine["mine"]["done"] >= 1
    assert mine["masks"] >= 1


def test_a_submission_whose_events_are_missing_says_which(ada: Person) -> None:
    ada.next()
    refused = ada.post("submit", submission(obj("a"), last_seq=2, events=[event(1)]))
    assert (refused.status_code, refused.json()["code"]) == (409, "missing_events")
    assert refused.json()["missing"] == [2]


def test_a_newer_lease_of_the_same_person_ends_the_older_tab(service: Service, ada: Person) -> None:
    ada.next()
    older = ada.lease
    ada.next()
    assert ada.lease != older
    for action, body in [
        ("heartbeat", None),
        ("events", {"page_id": "p", "events": [event(1)]}),
        ("submit", submission(obj("a"))),
        ("skip", {"reason": "blurred"}),
        ("give-back", None),
    ]:
        lost = ada.post(action, body, **{"X-Lease": older})
        assert (lost.status_code, lost.json()["code"]) == (409, "lease_lost"), action
    # Nor can another person use it, who has learnt it somehow.
    ben = Person(service, "ben")
    ben.task, ben.lease = ada.task, ada.lease
    assert ben.post("submit", submission(obj("a"))).json()["code"] == "lease_lost"
    assert ben.client.get(f"/api/tasks/{ada.task}").status_code == 403
    ben.client.close()


def test_skipping_and_giving_back_free_the_person_for_the_next_task(ada: Person) -> None:
    ada.next()
    first = ada.task
    assert ada.post("give-back").json() == {}
    ada.next()
    assert ada.task == first
    assert ada.post("skip", {"reason": "not a photo"}).json() == {}
    ada.next()
    assert ada.task != first


@pytest.mark.parametrize(
    "wrong",
    [
        {"rle": {"size": [HEIGHT, WIDTH + 1], "counts": rle(5, 50, 5, 60)["counts"]}},
        {"rle": {"size": [HEIGHT, WIDTH], "counts": "9" * 40}},
        {"rle": {"size": [HEIGHT, WIDTH], "counts": "~~~"}},
        {"rle": {"size": [HEIGHT, WIDTH], "counts": ""}},
        {"rle": {"size": [2**31 - 1, 2**31 - 1], "counts": "0"}},
        {"rle": {"size": [-1, 5], "counts": "0"}},
        {"id": "../../etc"},
        {"id": ""},
        {"proposal": True},
        {"proposal": 1},
        {"predicted_iou": "0.5"},
        {"decoder": "abacus"},
        {"unknown": 1},
        {"prompts": [{"kind": "point", "x": 1e300, "y": 0, "label": 1}]},
        {"prompts": [{"kind": "point", "x": 1, "y": 0, "label": 7}]},
        {"prompts": [{"kind": "stroke", "mode": "brush", "radius": -1, "points": [[1, 1]]}]},
        {"prompts": [{"kind": "stroke", "mode": "brush", "radius": 1, "points": []}]},
        {"prompts": [{"kind": "spell"}]},
    ],
)
def test_objects_that_do_not_fit_are_refused(ada: Person, wrong: dict[str, Any]) -> None:
    ada.next()
    refused = ada.post("submit", submission({**obj("a"), **wrong}))
    assert refused.status_code == 422, refused.text
    assert refused.json()["code"] in ("invalid", "invalid_mask", "bad_submission")
    assert refused.json()["message"]


def test_two_objects_of_one_id_are_refused(ada: Person) -> None:
    ada.next()
    assert ada.post("submit", submission(obj("a"), obj("a"))).status_code == 422


def test_a_task_that_is_not_there_is_said_to_be_so(ada: Person) -> None:
    for task, status in (("999999", 404), ("0", 422), ("x", 422), ("9" * 30, 422)):
        answer = ada.client.get(f"/api/tasks/{task}")
        assert answer.status_code == status, task
    assert ada.client.get("/api/campaigns/nope").json()["code"] == "unknown_campaign"
    assert ada.client.post("/api/campaigns/nope/next").json()["code"] == "unknown_campaign"


def test_upcoming_images_are_those_of_the_next_tasks(ada: Person) -> None:
    ada.next()
    ahead = ada.client.get(f"{ada.campaign}/upcoming", params={"n": 2}).json()
    assert len(ahead) == 2
    assert ada.post("submit", submission(obj("a"))).status_code == 200
    assert ada.next()["task"]["image"] == ahead[0]["image"]


def test_a_plain_picture_is_served_as_it_is_and_only_once(service: Service, ada: Person) -> None:
    address = f"/api/images/{service.image_ids[0]}/pixels"
    whole = ada.client.get(address)
    assert whole.content == encode_png(scene(0))
    assert whole.headers["content-type"] == "image/png"
    assert whole.headers["cache-control"] == "private, max-age=31536000, immutable"
    again = ada.client.get(address, headers={"If-None-Match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = ada.client.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    small = ada.client.get(address, params={"long": 100})
    assert small.headers["content-type"] == "image/jpeg"
    assert small.headers["etag"] != whole.headers["etag"]


def test_a_turned_picture_is_served_upright(service: Service, ada: Person) -> None:
    from engine.images import probe_image

    picture = ada.client.get(f"/api/images/{service.image_ids[-1]}/pixels").content
    info = probe_image(picture)
    assert (info.width, info.height, info.orientation) == (HEIGHT, WIDTH, 1)


def test_an_image_that_is_gone_or_another_says_why(service: Service, ada: Person) -> None:
    path = service.folder / "photos" / "020.png"
    image_id, _ = content_id(path.read_bytes())
    data = path.read_bytes()
    path.unlink()
    gone = ada.client.get(f"/api/images/{image_id}/pixels")
    assert (gone.status_code, gone.json()["code"], gone.json()["reason"]) == (
        404,
        "image_unusable",
        "not-found",
    )
    path.write_bytes(encode_png(scene(500)))
    assert ada.client.get(f"/api/images/{image_id}/pixels").json()["reason"] == "changed"
    path.write_bytes(data)
    assert ada.client.get(f"/api/images/{image_id}/pixels").status_code == 200


def test_images_of_no_campaign_are_not_served(ada: Person) -> None:
    assert ada.client.get("/api/images/12345/pixels").json()["code"] == "unknown_image"
    for wrong in ("-1", "x", str(2**63), "%2e%2e%2fetc"):
        assert ada.client.get(f"/api/images/{wrong}/pixels").status_code in (404, 422)
    for wrong in ("1", "63", "8193", "x"):
        path = f"/api/images/12345/pixels?long={wrong}"
        assert ada.client.get(path).status_code == 422


def test_a_service_without_a_model_says_so(service: Service, ada: Person) -> None:
    lease = ada.next()
    for address in (lease["task"]["image"]["embedding"], lease["task"]["decoder"]):
        answer = ada.client.get(address)
        assert (answer.status_code, answer.json()["code"]) == (503, "no_model")


def test_an_admin_invites_renews_and_revokes(service: Service) -> None:
    with service.client("max") as admin, service.client() as guest:
        invited = admin.post("/api/annotators", json={"name": "Zoë", "role": "reviewer"})
        assert invited.status_code == 201
        first = invited.json()
        assert first["link"] == f"{service.url}/join#token={first['token']}"
        assert guest.post("/api/session", json={"token": first["token"]}).status_code == 200
        renewed = admin.post(f"/api/annotators/{first['id']}/invitation").json()
        assert guest.get("/api/me").status_code == 401
        assert guest.post("/api/session", json={"token": first["token"]}).json()["code"] == (
            "bad_token"
        )
        assert guest.post("/api/session", json={"token": renewed["token"]}).status_code == 200
        gone = admin.delete(f"/api/annotators/{first['id']}").json()
        assert gone["revoked_at"] is not None
        assert guest.get("/api/me").status_code == 401
        names = {person["name"]: person for person in admin.get("/api/annotators").json()}
        assert names["Zoë"]["revoked_at"] is not None
        own = names["max"]["id"]
        assert admin.delete(f"/api/annotators/{own}").json()["code"] == "own_account"
        taken = admin.post("/api/annotators", json={"name": "ada"})
        assert taken.status_code == 422


def test_a_review_accepts_fixes_and_sends_back(tmp_path: Path) -> None:
    with running_service(tmp_path, images=2, review=True) as service:
        ada, rita = Person(service, "ada"), Person(service, "rita")
        assert rita.next("next-review")["nothing"] in ("all-done", "needs-review", "all-leased")
        ada.next()
        handed_in = ada.post("submit", submission(obj("a"), obj("b", 60, 100, 70, 150)))
        assert handed_in.json()["state"] == "submitted"
        forbidden = ada.client.post(f"{ada.campaign}/next-review")
        assert (forbidden.status_code, forbidden.json()["code"]) == (403, "not_allowed")
        lease = rita.next("next-review")
        assert lease["submission"]["annotator"] == "ada"
        assert [o["made"] for o in lease["submission"]["objects"]] == ["new", "new"]
        review = {
            "submission_id": str(uuid.uuid4()),
            "verdicts": [
                {"object_id": "a", "verdict": "accept"},
                {"object_id": "b", "verdict": "reject", "reason": "too large"},
            ],
        }
        assert rita.post("verdicts", review).json() == {"state": "returned"}
        assert rita.post("verdicts", review).json() == {"state": "returned"}
        again = ada.next()["task"]
        assert again["id"] == ada.task
        reasons = {v["object_id"]: v["reason"] for v in again["returned"]["verdicts"]}
        assert reasons["b"] == "too large"
        ada.post("submit", submission(obj("a"), obj("c", 60, 90, 70, 100)))
        rita.next("next-review")
        fixed = [
            {"object_id": "a", "verdict": "fix", "rle": rle(5, 40, 5, 50)},
            {"object_id": "c", "verdict": "accept"},
        ]
        body = {"submission_id": str(uuid.uuid4()), "verdicts": fixed}
        assert rita.post("verdicts", body).json() == {"state": "accepted"}
        assert rita.client.get(rita.campaign).json()["tasks"]["accepted"] == 1
        ada.client.close()
        rita.client.close()


def test_proposals_come_with_the_task_and_are_told_apart(tmp_path: Path) -> None:
    from engine.annotation.http.convert import mask_object
    from engine.annotation.http.schemas import Obj

    proposed: list[MaskObject] = [
        mask_object(Obj.model_validate(obj(f"p{i}", *box, proposal=True)))
        for i, box in enumerate([(0, 20, 0, 20), (30, 50, 30, 50), (60, 80, 60, 80)])
    ]
    with running_service(tmp_path, images=1, stage="semi", proposals={0: proposed}) as service:
        ada = Person(service, "ada")
        found = ada.next()["task"]["proposals"]
        assert [one["id"] for one in found] == ["p0", "p1", "p2"]
        missing = ada.post("submit", submission(found[0]))
        assert missing.status_code == 422
        corrected = {**found[1], "rle": rle(30, 50, 30, 60)}
        done = ada.post("submit", submission(found[0], corrected, obj("n"), deleted=["p2"]))
        assert done.json()["objects"] == 3
        with service.database() as db:
            from engine.annotation.submissions import submission as stored

            kept = stored(db, done.json()["submission_id"])
        assert [one.made for one in kept.objects] == ["kept", "corrected", "new"]
        ada.client.close()


def test_a_killed_service_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    with running_service(tmp_path, images=3) as service:
        ada = Person(service, "ada")
        ada.next()
        assert ada.put_draft(0, objects=[obj("a")]).json() == {"version": 1}
        assert ada.post("events", {"page_id": "page", "events": [event(1)]}).status_code == 200
        service.kill()
        service.start()
        # The session, the lease, the draft and the events are all still there.
        assert ada.client.get(f"/api/tasks/{ada.task}").json()["draft"]["version"] == 1
        body = submission(obj("a"), last_seq=1)
        assert ada.post("submit", body).status_code == 200
        service.kill()
        service.start()
        assert ada.post("submit", body).json()["objects"] == 1
        assert ada.client.get(ada.campaign).json()["masks"] == 1
        ada.client.close()
        assert service.stop() == 0
