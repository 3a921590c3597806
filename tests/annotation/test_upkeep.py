"""A service that goes on: campaigns come and go in other processes, and are looked after."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.annotation.campaigns import add_images, close_campaign, reopen_campaign
from engine.annotation.database import Database
from engine.annotation.embeddings import embedding_key
from engine.annotation.records import CampaignImage
from engine.annotation.upkeep import Upkeep
from engine.errors import BadInputError
from engine.objects import LocalStore
from tests.annotation.annotation_builders import NOW, a_campaign, an_image

_PATIENCE_SECONDS = 30


class Notes:
    """What was asked of the models, by an upkeep that looks all the time."""

    def __init__(self, room: int = 1000) -> None:
        self.decoders: list[str] = []
        self.ahead: list[int] = []
        self.forgotten: list[int] = []
        self.unusable = False
        self._room = room
        self._looked = threading.Event()

    def decoder_folder(self, model_id: str) -> Path:
        self.decoders.append(model_id)
        self._looked.set()
        if self.unusable:
            raise BadInputError("unknown model")
        return Path("decoder")

    def prepare_ahead(self, model_id: str, images: tuple[CampaignImage, ...]) -> int:
        taken_on = [image.image_id for image in images[: self._room]]
        self.ahead += taken_on
        return len(taken_on)

    def forget_ahead(self, model_id: str, images: tuple[CampaignImage, ...]) -> None:
        self.forgotten += [image.image_id for image in images]

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not is_so():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    def another_look(self) -> None:
        """Wait until a campaign was looked after from beginning to end."""
        for _ in range(2):
            self._looked.clear()
            assert self._looked.wait(_PATIENCE_SECONDS)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "workspace")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def upkeep(db: Database, store: LocalStore, notes: Notes) -> Iterator[Upkeep]:
    with Upkeep(db, store, notes, every_seconds=0.01, ahead=5) as running:
        yield running


def test_a_campaign_that_another_process_opens_is_made_ready(
    db: Database, notes: Notes, upkeep: Upkeep
) -> None:
    assert notes.decoders == []
    a_campaign(db, 3)
    notes.wait_for(lambda: notes.ahead == [101, 102, 103])
    assert set(notes.decoders) == {"model-1"}
    notes.another_look()
    assert notes.ahead == [101, 102, 103]  # once


def test_images_that_come_later_are_made_ready_up_to_a_number(
    db: Database, notes: Notes, upkeep: Upkeep
) -> None:
    campaign = a_campaign(db, 3)
    notes.wait_for(lambda: len(notes.ahead) == 3)
    add_images(db, campaign.campaign_id, [an_image(number) for number in range(201, 211)], now=NOW)
    notes.wait_for(lambda: len(notes.ahead) == 5)
    notes.another_look()
    assert notes.ahead == [101, 102, 103, 201, 202]


def test_what_is_encoded_already_is_not_asked_for(
    db: Database, store: LocalStore, notes: Notes
) -> None:
    store.put_if_absent(embedding_key("model-1", 102), b"made before")
    store.put_if_absent(embedding_key("model-2", 101), b"of another model")
    a_campaign(db, 3)
    with Upkeep(db, store, notes, every_seconds=0.01):
        notes.wait_for(lambda: notes.ahead == [101, 103])
        notes.another_look()
    assert notes.ahead == [101, 103]


def test_a_closed_campaign_is_forgotten_and_a_reopened_one_is_not(
    db: Database, notes: Notes, upkeep: Upkeep
) -> None:
    campaign = a_campaign(db, 2)
    other = a_campaign(db, 1, name="others")  # it has image 101 as well
    notes.wait_for(lambda: len(notes.ahead) == 3)
    close_campaign(db, campaign.campaign_id, now=NOW)
    notes.wait_for(lambda: notes.forgotten == [102])
    close_campaign(db, other.campaign_id, now=NOW)
    notes.wait_for(lambda: notes.forgotten == [102, 101])
    reopen_campaign(db, campaign.campaign_id)
    notes.wait_for(lambda: notes.ahead[3:] == [101, 102])


def test_what_the_queue_has_no_room_for_is_asked_for_again(db: Database, store: LocalStore) -> None:
    notes = Notes(room=1)
    a_campaign(db, 3)
    with Upkeep(db, store, notes, every_seconds=0.01):
        notes.wait_for(lambda: notes.ahead == [101, 102, 103])


def test_a_model_that_cannot_be_used_is_said_once_and_tried_again(
    db: Database, notes: Notes, upkeep: Upkeep, caplog: pytest.LogCaptureFixture
) -> None:
    notes.unusable = True
    with caplog.at_level(logging.WARNING):
        a_campaign(db, 1)
        notes.another_look()
        notes.another_look()
        assert notes.ahead == []
        notes.unusable = False
        notes.wait_for(lambda: notes.ahead == [101])
    assert caplog.text.count("its model cannot be used: unknown model") == 1
