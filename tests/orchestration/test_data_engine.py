"""The data engine starts what is due: once, again after a failure, and never beside a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.settings import PREFECT_API_URL
from prefect.settings.context import temporary_settings
from prefect.states import Cancelled, Completed, Crashed, Failed, Running, Scheduled

from engine.errors import BadInputError, TransientError
from engine.wheel.decision import Action, decide
from engine.wheel.policy import PRESETS
from flows.starting import Standing, can_start, start_due
from tests.prefect_server import PrefectServer, free_port
from tests.wheel.wheel_world import World

_numbers = itertools.count(1)
KINDS = ("data-engine", "assisted-manual", "publish-annotations", "retrain")


class Place:
    """A workspace with deployments, on a server without workers: runs stay where a test puts them.

    Attributes:
        workspace: its address.
        workspace_id: who it is.
    """

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        number = next(_numbers)
        self.workspace = f"/data/birds-{number}"
        self.workspace_id = f"{number:032d}"
        self._deployments = {
            kind: client.create_deployment(
                flow_id=client.create_flow_from_name(kind),
                name=f"birds-{number}",
                parameters={"workspace": self.workspace},
                enforce_parameter_schema=False,
            )
            for kind in KINDS
        }

    def action(self, name: str = "manual-1") -> Action:
        parameters = f'{{"campaign":"{name}","workspace":"{self.workspace}"}}'
        return Action(
            kind="assisted-manual", parameters=parameters, key=f"{name}-ab", why="It is due."
        )

    def start(self, action: Action | None = None, attempts: int = 3) -> Standing:
        [standing] = start_due([action or self.action()], self.workspace_id, attempts=attempts)
        return standing

    def runs(self, kind: str = "assisted-manual") -> list[FlowRun]:
        """Return the workspace's runs of a flow, the first first."""
        found = [
            run
            for run in self.client.read_flow_runs(limit=200)
            if run.deployment_id == self._deployments[kind]
        ]
        return sorted(found, key=lambda run: (run.created or datetime.now(UTC), str(run.id)))

    def end(self, state: State[object]) -> None:
        """Put the newest run into a state."""
        self.client.set_flow_run_state(self.runs()[-1].id, state, force=True)

    def by_others(self, campaign: str, state: State[object] | None = None) -> FlowRun:
        """Start a run as a trigger, a schedule or a person does."""
        return self.client.create_flow_run_from_deployment(
            self._deployments["assisted-manual"],
            parameters={"workspace": self.workspace, "campaign": campaign},
            state=state,
        )


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    with (
        temporary_settings({PREFECT_API_URL: prefect_server.api_url}),
        get_client(sync_client=True) as client,
    ):
        yield client


@pytest.fixture
def place(client: SyncPrefectClient) -> Place:
    return Place(client)


def test_what_is_due_is_started_once_with_its_parameters_and_a_link(place: Place) -> None:
    standing = place.start()
    [run] = place.runs()
    assert (standing.status, str(run.id) in (standing.url or "")) == ("started", True)
    assert run.parameters == {"workspace": place.workspace, "campaign": "manual-1"}
    assert run.tags == ["data-engine"]
    assert run.parent_task_run_id is None
    again = place.start()
    assert (again.status, again.url) == ("running", standing.url)
    assert len(place.runs()) == 1


def test_looks_at_the_same_time_start_one_run(place: Place) -> None:
    def look(_: int) -> Standing:
        with temporary_settings({PREFECT_API_URL: str(place.client.api_url)}):
            return place.start()

    with ThreadPoolExecutor(6) as pool:
        urls = {standing.url for standing in pool.map(look, range(6))}
    assert len(urls) == len(place.runs()) == 1


@pytest.mark.parametrize("ending", [Failed(message="no disk left"), Crashed(message="no life")])
def test_a_run_that_did_not_do_it_is_started_again_until_a_person_has_to_look(
    place: Place, ending: State[object]
) -> None:
    for attempt in (1, 2, 3):
        assert place.start().status == "started"
        assert len(place.runs()) == attempt
        place.end(ending)
    standing = place.start()
    assert standing.status == "needs-a-person"
    assert f"3 runs did not do it, the last {place.runs()[-1].name}: {ending.message}" in (
        standing.detail
    )
    assert "maskwheel run assisted-manual" in standing.detail
    assert len(place.runs()) == 3
    # A changed policy, or a changed state, asks by another key: it has attempts of its own.
    assert place.start(place.action("manual-2")).status == "started"


def test_a_run_that_completed_without_effect_counts_as_an_attempt(place: Place) -> None:
    place.start(attempts=1)
    place.end(Completed())
    assert place.start(attempts=1).status == "needs-a-person"


def test_a_run_that_a_person_cancelled_is_left_alone(place: Place) -> None:
    place.start()
    place.end(Cancelled())
    standing = place.start()
    assert (standing.status, "was cancelled" in standing.detail) == ("needs-a-person", True)


def test_a_run_that_was_stopped_with_the_machine_is_no_attempt(place: Place) -> None:
    for _ in range(3):
        assert place.start(attempts=1).status == "started"
        place.end(State(type=StateType.CANCELLED, name="Stopped"))
    assert len(place.runs()) == 3


def test_nothing_is_started_beside_a_run_of_others_that_does_the_same(place: Place) -> None:
    place.by_others("manual-1", Running())
    assert place.start().status == "running"
    other = Place(place.client)
    assert other.start().status == "started"
    assert place.start(place.action("manual-2")).status == "started"


def test_runs_that_are_scheduled_for_later_are_not_at_work(place: Place) -> None:
    tonight = datetime.now(UTC) + timedelta(hours=5)
    place.by_others("manual-1", Scheduled(scheduled_time=tonight))
    assert place.start().status == "started"


def test_the_server_s_deployments_are_found_by_their_workspace(place: Place) -> None:
    assert can_start(place.workspace)
    assert not can_start("/data/elsewhere")
    with pytest.raises(BadInputError, match="no deployment of audit for"):
        place.start(
            Action(kind="audit", parameters=f'{{"workspace":"{place.workspace}"}}', key="a", why="")
        )


def test_a_server_that_does_not_answer_is_asked_again_later() -> None:
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(TransientError, match="does not answer"),
    ):
        can_start("/data/birds")


def test_what_the_wheel_decides_can_be_started(place: Place) -> None:
    world = World(photos=100)
    actions = decide(PRESETS["small"], world.state()).actions
    standings = [
        place.start(
            Action(
                kind=action.kind,
                parameters=action.parameters.replace("/birds", place.workspace),
                key=action.key,
                why=action.why,
            )
        )
        for action in actions
    ]
    assert [standing.status for standing in standings] == ["started"]
    assert place.runs()[0].parameters["images"] == 30
