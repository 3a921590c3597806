"""What the service refuses, and what it says with every answer."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.routing import APIRoute

from engine.annotation.database import database_url, open_database
from engine.annotation.http.app import create_app
from engine.annotation.http.assembly import ServiceOptions, make_context
from engine.annotation.http.security import signed_in
from engine.annotation.http.shield import SECURITY_HEADERS
from engine.images import ImageLimits
from tests.annotation.service import Service, running_service

OPEN_ROUTES = {
    ("POST", "/api/session"),
    ("DELETE", "/api/session"),
    ("GET", "/api/health"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/docs"),
    ("GET", "/{path:path}"),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    limits = {"work": 20_000, "events": 5_000, "decode": 5_000, "other": 1_000}
    with running_service(folder, images=2, body_limits=limits) as running:
        yield running


@pytest.fixture
def ada(service: Service) -> Iterator[httpx.Client]:
    with service.client("ada") as client:
        yield client


def routes(tmp_path: Path) -> list[APIRoute]:
    with open_database(database_url(tmp_path)) as database:
        options = ServiceOptions(public_url="http://localhost:1", work_folder=tmp_path)
        context = make_context(database, options, model=None, image_limits=ImageLimits())
        app = create_app(context)
    found = list(all_routes(app.routes))
    assert len(found) > 20
    return found


def all_routes(routes: Iterable[object]) -> Iterator[APIRoute]:
    for route in routes:
        included = getattr(route, "original_router", None)  # how FastAPI keeps included routers
        if included is not None:
            yield from all_routes(included.routes)
        else:
            assert isinstance(route, APIRoute), f"{route} is of a kind that this test cannot see"
            yield route


def asks_for_a_session(route: APIRoute) -> bool:
    pending = list(route.dependant.dependencies)
    while pending:
        dependant = pending.pop()
        if dependant.call is signed_in:
            return True
        pending += dependant.dependencies
    return False


def test_every_route_asks_for_a_session_or_says_why_not(tmp_path: Path) -> None:
    without = set()
    for route in routes(tmp_path):
        if not asks_for_a_session(route):
            assert "No session:" in (route.endpoint.__doc__ or ""), route.path
            without |= {(method, route.path) for method in route.methods or ()}
    assert without == OPEN_ROUTES


def test_every_closed_route_answers_401_without_a_session(service: Service, tmp_path: Path) -> None:
    with service.client() as stranger:
        for route in routes(tmp_path):
            if not asks_for_a_session(route):
                continue
            path = route.path.replace("{image_id}", "1").replace("{annotator_id}", "0" * 12)
            path = path.replace("{task_id}", "1").replace("{", "").replace("}", "")
            for method in route.methods or ():
                headers = {"X-Lease": "x", "If-Match": '"0"'}
                answer = stranger.request(method, path, headers=headers)
                # Some complain of a body or a query first; none does anything.
                assert answer.status_code in (401, 422), (method, path, answer.text)
                if method in ("GET", "DELETE"):
                    assert answer.status_code == 401 or "model" in answer.text, path


def test_every_answer_carries_the_headers_of_an_isolated_page(
    service: Service, ada: httpx.Client
) -> None:
    answers = [
        ada.get("/"),
        ada.get("/api/me"),
        ada.get("/api/nothing"),
        ada.get("/nothing.js"),
        ada.post("/api/session", json={}),
        ada.post("/api/session", content=b"x" * 2_000, headers={"Content-Type": "text/plain"}),
        ada.get("/api/health", headers={"Host": "evil.example"}),
        ada.put("/api/me"),
        ada.get("/api/docs"),
    ]
    assert {answer.status_code for answer in answers} >= {200, 404, 422, 405, 400}
    for answer in answers:
        for name, text in SECURITY_HEADERS.items():
            assert answer.headers[name] == text, (answer.url, name)
        assert "server" not in answer.headers
        assert "cache-control" in answer.headers
        if answer.status_code >= 400 and "/api" in str(answer.url):
            assert {"code", "message"} <= answer.json().keys()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"X-Maskwheel": ""},
        {"X-Maskwheel": "0"},
    ],
)
def test_pages_of_other_origins_are_refused(
    service: Service, ada: httpx.Client, headers: dict[str, str]
) -> None:
    path = f"/api/campaigns/{service.campaign.campaign_id}/next"
    refused = ada.post(path, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
    with service.database() as db:
        from engine.annotation.campaigns import campaign_state

        state = campaign_state(db, service.campaign.campaign_id, now=service.campaign.opened_at)
        assert state.tasks.leased == 0


def test_the_services_own_page_is_not_refused(service: Service, ada: httpx.Client) -> None:
    own = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"}
    assert ada.delete("/api/session", headers=own).status_code == 204
    # A link from elsewhere to the documentation, or typed into the address bar, is a navigation.
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert ada.get("/api/docs", headers=link).status_code == 200
    assert ada.get("/api/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ada.get("/", headers=link).status_code in (200, 503)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "a b", "[::1"])
def test_foreign_host_names_are_refused_against_dns_rebinding(service: Service, host: str) -> None:
    with service.client() as client:
        for path in ("/api/health", "/"):
            refused = client.get(path, headers={"Host": host})
            assert refused.status_code == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:99", "127.0.0.1", "[::1]:8", "10.1.2.3"])
def test_localhost_and_addresses_are_known(service: Service, host: str) -> None:
    with service.client() as client:
        assert client.get("/api/health", headers={"Host": host}).status_code == 200


def test_bodies_that_are_too_large_are_refused_while_they_are_read(
    service: Service, ada: httpx.Client
) -> None:
    kind = {"Content-Type": "application/json", "X-Lease": "x", "If-Match": '"0"'}
    for path, method, limit in [
        ("/api/tasks/1/draft", "PUT", 20_000),
        ("/api/tasks/1/submit", "POST", 20_000),
        ("/api/tasks/1/events", "POST", 5_000),
        ("/api/tasks/1/decode", "POST", 5_000),
        ("/api/session", "POST", 1_000),
    ]:
        said = ada.request(method, path, content=b" " * (limit + 1), headers=kind)
        assert (said.status_code, said.json()["code"]) == (413, "too_large"), path

        def endless(limit: int = limit) -> Iterator[bytes]:
            for _ in range(limit // 1000 + 2):
                yield b" " * 1000

        unsaid = ada.request(method, path, content=endless(), headers=kind)
        assert unsaid.status_code == 413, path
        within = ada.request(method, path, content=b" " * (limit - 1) + b"1", headers=kind)
        assert within.status_code != 413, path


@pytest.mark.parametrize(
    ("body", "statuses"),
    [
        (b"", {422}),
        (b"{", {422}),
        (b"[" * 900, {422}),
        (b"[" * 100 + b"]" * 100, {422}),
        (b'{"token": NaN}', {422}),
        (b'{"token": "\\u0000"}', {422}),
        (b'{"token": "\\ud800"}', {422}),
        (b'{"token": "\xff"}', {422}),
        (b'{"token": 1e999}', {422}),
        (b'{"token": "", "x": 1}', {422}),
        (b'{"token": {"a": []}}', {422}),
        (b'"token"', {422}),
        (b"null", {422}),
        (b'{"token": "' + b"x" * 300 + b'"}', {422}),
        ('{"token": "näh"}'.encode(), {401}),
    ],
)
def test_malformed_bodies_are_refused(service: Service, body: bytes, statuses: set[int]) -> None:
    with service.client() as client:
        kind = {"Content-Type": "application/json"}
        answer = client.post("/api/session", content=body, headers=kind)
    assert answer.status_code in statuses, answer.text
    assert answer.json()["message"]


def test_bodies_of_other_types_are_refused(service: Service) -> None:
    with service.client() as client:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            answer = client.post("/api/session", content=b"{}", headers={"Content-Type": kind})
            assert (answer.status_code, answer.json()["code"]) == (415, "not_json")
        squeezed = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert client.post("/api/session", content=b"{}", headers=squeezed).status_code == 415


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/assets/..%2f..%2fpackage.json",
        "/assets/%2e%2e/%2e%2e/package.json",
        "/..\\..\\package.json",
        "//etc/passwd",
        "/assets//etc/passwd",
        "/assets/",
        "/assets",
        "/.git/config",
        "/assets/x%00.js",
        "/api/models/..%2f..%2fetc/passwd.onnx",
        "/api/models/x/..%2fsecret.onnx",
        "/api/images/..%2f..%2fetc%2fpasswd/pixels",
    ],
)
def test_no_path_leads_out_of_the_page(service: Service, path: str) -> None:
    # Raw, because clients tidy such paths up before they send them.
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while data := raw.recv(65_536):
            answer += data
    status = int(answer.split(b" ", 2)[1])
    assert status in (400, 401, 404, 422), answer[:300]
    assert b"root:" not in answer
    assert b'"devDependencies"' not in answer


def test_a_flood_of_requests_waits_its_turn(tmp_path: Path) -> None:
    with (
        running_service(
            tmp_path,
            images=1,
            requests_per_second=1.0,
            request_burst=5.0,
            sign_ins_per_second=0.01,
            sign_in_burst=3.0,
        ) as service,
        service.client("ada") as ada,
        service.client("ben") as ben,
    ):
        answers = [ada.get("/api/me") for _ in range(30)]
        late = [answer for answer in answers if answer.status_code == 429]
        assert late
        assert late[0].json()["code"] == "too_many_requests"
        assert int(late[0].headers["retry-after"]) >= 1
        assert ben.get("/api/me").status_code == 200  # a limit of the session, not of all
        wrong = [ben.post("/api/session", json={"token": "wrong"}) for _ in range(5)]
        assert [answer.status_code for answer in wrong] == [401, 401, 401, 429, 429]
        assert int(wrong[-1].headers["retry-after"]) > 10


def test_tokens_and_sessions_are_in_no_log_and_no_table(service: Service) -> None:
    with service.client("ben") as ben:
        session = ben.cookies["maskwheel_session"]
        ben.get("/api/me")
        ben.post("/api/session", json={"token": "a-wrong-token-of-somebody"})
        ben.get("/api/me?token=in-a-query")
    secrets = [session, "a-wrong-token-of-somebody", "in-a-query", *service.tokens.values()]
    written = service.log.encode() + (service.folder / "stderr.txt").read_bytes()
    for path in service.folder.glob("annotation.db*"):
        written += path.read_bytes()
    assert b"GET /api/me 200" in written
    for secret in secrets:
        assert secret.encode() not in written


def test_roles_are_kept_apart(service: Service) -> None:
    campaign = f"/api/campaigns/{service.campaign.campaign_id}"
    needs = [
        ("POST", f"{campaign}/next-review", "reviewer"),
        ("GET", f"{campaign}/figures", "reviewer"),
        ("GET", "/api/annotators", "admin"),
        ("POST", "/api/annotators", "admin"),
        ("DELETE", "/api/annotators/000000000000", "admin"),
        ("POST", "/api/annotators/000000000000/invitation", "admin"),
    ]
    for name, mine in (("ada", "annotator"), ("rita", "reviewer")):
        with service.client(name) as client:
            for method, path, role in needs:
                if role == mine:
                    continue
                body = {"name": "x"} if (method, path) == ("POST", "/api/annotators") else None
                answer = client.request(method, path, json=body)
                assert (answer.status_code, answer.json()["code"]) == (403, "not_allowed"), path


def test_the_page_has_the_types_that_browsers_insist_on(tmp_path: Path) -> None:
    from engine.annotation.http.static import StaticPage

    (tmp_path / "assets").mkdir()
    for name in ("index.html", "assets/a-1.wasm", "assets/b-2.mjs", "assets/c-3.js"):
        (tmp_path / name).write_text("x" * 2_000)
    page = StaticPage(tmp_path)
    types = {
        name: (answer.headers["content-type"], answer.headers["cache-control"])
        for name in ("assets/a-1.wasm", "assets/b-2.mjs", "annotate/x", "")
        if (answer := page.answer(name, {})) is not None
    }
    immutable = "public, max-age=31536000, immutable"
    assert types == {
        "assets/a-1.wasm": ("application/wasm", immutable),
        "assets/b-2.mjs": ("text/javascript; charset=utf-8", immutable),
        "annotate/x": ("text/html; charset=utf-8", "no-cache"),
        "": ("text/html; charset=utf-8", "no-cache"),
    }
    squeezed = page.answer("assets/c-3.js", {"accept-encoding": "br, gzip"})
    assert squeezed is not None
    assert squeezed.headers["content-encoding"] == "gzip"
    known = page.answer("assets/c-3.js", {"if-none-match": f"W/{squeezed.headers['etag']}"})
    assert known is not None
    assert known.status_code == 304
    assert page.answer("assets/nothing.js", {}) is None


def test_a_page_that_is_not_built_says_what_to_do(tmp_path: Path) -> None:
    from engine.annotation.http.static import StaticPage

    answer = StaticPage(tmp_path / "nowhere").answer("", {})
    assert answer is not None
    assert answer.status_code == 503
    assert b"make web" in bytes(answer.body)


def test_links_out_of_the_page_are_not_followed(tmp_path: Path) -> None:
    from engine.annotation.http.static import StaticPage

    folder = tmp_path / "dist"
    folder.mkdir()
    (tmp_path / "secret.js").write_text("secret")
    (folder / "link.js").symlink_to(tmp_path / "secret.js")
    assert StaticPage(folder).answer("link.js", {}) is None


def test_the_documentation_needs_nothing_from_elsewhere(service: Service) -> None:
    with service.client() as client:
        page = client.get("/api/docs").text
        document = client.get("/api/openapi.json").json()
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    for path in document["paths"]:
        assert path in page
