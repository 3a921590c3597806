"""The OpenAPI document is true: schemathesis makes requests from it and finds no failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from tests.annotation.service import Service, running_service

# Hypothesis warns when `random` was drawn from while one of schemathesis' strategies ran.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*`random` module inside strategies:hypothesis.errors.HypothesisDeprecationWarning"
)

# Ends the session that the others need.
_LEFT_OUT = {("DELETE", "/api/session")}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("service"), images=3, stage="semi") as running:
        yield running


@pytest.fixture
def admin(service: Service) -> Iterator[httpx.Client]:
    with service.client("max") as client:
        yield client


def operations(admin: httpx.Client) -> list[Any]:
    document = admin.get("/api/openapi.json").json()
    schema = schemathesis.openapi.from_dict(document)
    found: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    return [one for one in found if (one.method.upper(), one.path) not in _LEFT_OUT]


def send(admin: httpx.Client, lease: dict[str, Any], case: Any) -> httpx.Response:
    """Send what schemathesis made up, with a lease and ids that exist here and there."""
    arguments = case.as_transport_kwargs(base_url=str(admin.base_url))
    headers = {**arguments["headers"], "X-Maskwheel": "1"}
    headers = {name: value for name, value in headers.items() if value.isascii()}
    url = arguments["url"]
    if "/api/tasks/" in url and len(url) % 2:
        rest = url.partition("/api/tasks/")[2].partition("/")[2]
        url = f"{admin.base_url}/api/tasks/{lease['task']['id']}/{rest}"
        headers["X-Lease"] = lease["lease_id"]
    body = {name: arguments[name] for name in ("json", "data") if arguments.get(name) is not None}
    if "data" in body:
        body["content"] = body.pop("data")
    return admin.request(
        arguments["method"], url, params=arguments.get("params"), headers=headers, **body
    )


def check(service: Service, admin: httpx.Client, examples: int) -> None:
    lease = admin.post(f"/api/campaigns/{service.campaign.campaign_id}/next").json()
    tried: set[tuple[str, int]] = set()
    for operation in operations(admin):
        for mode in GenerationMode:
            try_operation(operation, mode, examples, admin, lease, tried)
    assert len({label for label, _ in tried}) > 20
    assert {status // 100 for _, status in tried} >= {2, 4}


def try_operation(
    operation: Any,
    mode: GenerationMode,
    examples: int,
    admin: httpx.Client,
    lease: dict[str, Any],
    tried: set[tuple[str, int]],
) -> None:
    label = operation.label

    @seed(5)
    @settings(
        max_examples=examples,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        answer = send(admin, lease, case)
        tried.add((label, answer.status_code))
        says_no_model = answer.status_code == 503 and "no_model" in answer.text
        assert answer.status_code < 500 or says_no_model, (label, answer.text)
        if answer.status_code >= 400:
            assert {"code", "message"} <= answer.json().keys(), (label, answer.text)

    # Of a route without parameters there is nothing that could be wrong.
    with suppress(Unsatisfiable):
        holds()


def test_no_request_of_the_document_makes_the_service_fail(
    service: Service, admin: httpx.Client
) -> None:
    check(service, admin, examples=4)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_request_of_many_makes_the_service_fail(service: Service, admin: httpx.Client) -> None:
    check(service, admin, examples=40)
