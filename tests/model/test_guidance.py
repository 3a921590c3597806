from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.images import decode_image
from model import Prompts, build_sam, prompt_groups
from model.compact_encoder import FineFeatures
from model.guidance import (
    GuidedMaskDecoder,
    GuidedPromptEncoder,
    foreground_maps,
    guidance_maps,
    sample,
)
from model.preprocess import to_input_frame
from model.reachability import Terrain, seeds_at
from model.types import EncodedPrompts, ImageFeatures, InputPrompts, ScoredPrompts
from tests.model.small_models import draw_weights

PADDED = (64, 96)
BARRIERS = 2
# Order of the maps: similarity to foreground and background at strides 8 and 4, bumps, what the
# foreground reaches (near and wide) and the background, box, mask.
FG8, BG8, FG4, BG4, FG_BUMPS, BG_BUMPS = range(6)
FG_REACH, FG_WIDE, BG_REACH = slice(6, 8), slice(8, 10), slice(10, 12)
BOX, MASK = 12, 13


@pytest.fixture
def encoder() -> GuidedPromptEncoder:
    encoder = GuidedPromptEncoder(16, BARRIERS)
    draw_weights(encoder, 1)
    return encoder.requires_grad_(False)


def features(batch: int = 1) -> ImageFeatures:
    generator = torch.Generator().manual_seed(2)
    return ImageFeatures(
        torch.randn(batch, 16, 4, 6, generator=generator),
        FineFeatures(
            affinity8_BCHW=F.normalize(torch.randn(batch, 6, 8, 12, generator=generator), dim=1),
            affinity4_BCHW=F.normalize(torch.randn(batch, 6, 16, 24, generator=generator), dim=1),
            canvas8_BCHW=torch.randn(batch, 4, 8, 12, generator=generator),
            canvas4_BCHW=torch.randn(batch, 2, 16, 24, generator=generator),
            barriers_BKHW=torch.randn(batch, BARRIERS, 16, 24, generator=generator),
        ),
    )


def points(*xy_labels: tuple[float, float, int]) -> InputPrompts:
    xy = torch.tensor([[[x, y] for x, y, _ in xy_labels]], dtype=torch.float64)
    return InputPrompts(xy, torch.tensor([[label for *_, label in xy_labels]]), None, None)


def guidance(encoder: GuidedPromptEncoder, prompts: InputPrompts) -> Tensor:
    encoded: EncodedPrompts = encoder(prompts, features(), PADDED)
    assert encoded.guidance_NGhw is not None
    assert encoded.dense_NCHW.shape == (len(prompts), 16, 4, 6)
    return all_maps(encoded.guidance_NGhw)


def all_maps(drawn_NGhw: Tensor) -> Tensor:
    """Put 0 where maps were left out."""
    N, count, height, width = drawn_NGhw.shape
    maps = torch.zeros(N, guidance_maps(BARRIERS), height, width)
    maps[:, slice(None) if count == maps.shape[1] else foreground_maps(BARRIERS)] = drawn_NGhw
    return maps


def test_samples_are_read_at_pixel_centres_with_one_image_or_several() -> None:
    maps = torch.arange(24.0).view(1, 1, 4, 6)
    at_centres = torch.tensor([[[7.5, 7.5], [16 * 5 + 7.5, 16 * 3 + 7.5], [15.5, 7.5]]])
    assert sample(maps, at_centres, PADDED)[0, :, 0].tolist() == pytest.approx(
        [0, 23, 0.5], abs=1e-4
    )
    both = sample(torch.cat([maps, maps + 100]), at_centres.repeat(2, 1, 1), PADDED)
    assert both[:, :, 0].flatten().tolist() == pytest.approx(
        [0, 23, 0.5, 100, 123, 100.5], abs=1e-4
    )


def test_points_outside_the_input_read_its_border() -> None:
    maps = torch.arange(24.0).view(1, 1, 4, 6)
    far = torch.tensor([[[-500.0, -500.0], [500.0, 500.0]]])
    assert sample(maps, far, PADDED)[0, :, 0].tolist() == [0, 23]


def test_a_click_draws_a_bump_where_it_is_in_the_map_of_its_label(
    encoder: GuidedPromptEncoder,
) -> None:
    maps = guidance(encoder, points((41.5, 21.5, 1), (9.5, 45.5, 0)))[0]
    for index, (row, column) in ((FG_BUMPS, (5, 10)), (BG_BUMPS, (11, 2))):
        assert maps[index, row, column] == maps[index].max() == pytest.approx(1.0)
    assert maps[FG_BUMPS, 11, 2] < 0.05
    assert not maps[BOX].any()
    assert not maps[MASK].any()


