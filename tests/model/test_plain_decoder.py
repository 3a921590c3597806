"""The decoder against its plain form: folding, sharing and groups must not change a result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.images import decode_image
from model import SIZES, Prompts, build_sam, prompt_groups
from model.mask_decoder import MaskDecoder
from model.preprocess import to_input_frame
from model.types import EncodedPrompts, ImageFeatures
from tests.model.plain_decoder import plain_draw, plain_score
from tests.model.small_models import draw_weights, relative_error

H, W, C = 6, 5, 32


@pytest.fixture
def decoder() -> Iterator[MaskDecoder]:
    decoder = MaskDecoder(C, heads=4, mlp_dim=24)
    draw_weights(decoder, 1)
    with torch.inference_mode():
        yield decoder.double().requires_grad_(False)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def question(
    prompts: int, *, dense: int = 1, owner: list[int] | None = None
) -> tuple[ImageFeatures, Tensor, EncodedPrompts]:
    images = 1 if owner is None else 1 + max(owner)
    features = ImageFeatures(drawn(0, images, C, H, W))
    if owner is not None:
        features = features.owned_by(torch.tensor(owner))
    encoded = EncodedPrompts(drawn(1, prompts, 3, C), drawn(2, dense, C, H, W))
    return features, drawn(3, 1, C, H, W), encoded


@pytest.mark.parametrize(
    ("prompts", "dense", "owner"),
    [(1, 1, None), (5, 1, None), (5, 5, None), (3, 1, [1, 0, 1])],
    ids=["a click", "clicks on one image", "mask prompts", "several images"],
)
@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_scores_and_masks_are_those_of_the_plain_decoder(
    decoder: MaskDecoder,
    monkeypatch: pytest.MonkeyPatch,
    prompts: int,
    dense: int,
    owner: list[int] | None,
    at_once: int,
) -> None:
    monkeypatch.setattr(prompt_groups, "_BYTES_AT_ONCE", at_once * C * H * W * 8)
    asked = question(prompts, dense=dense, owner=owner)
    iou, tokens, image = plain_score(decoder, *asked)
    scored = decoder.score(*asked)
    torch.testing.assert_close(scored.iou_N4, iou, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scored.mask_tokens_N4C, tokens, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(scored.image_NCHW, image, rtol=1e-9, atol=1e-9)
    wanted = plain_draw(decoder, tokens, image)
    torch.testing.assert_close(decoder.draw(scored), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "chosen",
    [
        slice(1, 6, 2),
        slice(3, 3),
        torch.tensor([4, 0, 4]),
        torch.tensor([], dtype=torch.long),
        torch.tensor([True, False, True, True, False, False]),
    ],
    ids=["slice", "empty slice", "indices", "no indices", "mask"],
)
@pytest.mark.parametrize("at_once", [4, 8])
def test_any_choice_of_prompts_is_drawn_as_all_of_them_are(
    decoder: MaskDecoder, monkeypatch: pytest.MonkeyPatch, chosen: Tensor | slice, at_once: int
) -> None:
    scored = decoder.score(*question(6))
    every = decoder.draw(scored)
    monkeypatch.setattr(prompt_groups, "_BYTES_AT_ONCE", at_once * C * H * W * 8)
    torch.testing.assert_close(decoder.draw(scored, chosen), every[chosen], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dense", [1, 4])
def test_gradients_are_those_of_the_plain_decoder(dense: int) -> None:
    decoder = MaskDecoder(C, heads=4, mlp_dim=24).double()
    draw_weights(decoder, 1)
    asked = question(4, dense=dense)
    weigh_iou, weigh_mask = drawn(5, 4, 4), drawn(6, 4, 4, 4 * H, 4 * W)

    def gradients(iou: Tensor, logits: Tensor) -> list[Tensor | None]:
        loss = (iou * weigh_iou).sum() + (logits * weigh_mask).sum()
        return list(torch.autograd.grad(loss, list(decoder.parameters())))

    scored = decoder.score(*asked)
    ours = gradients(scored.iou_N4, decoder.draw(scored))
    iou, tokens, image = plain_score(decoder, *asked)
    plain = gradients(iou, plain_draw(decoder, tokens, image))
    largest = max(float(g.abs().max()) for g in plain if g is not None)
    for got, wanted in zip(ours, plain, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10 * largest)


def test_changed_weights_count_at_once(decoder: MaskDecoder) -> None:
    asked = question(4)
    before = decoder.score(*asked).iou_N4
    draw_weights(decoder, 2)
    wanted = plain_score(decoder, *asked)[0]
    assert relative_error(before, wanted) > 0.1
    torch.testing.assert_close(decoder.score(*asked).iou_N4, wanted, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def full_size() -> MaskDecoder:
    decoder = MaskDecoder(SIZES["vit_b"].dim)
    draw_weights(decoder, 3)
    return decoder.requires_grad_(False)


def full_size_question(
    prompts: int, side: int = 64
) -> tuple[ImageFeatures, Tensor, EncodedPrompts]:
    embedding, sparse = drawn(0, 1, 256, side, side).float(), drawn(1, prompts, 2, 256).float()
    dense = drawn(2, 1, 256, 1, 1).float().expand(1, 256, side, side)
    return (
        ImageFeatures(embedding),
        drawn(3, 1, 256, side, side).float(),
        EncodedPrompts(sparse, dense),
    )


@torch.inference_mode()
def test_sam_s_own_decoder_in_float32_gives_the_plain_logits_and_masks(
    full_size: MaskDecoder,
) -> None:
    asked = full_size_question(3)
    iou, tokens, image = plain_score(full_size, *asked)
    plain = plain_draw(full_size, tokens, image)
    scored = full_size.score(*asked)
    logits = full_size.draw(scored)
    assert relative_error(scored.iou_N4, iou) < 1e-5
    assert relative_error(logits, plain) < 1e-5
    # Of 786,432 pixels at most some whose logit is zero but for rounding.
    flipped = (logits > 0) != (plain > 0)
    assert int(flipped.sum()) <= 3
    assert float(plain[flipped].abs().sum()) < 1e-5 * float(plain.abs().max())


@torch.inference_mode()
def test_company_and_threads_leave_every_bit_of_a_drawing_as_it_is(full_size: MaskDecoder) -> None:
    asked = full_size_question(5, side=32)
    threads = torch.get_num_threads()
    answers = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            scored = full_size.score(*asked)
            drawn = full_size.draw(scored)
            assert torch.equal(full_size.draw(scored, torch.tensor([4, 1])), drawn[[4, 1]])
            answers.append((scored.iou_N4, drawn))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_stays_near_float32(full_size: MaskDecoder, dtype: torch.dtype) -> None:
    features, positions, prompts = full_size_question(2, side=24)
    wanted = full_size.draw(full_size.score(features, positions, prompts))
    half = MaskDecoder(SIZES["vit_b"].dim).to(dtype)
    half.load_state_dict(full_size.state_dict())
    scored = half.score(
        ImageFeatures(features.coarse_BCHW.to(dtype)),
        positions.to(dtype),
        EncodedPrompts(prompts.sparse_NTC.to(dtype), prompts.dense_NCHW.to(dtype)),
    )
    got = half.draw(scored)
    assert got.dtype == dtype
    error = (got.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert float(error) < 0.05


@torch.inference_mode()
def test_on_photos_no_pixel_and_no_verdict_of_the_bundled_model_flips(data_pack: Path) -> None:
    sam = build_sam("bundled")
    photo = min((data_pack / "coco_subset" / "images").glob("*.jpg"))
    embedding = sam.encode(decode_image(photo.read_bytes()))
    height, width = embedding.frame.original_size
    x, y = np.meshgrid(np.linspace(0.1, 0.9, 6) * width, np.linspace(0.1, 0.9, 5) * height)
    points = np.stack([x.ravel(), y.ravel()], axis=1)[:, None]
    clicks = Prompts(points_xy=points, point_labels=np.ones((30, 1), dtype=np.int64))
    scored = sam.score(embedding, clicks)
    given = to_input_frame(clicks, embedding.frame, sam.device)
    features, size = embedding.features, embedding.frame.padded_size
    prompts = sam.prompt_encoder(given, features, size)
    positions = sam.prompt_encoder.image_positions(*features.coarse_BCHW.shape[-2:])
    iou, tokens, image = plain_score(sam.mask_decoder, features, positions, prompts)
    plain = replace(scored, mask_tokens_N4C=tokens, image_NCHW=image)
    assert torch.equal(sam.draw(plain) > 0, sam.draw(scored) > 0)
    threshold = sam.config.recommended.pred_iou_thresh
    assert torch.equal(iou.sigmoid() > threshold, scored.iou_N4 > threshold)
    assert relative_error(scored.iou_N4, iou.sigmoid()) < 1e-5
