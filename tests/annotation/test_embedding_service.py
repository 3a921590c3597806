from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from engine.annotation.embedding_service import EmbeddingService
from engine.annotation.embeddings import embedding_key
from engine.annotation.records import CampaignImage
from engine.errors import ImageError, TransientError
from engine.objects import LocalStore, ObjectStore

MODEL = "m-0123"


def image(number: int) -> CampaignImage:
    return CampaignImage(image_id=number, width=4, height=3)


class Encoder:
    """Stands for the model: notes what it encodes, may be held up, fails for images below 0."""

    def __init__(self, *, held: bool = False) -> None:
        self.encoded: list[int] = []
        self.go = threading.Event()
        self.started = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, model_id: str, image: CampaignImage) -> bytes:
        self.started.set()
        assert self.go.wait(10)
        self.encoded.append(image.image_id)
        if image.image_id < 0:
            raise ImageError("corrupt" if image.image_id == -1 else "unreachable", "no picture")
        return f"{model_id} {image.image_id}".encode()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return LocalStore(tmp_path)


def test_an_image_is_encoded_once_and_kept_for_the_next_service(store: ObjectStore) -> None:
    for encoder, expected in ((Encoder(), [5]), (Encoder(), [])):
        with EmbeddingService(store, encoder) as service:
            for _ in range(2):
                assert service.get(MODEL, image(5), timeout_seconds=10) == b"m-0123 5"
            assert service.find(MODEL, 5) == b"m-0123 5"
        assert encoder.encoded == expected
    assert store.get(embedding_key(MODEL, 5)) == b"m-0123 5"


def test_models_have_their_own_embeddings(store: ObjectStore) -> None:
    with EmbeddingService(store, Encoder()) as service:
        assert service.get("a", image(5), timeout_seconds=10) == b"a 5"
        assert service.get("b", image(5), timeout_seconds=10) == b"b 5"


def test_what_a_person_waits_for_overtakes_what_is_made_ahead(store: ObjectStore) -> None:
    encoder = Encoder(held=True)
    with EmbeddingService(store, encoder) as service:
        service.prefetch(MODEL, [image(1), image(2), image(3)])
        assert encoder.started.wait(10)
        waited_for = service.request(MODEL, image(4), urgent=True)
        encoder.go.set()
        assert waited_for.result(10) == b"m-0123 4"
        assert service.get(MODEL, image(3), timeout_seconds=10) == b"m-0123 3"
    assert encoder.encoded[:2] == [1, 4]


def test_everyone_who_waits_for_the_same_image_gets_it_from_one_encoding(
    store: ObjectStore,
) -> None:
    encoder = Encoder(held=True)
    with EmbeddingService(store, encoder) as service:
        asked = [service.request(MODEL, image(7), urgent=urgent) for urgent in (False, True, True)]
        encoder.go.set()
        assert {future.result(10) for future in asked} == {b"m-0123 7"}
    assert encoder.encoded == [7]


def test_who_cannot_wait_gets_nothing_yet_and_finds_it_later(store: ObjectStore) -> None:
    encoder = Encoder(held=True)
    with EmbeddingService(store, encoder) as service:
        assert service.get(MODEL, image(1), timeout_seconds=0.01) is None
        assert service.find(MODEL, 1) is None
        encoder.go.set()
        assert service.get(MODEL, image(1), timeout_seconds=10) == b"m-0123 1"
    assert encoder.encoded == [1]


def test_an_image_that_cannot_be_used_is_told_and_not_tried_again(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Encoder()
    with EmbeddingService(store, encoder) as service:
        for _ in range(2):
            with pytest.raises(ImageError, match="no picture"):
                service.get(MODEL, image(-1), timeout_seconds=10)
        service.prefetch(MODEL, [image(-1), image(2)])
        assert service.get(MODEL, image(2), timeout_seconds=10) == b"m-0123 2"
        failure = service.failure(MODEL, -1)
    assert failure is not None
    assert failure.reason == "corrupt"
    assert encoder.encoded == [-1, 2]
    assert "image -1 cannot be encoded: no picture" in caplog.text


def test_an_image_that_is_away_for_now_is_tried_again(store: ObjectStore) -> None:
    encoder = Encoder()
    with EmbeddingService(store, encoder) as service:
        for _ in range(2):
            with pytest.raises(ImageError):
                service.get(MODEL, image(-2), timeout_seconds=10)
        assert service.failure(MODEL, -2) is None
    assert encoder.encoded == [-2, -2]


def test_a_failure_of_the_encoder_is_logged_and_the_next_image_encoded(
    store: ObjectStore, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(model_id: str, image: CampaignImage) -> bytes:
        if image.image_id == 1:
            raise RuntimeError("out of memory")
        return b"fine"

    with EmbeddingService(store, encode) as service:
        with pytest.raises(RuntimeError, match="out of memory"):
            service.get(MODEL, image(1), timeout_seconds=10)
        assert service.get(MODEL, image(2), timeout_seconds=10) == b"fine"
        assert service.alive
    assert "image 1 was not encoded" in caplog.text


class FullStore(LocalStore):
    """A store that takes nothing for now."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        raise TransientError("the disk is full")


def test_a_store_that_takes_nothing_costs_a_warning_and_not_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING),
        EmbeddingService(FullStore(tmp_path), Encoder()) as service,
    ):
        assert service.get(MODEL, image(3), timeout_seconds=10) == b"m-0123 3"
    assert "was not stored: the disk is full" in caplog.text


def test_closing_tells_who_waits(store: ObjectStore) -> None:
    encoder = Encoder(held=True)
    service = EmbeddingService(store, encoder)
    first = service.request(MODEL, image(1), urgent=True)
    assert encoder.started.wait(10)
    second = service.request(MODEL, image(2), urgent=True)
    closing = threading.Thread(target=service.close)
    closing.start()
    while service.alive:
        closing.join(0.001)
    encoder.go.set()
    closing.join(10)
    assert first.result(10) == b"m-0123 1"
    with pytest.raises(TransientError, match="closing"):
        second.result(10)
    assert not service.alive
    service.prefetch(MODEL, [image(3)])
    assert encoder.encoded == [1]