def test_similarity_is_highest_under_the_click_and_zero_without_one(
    encoder: GuidedPromptEncoder,
) -> None:
    maps = guidance(encoder, points((41.5, 21.5, 1)))[0]
    assert maps[FG4, 5, 10] == pytest.approx(1.0, abs=1e-4)
    assert maps[FG4].max() == maps[FG4, 5, 10]
    assert maps[[FG8, FG4]].abs().max() <= 1 + 1e-5
    assert not maps[[BG8, BG4]].any()


def test_padding_points_draw_nothing(encoder: GuidedPromptEncoder) -> None:
    with_padding = guidance(encoder, points((41.5, 21.5, 1), (80, 60, -1)))
    without = guidance(encoder, points((41.5, 21.5, 1)))
    torch.testing.assert_close(with_padding, without)


def test_a_box_is_one_inside_and_minus_one_outside_and_no_click(
    encoder: GuidedPromptEncoder,
) -> None:
    boxes = torch.tensor([[8.0, 16.0, 47.0, 39.0]], dtype=torch.float64)
    maps = guidance(encoder, InputPrompts(None, None, boxes, None))[0]
    wanted = torch.full((16, 24), -1.0)
    wanted[4:10, 2:12] = 1
    assert torch.equal(maps[BOX], wanted)
    assert not maps[[FG_BUMPS, BG_BUMPS]].any()
    assert maps[FG4].any()


def test_a_click_reaches_most_where_it_is_and_farther_in_the_wide_map(
    encoder: GuidedPromptEncoder,
) -> None:
    maps = guidance(encoder, points((41.5, 21.5, 1)))[0]
    assert torch.equal(maps[FG_REACH].amax((1, 2)), maps[FG_REACH, 5, 10])
    assert (maps[FG_WIDE] >= maps[FG_REACH]).all()
    assert (maps[BG_REACH] < 1e-9).all()


def test_everything_outside_a_box_is_reached_by_the_background(
    encoder: GuidedPromptEncoder,
) -> None:
    boxes = torch.tensor([[8.0, 16.0, 47.0, 39.0]], dtype=torch.float64)
    maps = guidance(encoder, InputPrompts(None, None, boxes, None))[0]
    assert (maps[BG_REACH][:, maps[BOX] < 0] == 1).all()
    assert (maps[BG_REACH][:, 6:8, 5:9] < 0.9).all()
    assert (maps[FG_REACH][:, 6:8, 5:9] > 1e-3).any()


def test_an_earlier_mask_is_squashed_and_enough_alone(encoder: GuidedPromptEncoder) -> None:
    logits = torch.tensor([-100.0, 0.0, 4.0, 100.0]).repeat(4 * 24).view(1, 1, 16, 24)
    maps = guidance(encoder, InputPrompts(None, None, None, logits))[0]
    wanted = torch.tanh(logits[0, 0] / 4)
    torch.testing.assert_close(maps[MASK], wanted)
    assert (maps[:MASK].abs() < 1e-3).all()


def test_prompts_of_several_images_look_at_their_own(encoder: GuidedPromptEncoder) -> None:
    both = features(batch=2)
    xy = torch.tensor([[[10.0, 20.0]], [[30.0, 40.0]], [[50.0, 60.0]]])
    labels = torch.ones(3, 1, dtype=torch.long)
    owner = torch.tensor([1, 0, 1])
    together = encoder(InputPrompts(xy, labels, None, None), both.owned_by(owner), PADDED)
    for n, image in enumerate(owner.tolist()):
        own = InputPrompts(xy[n : n + 1], labels[n : n + 1], None, None)
        alone = encoder(own, both.of_image(image), PADDED)
        torch.testing.assert_close(together.sparse_NTC[n], alone.sparse_NTC[0])
        torch.testing.assert_close(together.dense_NCHW[n], alone.dense_NCHW[0])


def scored_prompts(prompts: int) -> tuple[GuidedMaskDecoder, ScoredPrompts]:
    """Score clicks whose image tokens and tokens are drawn at random."""
    decoder = GuidedMaskDecoder(16, BARRIERS, heads=4, depth=1, mlp_dim=16)
    draw_weights(decoder, 3)
    generator = torch.Generator().manual_seed(4)
    scored = ScoredPrompts(
        iou_N4=torch.zeros(prompts, 4),
        mask_tokens_N4C=torch.randn(prompts, 4, 16, generator=generator),
        image_NCHW=torch.randn(prompts, 16, 4, 6, generator=generator),
        features=features(),
        guidance_NGhw=torch.rand(prompts, guidance_maps(BARRIERS), 16, 24, generator=generator),
    )
    return decoder.requires_grad_(False), scored


