"""Processes that work on one annotation database at the same time, or are killed at it.

    python -m tests.annotation.annotation_processes lease URL SCHEMA CAMPAIGN PERSON ...
    python -m tests.annotation.annotation_processes submit URL SCHEMA CAMPAIGN PERSON ...

One thread per person. ``lease`` gives out everything there is: it prints a line ``<task> <person>``
for each lease, and leaves the task as it is, skipped. ``submit`` hands in a mask with three
events for each task, and prints a line ``<submission id> <task> <person>`` once it was taken:
whoever kills it knows what was acknowledged.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from engine.annotation.database import Database, open_database
from engine.annotation.records import Lease
from engine.annotation.submissions import submit
from engine.annotation.tasks import lease_next, skip
from tests.annotation.annotation_builders import NOW, a_submission, an_object, some_events

_printing = threading.Lock()


def say(*words: object) -> None:
    # One write, so that a kill cannot leave half a line that counts.
    with _printing:
        os.write(1, (" ".join(map(str, words)) + "\n").encode())


def lease_all(db: Database, campaign_id: str, person: str) -> None:
    while isinstance(lease := lease_next(db, campaign_id, person, now=NOW), Lease):
        say(lease.task.task_id, person)
        skip(db, lease.key, "counted", now=NOW)


def submit_all(db: Database, campaign_id: str, person: str) -> None:
    while isinstance(lease := lease_next(db, campaign_id, person, now=NOW), Lease):
        events = some_events((0, None), (1, "a"), (2, "a"))
        handed_in = a_submission(an_object("a"), events=events)
        submit(db, lease.key, handed_in, now=NOW)
        say(handed_in.submission_id, lease.task.task_id, person)


def main() -> None:
    mode, url, schema, campaign_id, *people = sys.argv[1:]
    work = {"lease": lease_all, "submit": submit_all}[mode]
    with open_database(url, schema=schema) as db, ThreadPoolExecutor(len(people)) as pool:
        list(pool.map(lambda person: work(db, campaign_id, person), people))


if __name__ == "__main__":
    main()
