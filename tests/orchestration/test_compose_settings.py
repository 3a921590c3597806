"""The settings of infra/compose.yaml together: what it starts works, on PostgreSQL and S3.

The same commands with the same variables, as processes: Prefect's server with a password on
PostgreSQL, setup, workers, annotation service; then what a newcomer does with them.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engine.annotation.client import AnnotationClient
from engine.annotation.client_values import TaskLease
from engine.images import encode_jpeg
from engine.objects.s3_client import s3_client
from tests.automatic.oracle_segmenter import paint_scene
from tests.orchestration.compose_stack import ComposeStack, run_stack
from tests.orchestration.conftest import wait_for
from tests.servers import S3Server

pytestmark = pytest.mark.slow  # two minutes: seven processes that import much

PHOTOS = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    with run_stack(tmp_path_factory.mktemp("compose")) as started:
        put_photos(started)
        started.start("prefect-server")
        started.start("annotation")
        started.wait_until_well("prefect-server")
        started.run("setup", started.services["setup"]["command"])
        for name in ("worker-control", "worker-compute"):
            started.start(name)
        for name in ("worker-control", "worker-compute", "annotation"):
            started.wait_until_well(name)
        yield started


def put_photos(stack: ComposeStack) -> None:
    """The bucket, which the container makes at its start, and photos in it."""
    variables = stack.environment("annotation")
    server = S3Server(variables["MASKWHEEL_S3_ENDPOINT"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**server.environment(), **variables}.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        client = s3_client(server.options)
        client.create_bucket(Bucket="maskwheel")
        for number in range(PHOTOS):
            photo = encode_jpeg(np.ascontiguousarray(paint_scene(number, 96, 128, 4)))
            client.put_object(Bucket="maskwheel", Key=f"photos/{number}.jpg", Body=photo)


def asked(stack: ComposeStack, path: str, body: dict[str, Any]) -> Any:
    """What Prefect's API answers, by the address and the password of the file."""
    variables = stack.environment("worker-control")
    word = base64.b64encode(variables["PREFECT_API_AUTH_STRING"].encode()).decode()
    request = urllib.request.Request(  # noqa: S310  (loopback)
        f"{variables['PREFECT_API_URL']}/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Basic {word}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def finished(stack: ComposeStack, run_id: str) -> None:
    """Wait for a run that a worker has taken, and see that it went well."""

    def ended() -> dict[str, Any] | None:
        (run,) = asked(stack, "flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        assert isinstance(run, dict)
        return run if run["state_type"] not in ("SCHEDULED", "PENDING", "RUNNING") else None

    run = wait_for(ended, f"the end of run {run_id}", 300)
    logs = asked(stack, "logs/filter", {"logs": {"flow_run_id": {"any_": [run_id]}}})
    lines = [line["message"] for line in logs][-20:]
    assert run["state_type"] == "COMPLETED", (run["state"], lines)


def given(admin: AnnotationClient, campaign_id: str) -> TaskLease | None:
    """A task, once the campaign has one that is prepared."""
    answer = admin.next(campaign_id)
    return answer if isinstance(answer, TaskLease) else None


def test_the_server_wants_the_password(stack: ComposeStack) -> None:
    address = stack.environment("worker-control")["PREFECT_API_URL"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{address}/admin/version", timeout=30)  # noqa: S310
    with refused.value as answer:
        assert answer.code == 401


def test_setup_again_changes_nothing(stack: ComposeStack) -> None:
    again = stack.run_json("setup", stack.services["setup"]["command"])
    assert {change["kind"] for change in again["changes"]} >= {"work pool", "deployment"}
    assert {change["what"] for change in again["changes"]} <= {"unchanged", "kept"}


def test_a_worker_masks_photos_of_the_bucket_into_a_release(stack: ComposeStack) -> None:
    started = stack.run_json(
        "worker-control",
        [
            *("maskwheel", "run", "fully-automatic", "--deployment"),
            *("-p", 'photos=["s3://maskwheel/photos/"]'),
            *("-p", 'settings={"points_per_side": 4}'),
        ],
    )
    finished(stack, started["run"])
    listed = stack.run_json("annotation", ["maskwheel", "releases", "list"])
    (release,) = listed["releases"]
    assert release["images"] == PHOTOS
    # Again, for nothing: what there is to do is in the bucket, whatever Prefect remembers.
    again = stack.run_json(
        "worker-compute",
        ["maskwheel", "run", "fully-automatic", "-p", 'settings={"points_per_side": 4}'],
    )
    assert again["result"]["images_listed"] == PHOTOS
    assert again["result"]["images_masked"] == 0


def test_a_campaign_that_a_flow_opens_is_seen_in_the_annotation_service(
    stack: ComposeStack,
) -> None:
    started = stack.run_json(
        "worker-control",
        [
            *("maskwheel", "run", "assisted-manual", "--deployment"),
            *("-p", "campaign=birds", "-p", f"images={PHOTOS}", "-p", "order=random"),
            *("-p", "embed_ahead=1"),
        ],
    )
    finished(stack, started["run"])
    link = wait_for(
        lambda: re.search(r"http://\S+#token=\S+", stack.log("annotation")), "the admin's link"
    ).group()
    with AnnotationClient.join(link) as admin:
        (campaign,) = admin.campaigns()
        assert (campaign.name, campaign.images) == ("birds", PHOTOS)
        lease = wait_for(lambda: given(admin, campaign.campaign_id), "a photo to annotate")
    assert lease.image.width == 128


def test_the_password_does_not_stand_in_the_way_of_triggers(stack: ComposeStack) -> None:
    def looks() -> list[Any]:
        runs = {"flow_runs": {}, "flows": {"name": {"any_": ["data-engine"]}}}
        found = asked(stack, "flow_runs/filter", runs)
        assert isinstance(found, list)
        return [run for run in found if run["auto_scheduled"] is False]

    before = {run["id"] for run in looks()}
    workspace = stack.environment("worker-control")["MASKWHEEL_WORKSPACE"]
    event = {
        "event": "maskwheel.model.promoted",
        "resource": {"prefect.resource.id": "maskwheel.model.m1", "maskwheel.workspace": workspace},
        "payload": {"workspace": workspace},
    }
    script = (
        "import json, sys; from prefect.events import emit_event;"
        "from prefect.events.worker import EventsWorker;"
        "emit_event(**json.loads(sys.argv[1])); EventsWorker.drain_all()"
    )
    stack.run("worker-control", ["python", "-c", script, json.dumps(event)])
    run = wait_for(
        lambda: next((run for run in looks() if run["id"] not in before), None), "a look", 120
    )
    finished(stack, run["id"])
