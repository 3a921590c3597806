from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model import SIZES, CheckpointError, Sam, SamConfig
from model.image_encoder import VitConfig, VitEncoder
from model.mae import (
    MaeConfig,
    VitReconstructor,
    crop_px,
    masked_pixel_loss,
    pretrain,
    random_mask,
    reconstructor,
    resize_positions,
    sine_positions,
    to_patches,
)
from model.step_loop import to_pixels
from tests.model.small_models import (
    SMALL_COMPACT,
    SMALL_VIT,
    random_image,
    relative_error,
    small_sam,
)

QUICK = MaeConfig(
    steps=6,
    warmup_steps=2,
    learning_rate=1e-3,
    decoder_width=32,
    decoder_depth=1,
    log_every=2,
    save_every=3,
)
BOTH = pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=lambda c: c.name)


def fresh_sam(config: SamConfig, seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return Sam(config)


def images(side_px: int, seed: int = 0, count: int = 2) -> Tensor:
    stacked = [random_image(side_px, side_px, 10 * seed + i) for i in range(count)]
    return torch.stack([torch.from_numpy(image) for image in stacked])


def batches_of(sam: Sam, start: int = 0) -> Iterator[Tensor]:
    step = start
    while True:
        yield images(crop_px(sam.config), seed=step)
        step += 1


def weights(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_crops_are_a_window_of_the_vit_as_in_mae() -> None:
    assert crop_px(SIZES["vit_b"]) == crop_px(SIZES["vit_h"]) == 224
    assert crop_px(SMALL_VIT) == 80
    assert crop_px(replace(SMALL_VIT, image_size=64)) == 64
    assert crop_px(SMALL_COMPACT) % 32 == 0


@given(st.integers(1, 5), st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**31))
def test_every_image_hides_as_many_patches(
    batch: int, patches: int, ratio: float, seed: int
) -> None:
    hidden = random_mask(batch, patches, ratio, torch.Generator().manual_seed(seed))
    counts = hidden.sum(1)
    assert hidden.shape == (batch, patches)
    assert (counts == counts[0]).all()
    assert 1 <= counts[0] <= patches - 1
    assert abs(int(counts[0]) - patches * ratio) <= 1


def test_a_patch_is_hidden_as_often_as_any_other() -> None:
    hidden = random_mask(4000, 16, 0.75, torch.Generator().manual_seed(1)).float()
    assert (hidden.mean(0) - 0.75).abs().max() < 0.04


def test_patches_are_normalised_one_by_one_and_only_hidden_ones_count() -> None:
    pixels = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    hidden = random_mask(2, 6, 0.5, torch.Generator().manual_seed(0))
    predicted = torch.randn(2, 6, 768, generator=torch.Generator().manual_seed(1))
    errors = []
    for image in range(2):
        for patch in range(6):
            if hidden[image, patch]:
                y, x = 16 * (patch // 3), 16 * (patch % 3)
                wanted = pixels[image, :, y : y + 16, x : x + 16].reshape(-1)
                wanted = (wanted - wanted.mean()) / wanted.std()
                errors.append((predicted[image, patch] - wanted).square().mean())
    got = masked_pixel_loss(predicted, pixels, hidden)
    torch.testing.assert_close(got, torch.stack(errors).mean(), rtol=1e-4, atol=1e-5)
    nonsense = torch.where(hidden.unsqueeze(2), predicted, 1e6)
    assert torch.equal(masked_pixel_loss(nonsense, pixels, hidden), got)


def test_predicting_the_mean_of_each_patch_costs_one() -> None:
    pixels = to_pixels(images(64))
    hidden = torch.ones(2, 16, dtype=torch.bool)
    loss = masked_pixel_loss(torch.zeros(2, 16, 768), pixels, hidden)
    assert loss.item() == pytest.approx(1, abs=0.01)


def test_a_patch_of_one_colour_gives_a_finite_loss() -> None:
    loss = masked_pixel_loss(torch.zeros(1, 4, 768), torch.ones(1, 3, 32, 32), torch.ones(1, 4) > 0)
    assert loss.item() == 0


@BOTH
def test_what_is_hidden_is_not_seen(config: SamConfig) -> None:
    sam = small_sam(config)
    learner = reconstructor(sam, QUICK).eval()
    side = crop_px(config)
    pixels, other = to_pixels(images(side)), to_pixels(images(side, seed=9))
    count = learner.patch_count(pixels)
    hidden = random_mask(2, count, 0.5, torch.Generator().manual_seed(0))
    patch = side // int(count**0.5)
    everywhere = F.interpolate(
        hidden.view(2, 1, side // patch, -1).float(), scale_factor=float(patch)
    )
    with torch.no_grad():
        before = learner(pixels, hidden)
        after = learner(torch.where(everywhere > 0, other, pixels), hidden)
        shown = learner(torch.where(everywhere > 0, pixels, other), hidden)
    assert torch.equal(before, after)
    assert relative_error(shown, before) > 3e-4


def test_with_nothing_hidden_the_blocks_compute_what_the_encoder_computes() -> None:
    config = replace(SMALL_VIT, image_size=80)
    sam = small_sam(config)
    encoder = sam.image_encoder
    assert isinstance(encoder, VitEncoder)
    learner = reconstructor(sam, QUICK)
    assert isinstance(learner, VitReconstructor)
    pixels = to_pixels(images(80))
    everything = torch.arange(25).expand(2, -1)
    with torch.no_grad():
        tokens = learner.encode_visible(pixels, everything)
        got = encoder.neck(tokens.transpose(1, 2).view(2, -1, 5, 5))
        wanted = encoder(pixels).coarse_BCHW
    assert relative_error(got, wanted) < 1e-5


def test_visible_tokens_attend_by_their_true_places() -> None:
    """Dropping tokens must equal full attention in which nobody looks at the dropped ones."""
    config = replace(
        SMALL_VIT,
        image_size=80,
        encoder=VitConfig(width=32, depth=1, heads=2, global_blocks=(), window_size=5),
    )
    sam = small_sam(config)
    learner = reconstructor(sam, QUICK)
    assert isinstance(learner, VitReconstructor)
    block = learner.encoder.blocks[0]
    x = torch.randn(1, 25, 32, generator=torch.Generator().manual_seed(0))
    visible = torch.tensor([[3, 4, 11, 17, 24]])
    with torch.no_grad():
        got = learner._attend(block, x[:, visible[0]], visible)  # type: ignore[arg-type]
        attn = block.attn
        qkv = attn.qkv(x).view(25, 3, 2, 16)  # type: ignore[operator,union-attr]
        for row, i in enumerate(visible[0].tolist()):
            heads = []
            for head in range(2):
                q = qkv[i, 0, head]
                scores = []
                for j in visible[0].tolist():
                    h = attn.rel_pos_h[i // 5 - j // 5 + 4]  # type: ignore[index,union-attr]
                    w = attn.rel_pos_w[i % 5 - j % 5 + 4]  # type: ignore[index,union-attr]
                    scores.append(q @ qkv[j, 1, head] / 4 + q @ h + q @ w)
                weight = torch.stack(scores).softmax(0)
                heads.append(weight @ qkv[visible[0], 2, head])
            wanted = attn.proj(torch.cat(heads))  # type: ignore[operator,union-attr]
            torch.testing.assert_close(got[0, row], wanted, rtol=1e-4, atol=1e-5)


@BOTH
def test_only_the_encoder_learns(config: SamConfig, tmp_path: Path) -> None:
    sam = fresh_sam(config)
    before = weights(sam)
    trained = pretrain(sam, lambda start: batches_of(sam, start), QUICK, tmp_path / "mae.pt")
    assert trained is sam
    assert not sam.training
    changed = {
        name for name, tensor in weights(sam).items() if not torch.equal(tensor, before[name])
    }
    assert changed
    assert all(name.startswith("image_encoder.") for name in changed)
    trainable = {n for n, _ in sam.named_parameters() if n.startswith("image_encoder.")}
    idle = {n.removeprefix("image_encoder.") for n in trainable - changed}
    if config is SMALL_VIT:
        # the neck, and the global block's relative positions
        assert idle == {
            *(n for n, _ in sam.image_encoder.named_parameters() if n.startswith("neck.")),
            "blocks.1.attn.rel_pos_h",
            "blocks.1.attn.rel_pos_w",
        }
    else:
        # what tells pixels apart: it has no part in drawing them
        assert idle
        assert all(name.startswith(("heads.affinity", "heads.barriers")) for name in idle)


@BOTH
def test_a_few_steps_on_one_batch_lower_its_loss(config: SamConfig, tmp_path: Path) -> None:
    sam = fresh_sam(config)
    batch = images(crop_px(config), count=4)
    losses: list[float] = []
    pretrain(
        sam,
        lambda start: repeat(batch),
        replace(QUICK, steps=40, log_every=10, learning_rate=3e-3),
        tmp_path / "mae.pt",
        lambda step, values: losses.append(values["total"]),
    )
    assert len(losses) == 4
    assert losses[-1] < 0.9 * losses[0]


@BOTH
def test_a_resumed_run_ends_as_an_undisturbed_one(config: SamConfig, tmp_path: Path) -> None:
    through, stopped = fresh_sam(config), fresh_sam(config)
    pretrain(through, lambda start: batches_of(through, start), QUICK, tmp_path / "through.pt")

    def until_killed(start: int) -> Iterator[Tensor]:
        for number, batch in enumerate(batches_of(stopped, start), start):
            if number == 4:
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        pretrain(stopped, until_killed, QUICK, tmp_path / "stopped.pt")
    again = fresh_sam(config, seed=5)
    torch.manual_seed(99)
    starts: list[int] = []

    def batches(start: int) -> Iterator[Tensor]:
        starts.append(start)
        return batches_of(again, start)

    pretrain(again, batches, QUICK, tmp_path / "stopped.pt")
    assert starts == [3]
    ends = weights(again), weights(through)
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0] if "image_encoder" in n)


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    sam = fresh_sam(SMALL_COMPACT)
    pretrain(sam, lambda start: batches_of(sam, start), QUICK, tmp_path / "mae.pt")
    again = fresh_sam(SMALL_COMPACT, seed=3)

    def none(start: int) -> Iterator[Tensor]:
        raise AssertionError("asked for a batch")

    pretrain(again, none, QUICK, tmp_path / "mae.pt")
    encoders = again.image_encoder.state_dict(), sam.image_encoder.state_dict()
    assert same(*encoders)


def test_changed_settings_are_said_and_a_foreign_checkpoint_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sam = fresh_sam(SMALL_VIT)
    path = tmp_path / "mae.pt"
    pretrain(sam, lambda start: batches_of(sam, start), replace(QUICK, steps=2), path)
    with caplog.at_level(logging.WARNING):
        pretrain(sam, lambda start: batches_of(sam, start), replace(QUICK, steps=3), path)
    assert [r.getMessage() for r in caplog.records] == ["steps was 2 until step 2, is 3 now"]
    compact = fresh_sam(SMALL_COMPACT)
    with pytest.raises(CheckpointError, match=r"mae\.pt is no checkpoint of this run"):
        pretrain(compact, lambda start: batches_of(compact, start), QUICK, path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match="remove it to start anew"):
        pretrain(sam, lambda start: batches_of(sam, start), QUICK, path)


def test_positions_are_sines_where_there_were_none_and_kept_where_there_were(
    tmp_path: Path,
) -> None:
    fresh, trained = fresh_sam(SMALL_VIT), small_sam(SMALL_VIT)
    kept = trained.image_encoder.get_parameter("pos_embed").clone()
    for sam in (fresh, trained):
        pretrain(
            sam, lambda start: batches_of(fresh, start), replace(QUICK, steps=1), tmp_path / "x.pt"
        )
        (tmp_path / "x.pt").unlink()
    assert torch.equal(trained.image_encoder.get_parameter("pos_embed"), kept)
    positions = fresh.image_encoder.get_parameter("pos_embed").detach()
    assert torch.equal(positions, sine_positions(8, 5, 32))


def test_sine_positions_of_a_larger_grid_are_those_of_the_smaller_one_resized() -> None:
    small = sine_positions(14, 14, 64)
    assert small[0, 3, 5, 0] == pytest.approx(torch.tensor(5.0).sin().item())
    assert small[0, 3, 5, 32] == pytest.approx(torch.tensor(3.0).sin().item())
    assert relative_error(resize_positions(sine_positions(64, 14, 64), 14), small) < 0.02
    with pytest.raises(ValueError, match="multiple of 4"):
        sine_positions(4, 4, 30)


@pytest.mark.parametrize(
    ("config", "side", "message"),
    [(SMALL_VIT, 96, "80 x 80 px; got 96 x 96"), (SMALL_COMPACT, 72, "multiples of 32 px")],
)
def test_crops_of_another_size_are_refused(
    config: SamConfig, side: int, message: str, tmp_path: Path
) -> None:
    sam = fresh_sam(config)
    with pytest.raises(ValueError, match=message):
        pretrain(sam, lambda start: repeat(images(side)), QUICK, tmp_path / "mae.pt")


@pytest.mark.parametrize("batch", [torch.zeros(2, 80, 80, 3), torch.zeros(2, 3, 80, 80).byte()])
def test_batches_that_are_no_images_are_refused(batch: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\(B, H, W, 3\) uint8; got"):
        pretrain(fresh_sam(SMALL_VIT), lambda start: repeat(batch), QUICK, tmp_path / "mae.pt")


def test_batches_that_end_are_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ended at step 2"):
        pretrain(
            fresh_sam(SMALL_VIT), lambda start: repeat(images(80), 2), QUICK, tmp_path / "mae.pt"
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask_ratio": 0.0},
        {"mask_ratio": 1.0},
        {"decoder_width": 40},
        {"decoder_depth": 0},
        {"steps": 0},
        {"warmup_steps": -1},
        {"save_every": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="got"):
        MaeConfig(**wrong)  # type: ignore[arg-type]


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from([2, 4, 16]))
def test_patches_come_in_reading_order(rows: int, columns: int, patch: int) -> None:
    pixels = torch.arange(3 * rows * columns * patch**2).view(1, 3, rows * patch, columns * patch)
    patches = to_patches(pixels.float(), patch)
    assert patches.shape == (1, rows * columns, 3 * patch**2)
    for number in range(rows * columns):
        y, x = patch * (number // columns), patch * (number % columns)
        wanted = pixels[0, :, y : y + patch, x : x + patch].reshape(-1).float()
        assert torch.equal(patches[0, number], wanted)


def test_bfloat16_trains_float32_weights(tmp_path: Path) -> None:
    sam = fresh_sam(SMALL_VIT)
    losses: list[float] = []
    pretrain(
        sam,
        lambda start: batches_of(sam, start),
        replace(QUICK, precision="bfloat16", steps=2, log_every=1),
        tmp_path / "mae.pt",
        lambda step, values: losses.append(values["total"]),
    )
    assert all(0 < loss < 3 for loss in losses)
    assert sam.dtype == torch.float32
