"""Simulated people at the real service with the bundled model, and at one that is killed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.annotation.client import AnnotationClient
from engine.annotation.client_connection import Patience
from engine.annotation.records import MaskObject
from engine.annotation.simulation.latencies import DECODE_ROUTE
from engine.annotation.simulation.report import SimulationReport
from engine.annotation.simulation.simulate import SimulationPlan, simulate
from engine.annotation.simulation.truth import Truth
from engine.annotation.submissions import finished_tasks
from engine.errors import BadInputError
from engine.images import content_id
from engine.masks import encode_mask, mask_iou
from tests.annotation.service import Service, running_service
from tests.annotation.simulated_photos import HEIGHT, WIDTH, write_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("photos")
    return folder, write_photos(folder, 8)


@pytest.fixture(scope="module")
def truth(photos: tuple[Path, list[bytes]]) -> Truth:
    return Truth.load(photos[0] / "annotations.json")


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, photos: tuple[Path, list[bytes]], truth: Truth
) -> Iterator[Service]:
    """Serve photos; the first one comes with a right proposal and one that shows nothing."""
    image_id = content_id(photos[1][0])[0]
    corner_HW = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    corner_HW[:12, :12] = True
    proposals = [
        MaskObject(object_id="right", rle=truth.drawn_by_anybody(image_id)[0], proposal=True),
        MaskObject(object_id="nothing", rle=encode_mask(corner_HW), proposal=True),
    ]
    with running_service(
        tmp_path_factory.mktemp("service"),
        images=photos[1],
        model="bundled",
        stage="semi",
        proposals={0: proposals},
        annotators_per_image=3,
        review=True,
    ) as running:
        yield running


def check_nothing_lost_or_doubled(service: Service, report: SimulationReport) -> None:
    """Compare what the clients were told with what the database has."""
    with service.database() as db:
        stored = list(finished_tasks(db, service.campaign.campaign_id))
    ids = [task.submission.submission_id for task in stored]
    told = {said.submission_id: said for said in report.acknowledged}
    assert len(ids) == len(set(ids))
    assert set(told) <= set(ids)
    assert len(told) == len(report.acknowledged)
    for task in stored:
        said = told.get(task.submission.submission_id)
        if said is not None:
            assert said.objects == len(task.submission.objects)
            assert said.task_id == str(task.submission.task_id)
    rounds = [(task.submission.task_id, task.submission.round) for task in stored]
    assert len(rounds) == len(set(rounds))


def test_local_decoders_answer_like_the_services_and_ask_it_for_files_only(
    service: Service, truth: Truth
) -> None:
    reports = {}
    for decoder in ("server", "local"):
        plan = SimulationPlan(decoder=decoder, skill="perfect", minutes=0.5, seed=5)
        reports[decoder] = simulate(service.url, service.tokens["max"], truth, plan)
    server, local = reports["server"], reports["local"]
    assert server.tasks_submitted > 0
    assert local.tasks_submitted > 0
    assert server.mean_iou == pytest.approx(local.mean_iou, abs=0.1)
    routes = {route.route for route in local.routes}
    assert "GET /api/images/{id}/embedding" in routes
    assert DECODE_ROUTE not in routes
    assert DECODE_ROUTE in {route.route for route in server.routes}


def test_when_the_time_is_up_the_begun_task_is_given_back(service: Service, truth: Truth) -> None:
    plan = SimulationPlan(annotators=2, minutes=0.1)
    report = simulate(service.url, service.tokens["max"], truth, plan)
    assert report.tasks_given_back == 2
    assert not report.failures
    with AnnotationClient.join(service.links["max"]) as admin:
        assert admin.campaign("test").tasks["leased"] == 0


def test_a_kill_in_the_middle_loses_nothing_and_the_campaign_ends(
    service: Service, truth: Truth
) -> None:
    handed_in = threading.Event()
    reports: list[SimulationReport] = []
    plan = SimulationPlan(
        annotators=4,
        reviewers=1,
        skill="perfect",
        patience=Patience(seconds=200, longest_pause=1.0),
        seed=3,
    )

    def work() -> None:
        admin = service.tokens["max"]
        said = simulate(
            service.url, admin, truth, plan, on_progress=lambda done, of: handed_in.set()
        )
        reports.append(said)

    people = threading.Thread(target=work)
    people.start()
    assert handed_in.wait(200)
    service.kill()
    service.start()
    people.join(400)
    (report,) = reports
    assert not report.failures
    assert any(route.failed for route in report.routes)
    check_nothing_lost_or_doubled(service, report)
    with service.database() as db:
        finished = [t for t in finished_tasks(db, service.campaign.campaign_id) if t.current]
    assert {task.state for task in finished} == {"accepted"}
    assert len(finished) == 24
    for task in finished:
        drawn = truth.drawn_by_anybody(task.image_id)
        said = task.submission
        assert mask_iou([item.mask.rle for item in said.objects], drawn).max(axis=1).min() > 0.5
        assert all(item.clicks > 0 for item in said.objects if item.made == "new")
        made = Counter(item.made for item in (*said.objects, *said.deleted))
        has_proposals = task.image_id == service.image_ids[0]
        assert made == ({"kept": 1, "new": 2, "deleted": 1} if has_proposals else {"new": 3})
        assert 0 < sum(item.active_seconds for item in said.objects) <= said.active_seconds


def test_the_campaign_must_be_clear(service: Service, truth: Truth) -> None:
    plan = SimulationPlan(campaign="whales")
    with pytest.raises(BadInputError, match="there is no campaign 'whales'; the service has: test"):
        simulate(service.url, service.tokens["max"], truth, plan)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"annotators": 0}, "expected somebody"),
        ({"skill": "magic"}, "expected one of"),
        ({"minutes": 0.0}, "minutes above 0"),
        ({"sloppy": 2.0}, "lies in 0 to 1"),
    ],
)
def test_plans_that_cannot_be(settings: dict[str, object], says: str) -> None:
    with pytest.raises(BadInputError, match=says):
        SimulationPlan(**settings)  # type: ignore[arg-type]  # what is wrong is the point
