from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from engine.annotation.decoder_files import read_description
from engine.annotation.embeddings import read_embedding
from engine.annotation.model_service import ModelService
from engine.annotation.records import BoxPrompt, CampaignImage, PointPrompt
from engine.errors import BadInputError, ImageError
from engine.images import content_id, encode_png
from engine.learning.registry import register
from engine.objects import LocalStore
from engine.records import ModelOrigin
from model import Prompts, Sam
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam

NOW = datetime(2026, 11, 21, tzinfo=UTC)
HEIGHT, WIDTH = 90, 120
CLICK = PointPrompt(60.0, 40.0, 1)


@pytest.fixture(scope="module")
def models() -> tuple[Sam, Sam]:
    return small_sam(SMALL_VIT), small_sam(SMALL_COMPACT)


@pytest.fixture
def service(models: tuple[Sam, Sam], tmp_path: Path) -> Iterator[ModelService]:
    store = LocalStore(tmp_path / "workspace")
    for sam in models:
        register(store, sam, ModelOrigin(kind="imported", source="test"), now=NOW)
    with ModelService(store, tmp_path / "local", device="cpu", threads=1) as service:
        yield service


@pytest.fixture
def image(tmp_path: Path) -> CampaignImage:
    data = encode_png(random_image(HEIGHT, WIDTH))
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    return CampaignImage(
        image_id=content_id(data)[0], width=WIDTH, height=HEIGHT, uri=path.as_uri()
    )


def test_every_model_of_the_workspace_encodes_and_answers(
    service: ModelService, models: tuple[Sam, Sam], image: CampaignImage
) -> None:
    for sam in models:
        model_id = sam.model_id()
        data = service.embedding(model_id, image, wait_seconds=60)
        assert data is not None
        assert read_embedding(data).model_id == model_id
        assert read_description(service.decoder_folder(model_id)).model_id == model_id
        answer = service.decode(model_id, image, [CLICK], None)
        assert answer is not None
        tensors = load(answer)
        assert tensors["iou"].shape == (4,)
        assert tensors["logits"].dtype == tensors["iou"].dtype == np.float16
        prompts = Prompts(points_xy=np.array([[[60.0, 40.0]]]), point_labels=np.array([[1]]))
        scored = sam.score(sam.encode(random_image(HEIGHT, WIDTH)), prompts)
        wanted = sam.draw(scored)[0].numpy()
        assert tensors["logits"].shape == wanted.shape
        assert np.abs(tensors["iou"] - scored.iou_N4[0].numpy()).max() < 0.02
        assert ((tensors["logits"] > 0) == (wanted > 0)).mean() > 0.98


def test_a_mask_goes_back_in_as_float16(
    service: ModelService, models: tuple[Sam, Sam], image: CampaignImage
) -> None:
    model_id = models[0].model_id()
    first = service.decode(model_id, image, [CLICK], None)
    assert first is not None
    logits = load(first)["logits"][1]
    again = service.decode(model_id, image, [CLICK], logits.tobytes())
    assert again is not None
    assert not np.array_equal(load(again)["logits"], load(first)["logits"])
    with pytest.raises(BadInputError, match=r"32 x 32 float16, 2048 bytes; got 3"):
        service.decode(model_id, image, [CLICK], b"abc")
    with pytest.raises(BadInputError, match="finite"):
        service.decode(model_id, image, [CLICK], np.full((32, 32), np.inf, "<f2").tobytes())


def test_two_boxes_for_one_mask_are_refused(
    service: ModelService, models: tuple[Sam, Sam], image: CampaignImage
) -> None:
    box = BoxPrompt(10.0, 10.0, 60.0, 60.0)
    model_id = models[0].model_id()
    assert service.decode(model_id, image, [box, CLICK], None) is not None
    with pytest.raises(BadInputError, match="at most one box; got 2"):
        service.decode(model_id, image, [box, box], None)


def test_images_made_ahead_are_there_when_they_are_needed(
    service: ModelService, models: tuple[Sam, Sam], image: CampaignImage, tmp_path: Path
) -> None:
    model_id = models[0].model_id()
    service.prepare_ahead(model_id, [image])
    made = service.embedding_later(model_id, image).result(60)
    Path(image.uri.removeprefix("file://")).unlink()
    assert service.embedding(model_id, image, wait_seconds=0.0) == made
    assert service.alive


def test_an_unknown_model_is_named(service: ModelService, image: CampaignImage) -> None:
    for ask in (
        lambda: service.embedding("m-unknown", image, wait_seconds=60),
        lambda: service.decoder_folder("m-unknown"),
        lambda: service.decode("m-unknown", image, [CLICK], None),
    ):
        with pytest.raises(BadInputError, match="unknown model 'm-unknown'"):
            ask()


def test_a_file_that_changed_since_it_was_ingested_is_not_encoded(
    service: ModelService, models: tuple[Sam, Sam], image: CampaignImage
) -> None:
    Path(image.uri.removeprefix("file://")).write_bytes(encode_png(random_image(8, 8)))
    with pytest.raises(ImageError, match="not the one that was ingested"):
        service.embedding(models[0].model_id(), image, wait_seconds=60)
