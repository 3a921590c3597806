"""Many people at once, many processes, and a kill -9 in the middle: nothing is lost or doubled."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from engine.annotation.campaigns import campaign_state
from engine.annotation.database import Database
from engine.annotation.drafts import save_draft
from engine.annotation.errors import DraftConflictError, LeaseLostError
from engine.annotation.events import append_events, events_of
from engine.annotation.records import DraftContent, Lease
from engine.annotation.submissions import finished_tasks, submission, submit
from engine.annotation.tables import EventRow, SubmissionRow, SubmittedObjectRow
from engine.annotation.tasks import lease_next, skip
from tests.annotation.annotation_builders import (
    NOW,
    PAGE,
    a_campaign,
    a_lease,
    a_person,
    a_submission,
    an_object,
    at,
    some_events,
)

Address = tuple[str, str]
REPOSITORY = Path(__file__).resolve().parents[2]


def worker(mode: str, address: Address, campaign_id: str, people: Sequence[str]) -> list[str]:
    module = "tests.annotation.annotation_processes"
    return [sys.executable, "-m", module, mode, *address, campaign_id, *people]


def some_people(db: Database, number: int) -> list[str]:
    return [a_person(db, f"Person {i}") for i in range(number)]


def test_eight_threads_take_every_task_once(db: Database) -> None:
    campaign = a_campaign(db, images=40)
    people = some_people(db, 8)

    def take_all(person: str) -> list[int]:
        taken = []
        while isinstance(lease := lease_next(db, campaign.campaign_id, person, now=NOW), Lease):
            taken.append(lease.task.task_id)
            skip(db, lease.key, "counted", now=NOW)
        return taken

    with ThreadPoolExecutor(8) as pool:
        taken = [task_id for found in pool.map(take_all, people) for task_id in found]
    assert Counter(taken) == Counter(range(min(taken), min(taken) + 40))


def test_processes_take_every_task_once_and_nobody_an_image_twice(
    db: Database, database_address: Address
) -> None:
    campaign = a_campaign(db, images=20, annotators_per_image=2)
    people = some_people(db, 8)
    running = [
        subprocess.Popen(
            worker("lease", database_address, campaign.campaign_id, people[i::2]),
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        for i in range(2)
    ]
    lines = [line.split() for process in running for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in running] == [0, 0]
    assert len(lines) == len({task for task, _ in lines}) == 40
    counts = campaign_state(db, campaign.campaign_id, now=NOW).tasks
    assert (counts.skipped, counts.total) == (40, 40)


def test_one_person_in_eight_tabs_has_one_task(db: Database) -> None:
    campaign, ada = a_campaign(db, images=9), a_person(db)

    def ask(_: int) -> Lease:
        return a_lease(db, campaign, ada)

    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(ask, range(8)))
    assert len({lease.task.task_id for lease in leases}) == 1
    assert len({lease.key.lease_id for lease in leases}) == 8
    assert campaign_state(db, campaign.campaign_id, now=NOW).tasks.leased == 1


def test_a_submission_that_is_sent_eight_times_at_once_is_taken_once(db: Database) -> None:
    campaign, ada = a_campaign(db, images=1), a_person(db)
    lease = a_lease(db, campaign, ada)
    handed_in = a_submission(an_object("a"), events=some_events((0, "a"), (1, "a")))
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda _: submit(db, lease.key, handed_in, now=NOW), range(8)))
    assert len(set(receipts)) == 1
    assert len(list(finished_tasks(db, campaign.campaign_id))) == 1


def test_two_submissions_of_one_task_at_once_one_is_taken(db: Database) -> None:
    campaign, ada = a_campaign(db, images=1), a_person(db)
    lease = a_lease(db, campaign, ada)

    def hand_in(_: int) -> str:
        handed_in = a_submission(an_object("a"))
        try:
            return submit(db, lease.key, handed_in, now=NOW).submission_id
        except LeaseLostError:
            return ""

    with ThreadPoolExecutor(6) as pool:
        taken = [submission_id for submission_id in pool.map(hand_in, range(6)) if submission_id]
    assert len(taken) == 1
    [found] = finished_tasks(db, campaign.campaign_id)
    assert found.submission.submission_id == taken[0]


def test_a_lease_that_is_over_goes_to_one_of_many_who_ask(db: Database) -> None:
    campaign = a_campaign(db, images=1)
    ada, *others = some_people(db, 7)
    hers = a_lease(db, campaign, ada)

    def ask(person: str) -> Lease | None:
        found = lease_next(db, campaign.campaign_id, person, now=at(500))
        return found if isinstance(found, Lease) else None

    with ThreadPoolExecutor(6) as pool:
        leases = [lease for lease in pool.map(ask, others) if lease is not None]
    assert len(leases) == 1
    with pytest.raises(LeaseLostError):
        submit(db, hers.key, a_submission(an_object("a")), now=at(501))


def test_of_drafts_saved_at_once_one_wins_and_the_others_are_told(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))

    def save(number: int) -> str:
        content = DraftContent(deleted=(f"by-{number}",))
        try:
            return f"saved {save_draft(db, lease.key, 0, content, now=NOW)}"
        except DraftConflictError as conflict:
            return f"there is {conflict.version}"

    with ThreadPoolExecutor(6) as pool:
        answers = Counter(pool.map(save, range(6)))
    assert answers == {"saved 1": 1, "there is 1": 5}


def test_event_batches_that_overlap_at_once_are_stored_once(db: Database) -> None:
    lease = a_lease(db, a_campaign(db), a_person(db))
    events = some_events(*((i, "a") for i in range(30)))

    def send(number: int) -> int:
        return append_events(db, lease.key, PAGE, events[: 10 + 4 * number], now=NOW)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(send, range(6))) == 30
    assert [e.event for e in events_of(db, lease.task.task_id)] == events


def test_what_was_acknowledged_survives_kill_9(db: Database, database_address: Address) -> None:
    campaign = a_campaign(db, images=400)
    people = some_people(db, 4)
    acknowledged: list[tuple[str, int, str]] = []
    for killed_after in (7, 12):
        process = subprocess.Popen(
            worker("submit", database_address, campaign.campaign_id, people),
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert process.stdout is not None
        for number, line in enumerate(process.stdout, start=1):
            submission_id, task_id, person = line.split()
            acknowledged.append((submission_id, int(task_id), person))
            if number == killed_after:
                process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert len(acknowledged) >= 19
    for submission_id, task, person in acknowledged:
        found = submission(db, submission_id)
        assert (found.task_id, found.annotator_id, len(found.objects)) == (task, person, 1)
        assert (found.active_seconds, found.objects[0].active_seconds) == (2.0, 2.0)
        assert len(events_of(db, task, person)) == 3
    with db.reading() as session:
        # What was in the air is there wholly or not at all.
        submissions = session.scalars(select(SubmissionRow.task_id)).all()
        objects = session.scalar(select(func.count()).select_from(SubmittedObjectRow))
        events = session.scalar(select(func.count()).select_from(EventRow))
    assert len(submissions) == len(set(submissions)) == objects
    assert events == 3 * len(submissions)
    counts = campaign_state(db, campaign.campaign_id, now=NOW).tasks
    assert counts.accepted == len(submissions)
    # And everybody goes on.
    lease = a_lease(db, campaign, people[0])
    assert submit(db, lease.key, a_submission(an_object("a")), now=NOW).state == "accepted"
