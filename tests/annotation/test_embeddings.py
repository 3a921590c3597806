from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.annotation.embeddings import embedding_bytes, read_embedding
from engine.errors import TerminalError, WorkspaceError
from model import Sam, SamConfig
from model.decoder_graphs import named_features
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, random_image, small_sam


@pytest.fixture(scope="module", params=[SMALL_VIT, SMALL_COMPACT], ids=["vit", "compact"])
def sam(request: pytest.FixtureRequest) -> Sam:
    config: SamConfig = request.param
    return small_sam(config)


def test_an_embedding_is_read_back_as_the_model_made_it(sam: Sam) -> None:
    image = random_image(60, 200)
    read = read_embedding(embedding_bytes(sam, image))
    embedding = sam.encode(image)
    assert read.model_id == sam.model_id()
    frame = embedding.frame
    assert read.frame.original_size == frame.original_size == (60, 200)
    assert read.frame.input_size == frame.input_size
    assert read.frame.padded_size == frame.padded_size
    levels = named_features(embedding.features)
    assert set(read.tensors) == set(levels)
    for name, level in levels.items():
        assert read.tensors[name].dtype == np.float16
        assert np.array_equal(read.tensors[name], level.half().numpy())


def test_the_same_image_gives_the_same_bytes(sam: Sam) -> None:
    first, again = (embedding_bytes(sam, random_image(90, 120)) for _ in range(2))
    assert first == again


def test_a_model_id_that_is_known_is_taken(sam: Sam) -> None:
    assert read_embedding(embedding_bytes(sam, random_image(9, 9), "m-1")).model_id == "m-1"


def test_features_beyond_float16_are_not_written() -> None:
    sam = small_sam(SMALL_COMPACT)
    with torch.no_grad():
        sam.image_encoder.laterals[2].bias += 1e6  # type: ignore[index, union-attr]
    with pytest.raises(TerminalError, match="not finite in float16"):
        embedding_bytes(sam, random_image(64, 64))


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "other"])
def test_damaged_embeddings_are_named(sam: Sam, damage: str) -> None:
    data = embedding_bytes(sam, random_image(64, 64))
    damaged = {
        "cut": data[:-100],
        "empty": b"",
        "header": b"\xff" * 8 + data[8:],
        "other": b"no embedding at all, but long enough to have a header",
    }[damage]
    with pytest.raises(WorkspaceError, match="damaged embedding"):
        read_embedding(damaged)
