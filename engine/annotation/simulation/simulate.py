"""Simulated annotators at a running service: its load test, its end-to-end test, its test bench.

    plan = SimulationPlan(annotators=50, minutes=5)
    report = simulate("http://127.0.0.1:8420", admin_token, Truth.load(annotations), plan)

Every person is a thread with an invitation, a session and a clock of its own, and works through the
HTTP API as the page does. What somebody does on an image depends on the seed, the person and the
image alone; who gets which image depends on who asks first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from engine.annotation.client import AnnotationClient
from engine.annotation.client_connection import Patience
from engine.annotation.client_errors import UnreachableError
from engine.annotation.client_values import CampaignSummary, Invited, TaskLease
from engine.annotation.errors import LeaseLostError
from engine.annotation.records import NothingToDo, Role
from engine.annotation.simulation.annotator import SimulatedAnnotator, TaskOutcome
from engine.annotation.simulation.decoders import DecoderPlace, Decoders
from engine.annotation.simulation.latencies import LatencyBook
from engine.annotation.simulation.mask_making import SKILLS, Skill
from engine.annotation.simulation.page import SimulatedPage
from engine.annotation.simulation.report import SimulationFailure, SimulationReport, summarise
from engine.annotation.simulation.reviewer import ReviewOutcome, SimulatedReviewer
from engine.annotation.simulation.timing import Pace, SimulatedClock, TimeIsUpError, Timing
from engine.annotation.simulation.truth import Truth
from engine.config import current_time
from engine.errors import BadInputError, EngineError

__all__ = ["SimulationPlan", "simulate"]

logger = logging.getLogger(__name__)

# Who finds no task asks again after so many simulated, or at speed 0 real, seconds.
_ASK_AGAIN_SECONDS, _ASK_AGAIN_REAL_SECONDS = 5.0, 0.2
_NOTHING_MORE = frozenset({"all-done", "closed", "no-images", "own-work"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """Who works how long and how well.

    Attributes:
        annotators: people who make masks.
        reviewers: people who judge them.
        minutes: that each person works, on their own clock; None: until nothing is left.
        speed: simulated seconds per second; 0: as fast as possible.
        campaign: its name; None: the one that is open.
        skill: of annotators, see `SKILLS`.
        sloppy: share of annotators who are sloppy instead.
        decoder: ``"server"``: the service answers prompts; ``"local"``: this process does, with the
            embedding and the decoder of the service, as a browser would.
        loads_images: also load what a page shows: the image and, for a local decoder, the
            embedding.
        timing: how long things take.
        arrival_seconds: within which people come, one after the other; nobody's working time.
        patience: with a service that does not answer.
        seed: of everything that is left to chance.
    """

    annotators: int = 1
    reviewers: int = 0
    minutes: float | None = None
    speed: float = 0.0
    campaign: str | None = None
    skill: str = "careful"
    sloppy: float = 0.0
    decoder: DecoderPlace = "server"
    loads_images: bool = True
    timing: Timing = field(default_factory=Timing)
    arrival_seconds: float = 10.0
    patience: Patience = field(default_factory=Patience)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.annotators < 0 or self.reviewers < 0 or not self.annotators + self.reviewers:
            raise BadInputError(
                f"got {self.annotators} annotators and {self.reviewers} reviewers; expected "
                "somebody"
            )
        if self.skill not in SKILLS:
            raise BadInputError(f"got the skill {self.skill!r}; expected one of {sorted(SKILLS)}")
        if self.minutes is not None and not self.minutes > 0:
            raise BadInputError(f"expected minutes above 0, got {self.minutes}")
        if not 0 <= self.sloppy <= 1:
            raise BadInputError(f"the share of sloppy annotators lies in 0 to 1; got {self.sloppy}")

    def skill_of(self, place: int) -> Skill:
        """Return how the annotator at a place works: the first ones are the sloppy ones."""
        return SKILLS["sloppy" if place < round(self.sloppy * self.annotators) else self.skill]


def simulate(
    address: str,
    admin_token: str,
    truth: Truth,
    plan: SimulationPlan,
    *,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
    stop: threading.Event | None = None,
) -> SimulationReport:
    """Let simulated people work at a service until the time is up or nothing is left.

    Args:
        address: of the service.
        admin_token: of an invitation as admin; invites the others.
        truth: what people drew in the campaign's images.
        plan: who works how.
        on_progress: told how many tasks were handed in, of how many that wait for somebody; from
            any thread.
        stop: when set, everybody saves what they have and leaves.

    Returns:
        What they did. Failures of single people are in it.

    Raises:
        BadInputError: no such campaign, or several open ones and none named.
        NotAllowedError: the token is not an admin's.
        UnreachableError: nobody answers at the address.
    """
    begun = time.monotonic()
    stop = stop or threading.Event()
    with AnnotationClient.join(address, admin_token, patience=plan.patience) as admin:
        campaign = _campaign(admin, plan.campaign)
        people = _invite(admin, plan)
        try:
            with Decoders(plan.decoder) as decoders:
                crowd = _Crowd(address, campaign, truth, plan, decoders, on_progress, stop)
                crowd.live(people)
        finally:
            _dismiss(admin, people)
    return summarise(
        annotators=plan.annotators,
        reviewers=plan.reviewers,
        outcomes=crowd.outcomes,
        reviews=crowd.reviews,
        skipped=len(crowd.skipped),
        book=crowd.book,
        failures=crowd.failures,
        seconds=time.monotonic() - begun,
    )


def _campaign(admin: AnnotationClient, name: str | None) -> CampaignSummary:
    if name is not None:
        return admin.campaign(name)
    found = [campaign for campaign in admin.campaigns() if campaign.state == "open"]
    if len(found) != 1:
        names = ", ".join(campaign.name for campaign in found) or "none"
        raise BadInputError(f"expected one open campaign, the service has {names}; name the one")
    return found[0]


def _invite(admin: AnnotationClient, plan: SimulationPlan) -> list[Invited]:
    """Invite everybody under a new name."""
    run = f"{current_time():%m%d-%H%M%S}-{time.monotonic_ns() % 10_000:04d}"
    roles: list[Role] = ["annotator" for _ in range(plan.annotators)]
    roles += ["reviewer" for _ in range(plan.reviewers)]
    names = [f"simulated {role} {place + 1} ({run})" for place, role in enumerate(roles)]
    return [admin.invite(name, role) for name, role in zip(names, roles, strict=True)]


def _dismiss(admin: AnnotationClient, people: Sequence[Invited]) -> None:
    """Take the invitations back: what comes back to these people later goes to others."""
    try:
        for person in people:
            admin.revoke(person.annotator_id)
    except UnreachableError as error:
        logger.warning("invitations of simulated people are still valid: %s", error)


class _Crowd:
    """What the threads share; lists only grow, so that they need no lock."""

    def __init__(
        self,
        address: str,
        campaign: CampaignSummary,
        truth: Truth,
        plan: SimulationPlan,
        decoders: Decoders,
        on_progress: Callable[[int, int], None],
        stop: threading.Event,
    ) -> None:
        self._address, self._campaign_id, self._truth = address, campaign.campaign_id, truth
        self._plan, self._on_progress, self._stop = plan, on_progress, stop
        self._decoders = decoders
        self._to_do = sum(campaign.tasks[state] for state in ("open", "leased", "returned"))
        self.book = LatencyBook()
        self.outcomes: list[TaskOutcome] = []
        self.reviews: list[ReviewOutcome] = []
        self.failures: list[SimulationFailure] = []
        self.skipped: list[str] = []
        self._sent_back: set[str] = set()

    def live(self, people: Sequence[Invited]) -> None:
        """Let everybody work until they end by themselves, or `stop` is set."""
        with ThreadPoolExecutor(len(people), thread_name_prefix="simulated") as pool:
            lives = [
                pool.submit(
                    self._annotate if place < self._plan.annotators else self._review, place, person
                )
                for place, person in enumerate(people)
            ]
            try:
                wait(lives, return_when=FIRST_EXCEPTION)
            finally:  # also when the whole is interrupted: let everybody leave
                if not all(life.done() for life in lives):
                    self._stop.set()
        for life in lives:
            life.result()

    def _annotate(self, place: int, person: Invited) -> None:
        def work(client: AnnotationClient, clock: SimulatedClock, slowness: float) -> bool:
            with clock.waiting():
                lease = client.next(self._campaign_id)
            if isinstance(lease, NothingToDo):
                return self._wait(lease, clock)
            if lease.image.image_id not in self._truth:
                client.skip(lease, "the simulation has no masks of this image")
                self.skipped.append(lease.task_id)
                return True
            self._annotate_task(place, client, lease, clock, slowness)
            return True

        self._live(place, person, work)

    def _review(self, place: int, person: Invited) -> None:
        reviewer = SimulatedReviewer(self._truth, sent_back=self._sent_back)

        def work(client: AnnotationClient, clock: SimulatedClock, slowness: float) -> bool:
            lease = client.next_review(self._campaign_id)
            if isinstance(lease, NothingToDo):
                return self._wait(lease, clock)
            pace = Pace(self._plan.timing, self._random(place, lease), slowness)
            self.reviews.append(reviewer.review(client, lease, clock, pace))
            return True

        self._live(place, person, work)

    def _live(
        self,
        place: int,
        person: Invited,
        work: Callable[[AnnotationClient, SimulatedClock, float], bool],
    ) -> None:
        """Join, then do one task after the other until there is none or the time is up."""
        plan = self._plan
        slowness = Pace(plan.timing, np.random.default_rng([plan.seed, place])).slowness
        seconds = float("inf") if plan.minutes is None else plan.minutes * 60
        if plan.speed > 0:
            self._stop.wait(place / (plan.annotators + plan.reviewers) * plan.arrival_seconds)
        clock = SimulatedClock(
            round(current_time().timestamp() * 1000), plan.speed, seconds, self._stop
        )
        try:
            with AnnotationClient.join(
                self._address,
                person.token,
                patience=plan.patience,
                on_call=self.book.add,
                sleep=self._sleep,
            ) as client:
                while not clock.is_over:
                    try:
                        if not work(client, clock, slowness):
                            return
                    except LeaseLostError as error:
                        self.failures.append(
                            SimulationFailure(person.name, str(error), ended=False)
                        )
        except TimeIsUpError:
            return
        except EngineError as error:
            logger.warning("%s stops: %s", person.name, error)
            self.failures.append(SimulationFailure(person.name, str(error), ended=True))

    def _annotate_task(
        self,
        place: int,
        client: AnnotationClient,
        lease: TaskLease,
        clock: SimulatedClock,
        slowness: float,
    ) -> None:
        plan, random = self._plan, self._random(place, lease)
        with clock.waiting():
            if plan.loads_images:
                client.pixels(lease, preview=True)
            decoder, frame = self._decoders.of_task(client, lease)
        pace = Pace(plan.timing, random, slowness)
        page = SimulatedPage(client, lease, clock, pace, decoder, frame)
        person = SimulatedAnnotator(self._truth, place, plan.skill_of(place), random)
        self.outcomes.append(person.annotate(page))
        done = sum(outcome.acknowledged is not None for outcome in self.outcomes)
        self._on_progress(done, max(done, self._to_do))

    def _sleep(self, seconds: float) -> None:
        """Wait between attempts, unless everybody is to leave."""
        if self._stop.wait(seconds):
            raise TimeIsUpError("stopped while the service did not answer")

    def _random(self, place: int, lease: TaskLease) -> np.random.Generator:
        # Work that came back is done in another way, or it would come back for ever.
        return np.random.default_rng(
            [self._plan.seed, place, lease.image.image_id, int(lease.returned)]
        )

    def _wait(self, nothing: NothingToDo, clock: SimulatedClock) -> bool:
        """Wait for others; False where they leave nothing."""
        nobody_reviews = nothing.reason == "needs-review" and not self._plan.reviewers
        if nothing.reason in _NOTHING_MORE or nobody_reviews:
            return False
        clock.idle(_ASK_AGAIN_SECONDS, _ASK_AGAIN_REAL_SECONDS)
        return True
