"""Many simulated people at one service: what they were told, what it has, how long it took.

result = load_run(folder, annotations, LoadPlan(annotators=50, minutes=5.0))
result.report.api.p95_ms, result.lost, result.doubled
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from engine.annotation.client_connection import Connection, Patience
from engine.annotation.simulation.decoders import DecoderPlace
from engine.annotation.simulation.report import SimulationReport
from engine.annotation.simulation.simulate import SimulationPlan, simulate
from engine.annotation.simulation.truth import Truth
from engine.annotation.submissions import finished_tasks
from tests.annotation.service import Service, running_service


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """How much work for how long.

    Attributes:
        images: of the set, from its beginning.
        speed: simulated seconds per second.
        kills: how often the service is killed and started again, at even distances.
    """

    annotators: int = 50
    minutes: float = 5.0
    speed: float = 1.0
    images: int = 80
    annotators_per_image: int = 10
    decoder: DecoderPlace = "server"
    kills: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What came of it.

    Attributes:
        stored: submissions in the database.
        lost: acknowledged ones that are not there, or not as they were acknowledged.
        doubled: tasks with more submissions than were handed in, and ids that are there twice.
        service_cpu_seconds: of the service's process; of the last one if it was killed.
        people_cpu_seconds: of this process.
        kills: how often the service was killed.
    """

    report: SimulationReport
    stored: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    service_cpu_seconds: float
    people_cpu_seconds: float
    kills: int


def load_run(folder: Path, annotations: Path, plan: LoadPlan) -> LoadResult:
    """Serve photos with known masks in a process of its own and let people work."""
    truth = Truth.load(annotations)
    chosen = dict(list(truth.images.items())[: plan.images])
    files = [image.path.read_bytes() for image in chosen.values()]
    people = SimulationPlan(
        annotators=plan.annotators,
        minutes=plan.minutes,
        speed=plan.speed,
        decoder=plan.decoder,
        seed=plan.seed,
        patience=Patience(seconds=180),
    )
    with running_service(
        folder, images=files, model="bundled", annotators_per_image=plan.annotators_per_image
    ) as service:
        _wait_for_the_model(service)
        killer = _Killer(service, plan)
        killer.start()
        cpu = time.process_time()
        try:
            report = simulate(service.url, service.tokens["max"], Truth(chosen), people)
        finally:
            killer.stop()
        return _compared(service, report, time.process_time() - cpu, killer.kills)


def _wait_for_the_model(service: Service) -> None:
    """Let the service load its model, as `maskwheel annotate` does before it prints the link."""
    with Connection(service.url, Patience(seconds=300)) as connection:
        connection.request("POST", "/api/session", body={"token": service.tokens["max"]})
        connection.request("GET", f"/api/models/{service.campaign.model_id}/decoder")


class _Killer(threading.Thread):
    """Kills the service and starts it again, some times during a run."""

    def __init__(self, service: Service, plan: LoadPlan) -> None:
        super().__init__(name="killer")
        self._service, self._wanted = service, plan.kills
        seconds = plan.minutes * 60 / max(plan.speed, 1e-9)
        self._every = seconds / (plan.kills + 1)
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        while self.kills < self._wanted and not self._over.wait(self._every):
            self._service.kill()
            self._service.start()
            self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


def _compared(
    service: Service, report: SimulationReport, people_cpu: float, kills: int
) -> LoadResult:
    service_cpu = _cpu_seconds(service.pid)
    with service.database() as db:
        stored = [task.submission for task in finished_tasks(db, service.campaign.campaign_id)]
    found = {said.submission_id: said for said in stored}
    lost = [
        told.submission_id
        for told in report.acknowledged
        if told.submission_id not in found
        or len(found[told.submission_id].objects) != told.objects
        or str(found[told.submission_id].task_id) != told.task_id
    ]
    # Without reviews a task is handed in once.
    tasks = Counter(said.task_id for said in stored)
    told_twice = Counter(told.submission_id for told in report.acknowledged)
    doubled = [f"task {task}" for task, count in tasks.items() if count > 1]
    doubled += [name for name, count in told_twice.items() if count > 1]
    return LoadResult(
        report=report,
        stored=len(stored),
        lost=tuple(lost),
        doubled=tuple(doubled),
        service_cpu_seconds=service_cpu,
        people_cpu_seconds=people_cpu,
        kills=kills,
    )


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
