"""Our SAM against an independent one: transformers' `SamModel` with random weights, offline.

Norms of its two-way blocks get epsilon 1e-5, as in the official code; its own default is 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from model import Sam, SamConfig
from model.image_encoder import VitConfig
from model.types import ImageFeatures, InputPrompts
from tests.model.small_models import draw_weights, relative_error
from tests.model.transformers_names import official_names

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Pair:
    """The oracle and ours, with the same weights."""

    oracle: Any
    ours: Sam

    @property
    def side(self) -> int:
        """Side of the square input in pixels."""
        return self.ours.config.image_size

    @property
    def grid(self) -> int:
        """Side of the image embedding in tokens."""
        return self.side // 16


def build_pair(
    image_size: int, encoder: VitConfig, *, dim: int, mlp_dim: int, decoder_heads: int = 8
) -> Pair:
    """Build both with the same random weights."""
    theirs = transformers.SamConfig(
        vision_config={
            "hidden_size": encoder.width,
            "output_channels": dim,
            "num_hidden_layers": encoder.depth,
            "num_attention_heads": encoder.heads,
            "image_size": image_size,
            "window_size": encoder.window_size,
            "global_attn_indexes": list(encoder.global_blocks),
            "num_pos_feats": dim // 2,
        },
        prompt_encoder_config={"hidden_size": dim, "image_size": image_size},
        mask_decoder_config={
            "hidden_size": dim,
            "mlp_dim": mlp_dim,
            "num_attention_heads": decoder_heads,
            "layer_norm_eps": 1e-5,
        },
    )
    oracle = transformers.SamModel(theirs).eval()
    draw_weights(oracle, seed=1)
    # Both names of the shared positional frequencies must hold the same values.
    oracle.prompt_encoder.shared_embedding.positional_embedding.data.copy_(
        oracle.shared_image_embedding.positional_embedding.data.normal_(
            generator=torch.Generator().manual_seed(2)
        )
    )
    ours = Sam(
        SamConfig(
            name="oracle",
            encoder=encoder,
            image_size=image_size,
            dim=dim,
            decoder_heads=decoder_heads,
            decoder_mlp_dim=mlp_dim,
        )
    ).eval()
    ours.load_state_dict(official_names(oracle.state_dict()))
    return Pair(oracle, ours)


@pytest.fixture(scope="module")
def pair() -> Pair:
    # A grid of 20 in windows of 14: windows are padded on both sides.
    encoder = VitConfig(width=48, depth=4, heads=3, global_blocks=(1, 3))
    return build_pair(320, encoder, dim=64, mlp_dim=96)


@pytest.fixture(scope="module")
def pair_of_official_decoder_size() -> Pair:
    encoder = VitConfig(width=16, depth=1, heads=1, global_blocks=())
    return build_pair(1024, encoder, dim=256, mlp_dim=2048)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def points_and_labels(side: int, count: int) -> tuple[Tensor, Tensor]:
    """Four points per prompt: foreground, background, padding and another foreground point."""
    generator = torch.Generator().manual_seed(3)
    points = torch.rand(count, 4, 2, generator=generator) * (side + 20) - 10
    return points, torch.tensor([1, 0, -1, 1]).repeat(count, 1)


def boxes(side: int, count: int) -> Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(4)) * side
    return corners.sort(dim=1).values.flatten(1)


def prompts_of_kind(kind: str, side: int, count: int = 3) -> InputPrompts:
    points, labels = points_and_labels(side, count)
    logits = 5 * random(5, count, 1, side // 4, side // 4)
    return InputPrompts(
        points if "points" in kind else None,
        labels if "points" in kind else None,
        boxes(side, count) if "boxes" in kind else None,
        logits if "masks" in kind else None,
    )


def oracle_prompts(oracle: Any, prompts: InputPrompts) -> tuple[Tensor | None, Tensor]:
    """Encode with the oracle: one image, so axis 0 is added; a mask goes in for each prompt."""

    def with_image_axis(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.unsqueeze(0)

    sparse, dense = oracle.get_prompt_embeddings(
        with_image_axis(prompts.points_NK2),
        with_image_axis(prompts.labels_NK),
        with_image_axis(prompts.boxes_N4),
        prompts.mask_logits_N1hw,
    )
    return sparse, dense


KINDS = ("points", "boxes", "points+boxes", "masks", "points+masks", "points+boxes+masks")


def test_every_official_name_is_mapped_and_loads(pair: Pair) -> None:
    names = official_names(pair.oracle.state_dict())
    assert set(names) == set(pair.ours.state_dict())


@torch.no_grad()
def test_the_image_encoder_agrees_when_windows_are_padded(pair: Pair) -> None:
    pixels = random(6, 2, 3, pair.side, pair.side)
    wanted = pair.oracle.get_image_embeddings(pixels)
    got = pair.ours.image_encoder(pixels).coarse_BCHW
    assert got.shape == wanted.shape == (2, 64, 20, 20)
    assert relative_error(got, wanted) < TOLERANCE


@torch.no_grad()
def test_the_image_encoder_agrees_on_the_official_grid_of_64() -> None:
    encoder = VitConfig(width=16, depth=2, heads=1, global_blocks=(1,))
    pair = build_pair(1024, encoder, dim=16, mlp_dim=16, decoder_heads=2)
    pixels = random(7, 1, 3, 1024, 1024)
    wanted = pair.oracle.get_image_embeddings(pixels)
    got = pair.ours.image_encoder(pixels).coarse_BCHW
    assert relative_error(got, wanted) < TOLERANCE


@torch.no_grad()
def test_the_positional_encoding_of_the_image_agrees(pair: Pair) -> None:
    wanted = pair.oracle.get_image_wide_positional_embeddings()
    got = pair.ours.prompt_encoder.image_positions(pair.grid, pair.grid)
    assert relative_error(got, wanted) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_encoder_agrees(pair: Pair, kind: str) -> None:
    prompts = prompts_of_kind(kind, pair.side)
    features = ImageFeatures(random(8, 1, 64, pair.grid, pair.grid))
    sparse, dense = oracle_prompts(pair.oracle, prompts)
    got = pair.ours.prompt_encoder(prompts, features, (pair.side, pair.side))
    if sparse is None:
        assert got.sparse_NTC.shape == (3, 0, 64)
    else:
        assert got.sparse_NTC.shape == sparse[0].shape
        assert relative_error(got.sparse_NTC, sparse[0]) < TOLERANCE
    assert relative_error(got.dense_NCHW.expand_as(dense), dense) < TOLERANCE


def oracle_answer(
    oracle: Any, features_1CHW: Tensor, prompts: InputPrompts
) -> tuple[Tensor, Tensor]:
    """All four masks and IoUs of N prompts on one image."""
    sparse, dense = oracle_prompts(oracle, prompts)
    positions = oracle.get_image_wide_positional_embeddings()
    masks, ious = [], []
    # The oracle adds one dense map per image, so prompts with their own masks go as N images.
    if prompts.mask_logits_N1hw is not None:
        sparse = None if sparse is None else sparse[0].unsqueeze(1)
        features_1CHW = features_1CHW.expand(len(prompts), -1, -1, -1)
        positions = positions.expand(len(prompts), -1, -1, -1)
    for multimask in (False, True):
        drawn, scores = oracle.mask_decoder(features_1CHW, positions, sparse, dense, multimask)
        masks.append(drawn.flatten(0, 1))
        ious.append(scores.flatten(0, 1))
    return torch.cat(masks, dim=1), torch.cat(ious, dim=1)


def assert_answers_agree(pair: Pair, features: ImageFeatures, prompts: InputPrompts) -> None:
    wanted_logits, wanted_iou = oracle_answer(pair.oracle, features.coarse_BCHW, prompts)
    scored = pair.ours.score_input(features, prompts, (pair.side, pair.side))
    logits = pair.ours.draw(scored)
    assert logits.shape == wanted_logits.shape == (len(prompts), 4, 4 * pair.grid, 4 * pair.grid)
    assert relative_error(logits, wanted_logits) < TOLERANCE
    assert relative_error(scored.iou_N4, wanted_iou) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_iou_of_all_four_tokens_agree(pair: Pair, kind: str) -> None:
    features = ImageFeatures(random(9, 1, 64, pair.grid, pair.grid))
    assert_answers_agree(pair, features, prompts_of_kind(kind, pair.side))


@torch.no_grad()
def test_prompts_of_several_images_agree_with_one_image_after_the_other(pair: Pair) -> None:
    maps = random(10, 2, 64, pair.grid, pair.grid)
    prompts = prompts_of_kind("points", pair.side, count=4)
    owner = torch.tensor([0, 1, 1, 0])
    scored = pair.ours.score_input(
        ImageFeatures(maps).owned_by(owner), prompts, (pair.side, pair.side)
    )
    logits = pair.ours.draw(scored)
    for image in (0, 1):
        mine = owner == image
        assert prompts.points_NK2 is not None
        assert prompts.labels_NK is not None
        own = InputPrompts(prompts.points_NK2[mine], prompts.labels_NK[mine], None, None)
        wanted_logits, wanted_iou = oracle_answer(pair.oracle, maps[image : image + 1], own)
        assert relative_error(logits[mine], wanted_logits) < TOLERANCE
        assert relative_error(scored.iou_N4[mine], wanted_iou) < TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_the_decoder_of_official_size_agrees(
    pair_of_official_decoder_size: Pair, kind: str
) -> None:
    features = ImageFeatures(random(11, 1, 256, 64, 64))
    assert_answers_agree(pair_of_official_decoder_size, features, prompts_of_kind(kind, 1024, 2))


@torch.no_grad()
def test_the_oracle_notices_a_single_changed_weight(pair: Pair) -> None:
    features = ImageFeatures(random(12, 1, 64, pair.grid, pair.grid))
    prompts = prompts_of_kind("points", pair.side)
    weight = pair.ours.get_parameter("mask_decoder.transformer.layers.0.self_attn.q_proj.weight")
    before = weight.clone()
    weight[0] += 1.0
    try:
        with pytest.raises(AssertionError):
            assert_answers_agree(pair, features, prompts)
    finally:
        weight.copy_(before)