def plain_logits(decoder: GuidedMaskDecoder, scored: ScoredPrompts) -> Tensor:
    """Draw with the convolutions as they are written down."""
    assert scored.guidance_NGhw is not None
    fine = FineFeatures(*scored.features.fine_BCHW)
    to_stride8, to_stride4 = decoder.output_upscaling
    x = F.relu(to_stride8(scored.image_NCHW) + fine.canvas8_BCHW)
    guidance_NGhw = all_maps(scored.guidance_NGhw)
    x = F.relu(to_stride4(x) + fine.canvas4_BCHW + decoder.from_guidance(guidance_NGhw))
    x = F.relu(decoder.refine(x) + x)
    tokens = scored.mask_tokens_N4C
    brushes = [mlp(tokens[:, i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    return torch.einsum("nmc,nchw->nmhw", torch.stack(brushes, dim=1), x)


@pytest.mark.parametrize(
    "chosen", [slice(None), slice(1, 3), torch.tensor([4, 0]), torch.tensor([], dtype=torch.long)]
)
def test_drawing_by_products_of_matrices_is_what_the_convolutions_draw(
    chosen: slice | Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, scored = scored_prompts(5)
    wanted = plain_logits(decoder, scored)[chosen]
    monkeypatch.setattr(prompt_groups, "_BYTES_AT_ONCE", 2 * scored.image_NCHW[0].nbytes)
    with torch.inference_mode():
        drawn = decoder.draw(scored, chosen)
    torch.testing.assert_close(drawn, wanted, rtol=1e-5, atol=1e-5)


def test_maps_left_out_add_nothing_to_what_is_made_of_the_others(
    encoder: GuidedPromptEncoder,
) -> None:
    decoder, _ = scored_prompts(1)
    xy = torch.tensor([[[41.5, 21.5]], [[9.5, 45.5]]])
    mixed = InputPrompts(xy, torch.tensor([[1], [0]]), None, None)  # the second needs all maps
    alone = InputPrompts(xy[:1], torch.tensor([[1]]), None, None)
    logits, dense, counts = [], [], []
    for prompts in (mixed, alone):
        encoded = encoder(prompts, features(), PADDED)
        assert encoded.guidance_NGhw is not None
        counts.append(encoded.guidance_NGhw.shape[1])
        dense.append(encoded.dense_NCHW[0])
        scored = decoder.score(features(), torch.zeros(1, 16, 4, 6), encoded)
        logits.append(decoder.draw(scored)[0])
    assert counts == [guidance_maps(BARRIERS), len(foreground_maps(BARRIERS))]
    torch.testing.assert_close(*dense, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)


def test_the_bundled_models_masks_are_those_of_the_plain_operators(
    data_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swept(self: Terrain, points_N2: Tensor, weights_N: Tensor, owner_N: None) -> Tensor:
        seeds = seeds_at(points_N2[:, None], weights_N[:, None], self.size)
        return self.distances(seeds, owner_N)

    sam = build_sam("bundled").requires_grad_(False)
    decoder = sam.mask_decoder
    assert isinstance(decoder, GuidedMaskDecoder)
    rng = np.random.default_rng(0)
    for photo in sorted((data_pack / "coco_subset" / "images").glob("*.jpg"))[:2]:
        embedding = sam.encode(decode_image(photo.read_bytes()))
        height, width = embedding.frame.original_size
        points = rng.uniform(0, 1, (24, 1, 2)) * (width, height)
        prompts = Prompts(points_xy=points, point_labels=np.ones((24, 1), dtype=np.int64))
        fast = sam.draw(sam.score(embedding, prompts))
        given = to_input_frame(prompts, embedding.frame, sam.device)
        with monkeypatch.context() as patched, torch.enable_grad():  # no oneDNN operators, then
            patched.setattr(Terrain, "distances_from_point", swept)
            scored = sam.score_input(embedding.features, given, embedding.frame.padded_size)
            plain = plain_logits(decoder, scored)
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-3)
        assert torch.equal(fast > 0, plain > 0)


def test_the_decoder_refuses_prompts_without_guidance() -> None:
    decoder = GuidedMaskDecoder(16, BARRIERS, heads=4, depth=1, mlp_dim=16)
    encoded = EncodedPrompts(torch.zeros(1, 1, 16), torch.zeros(1, 16, 4, 6))
    scored = decoder.score(features(), torch.zeros(1, 16, 4, 6), encoded)
    with pytest.raises(ValueError, match="GuidedPromptEncoder"):
        decoder.draw(scored)


def test_features_of_a_plain_encoder_are_refused(encoder: GuidedPromptEncoder) -> None:
    plain = ImageFeatures(torch.zeros(1, 16, 4, 6))
    with pytest.raises(ValueError, match="compact encoder"):
        encoder(points((1, 1, 1)), plain, PADDED)
