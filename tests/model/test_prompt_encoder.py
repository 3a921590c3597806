from __future__ import annotations

import math

import pytest
import torch

from model.prompt_encoder import PromptEncoder, RandomFourierPositions
from model.types import ImageFeatures, InputPrompts
from tests.model.small_models import draw_weights

FEATURES = ImageFeatures(torch.zeros(1, 16, 4, 6))
PADDED = (64, 96)


@pytest.fixture
def encoder() -> PromptEncoder:
    encoder = PromptEncoder(16)
    draw_weights(encoder, 1)
    return encoder.requires_grad_(False)


def test_positions_are_sines_and_cosines_of_random_frequencies() -> None:
    layer = RandomFourierPositions(8)
    xy = torch.tensor([[0.25, 0.9]])
    g = layer.positional_encoding_gaussian_matrix
    angles = [2 * math.pi * float(-0.5 * g[0, i] + 0.8 * g[1, i]) for i in range(4)]
    wanted = [[*map(math.sin, angles), *map(math.cos, angles)]]
    torch.testing.assert_close(layer(xy), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_points_alone_get_a_padding_token_and_points_with_a_box_do_not(
    encoder: PromptEncoder,
) -> None:
    points, labels = torch.rand(3, 2, 2) * 60, torch.ones(3, 2, dtype=torch.long)
    boxes = torch.tensor([[1.0, 2.0, 30.0, 40.0]]).repeat(3, 1)
    alone = encoder.sparse(InputPrompts(points, labels, None, None), PADDED)
    boxed = encoder.sparse(InputPrompts(points, labels, boxes, None), PADDED)
    assert alone.shape == (3, 3, 16)
    assert boxed.shape == (3, 4, 16)
    assert torch.equal(alone[:, 2], encoder.not_a_point_embed.weight.expand(3, -1))
    assert torch.equal(alone[:, :2], boxed[:, :2])


def test_labels_choose_the_embedding(encoder: PromptEncoder) -> None:
    points = torch.tensor([[[10.0, 20.0]]]).repeat(3, 1, 1)
    tokens = encoder.sparse(
        InputPrompts(points, torch.tensor([[1], [0], [-1]]), None, None), PADDED
    )[:, 0]
    embeddings = [encoder.get_parameter(f"point_embeddings.{i}.weight")[0] for i in range(2)]
    torch.testing.assert_close(tokens[0] - tokens[1], embeddings[1] - embeddings[0])
    assert torch.equal(tokens[2], encoder.not_a_point_embed.weight[0])


def test_a_point_in_the_middle_of_an_image_token_has_that_tokens_position(
    encoder: PromptEncoder,
) -> None:
    grid = encoder.image_positions(4, 6)
    assert grid.shape == (1, 16, 4, 6)
    points = torch.tensor([[[16 * 5 + 7.5, 16 * 2 + 7.5]]], dtype=torch.float64)
    token = encoder.sparse(InputPrompts(points, torch.tensor([[1]]), None, None), PADDED)[0, 0]
    position = token - encoder.get_parameter("point_embeddings.1.weight")[0]
    torch.testing.assert_close(position, grid[0, :, 2, 5], rtol=1e-4, atol=1e-4)


def test_the_dense_part_is_shared_without_a_mask_and_per_prompt_with_one(
    encoder: PromptEncoder,
) -> None:
    boxes = torch.zeros(3, 4)
    bare = encoder(InputPrompts(None, None, boxes, None), FEATURES, PADDED)
    assert bare.dense_NCHW.shape == (1, 16, 4, 6)
    assert torch.equal(bare.dense_NCHW[0, :, 3, 5], encoder.no_mask_embed.weight[0])
    logits = torch.randn(3, 1, 16, 24)
    masked = encoder(InputPrompts(None, None, boxes, logits), FEATURES, PADDED)
    assert masked.dense_NCHW.shape == (3, 16, 4, 6)
    assert not torch.equal(masked.dense_NCHW[0], masked.dense_NCHW[1])


def test_a_mask_alone_gives_no_tokens(encoder: PromptEncoder) -> None:
    encoded = encoder(InputPrompts(None, None, None, torch.zeros(2, 1, 16, 24)), FEATURES, PADDED)
    assert encoded.sparse_NTC.shape == (2, 0, 16)
    assert encoded.guidance_NGhw is None
