from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model import CheckpointError, Sam, SamConfig, save_sam
from model.encoder_start import init_encoder
from model.image_encoder import VitConfig
from model.mae import MaeConfig, crop_px, pretrain, resize_positions
from model.preprocess import PIXEL_MEAN
from tests.model.small_models import SMALL_COMPACT, SMALL_VIT, relative_error, small_sam

WIDTH, DEPTH = 32, 3
BOTH = pytest.mark.parametrize("config", [SMALL_VIT, SMALL_COMPACT], ids=lambda c: c.name)


def public_mae(
    width: int = WIDTH, depth: int = DEPTH, grid: int = 14, patch: int = 16, seed: int = 0
) -> dict[str, Tensor]:
    """Random weights under the names of ``mae_pretrain_vit_*.pth``."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid * grid, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(depth):
        shapes |= {
            f"blocks.{i}.norm1.weight": (width,),
            f"blocks.{i}.norm1.bias": (width,),
            f"blocks.{i}.attn.qkv.weight": (3 * width, width),
            f"blocks.{i}.attn.qkv.bias": (3 * width,),
            f"blocks.{i}.attn.proj.weight": (width, width),
            f"blocks.{i}.attn.proj.bias": (width,),
            f"blocks.{i}.norm2.weight": (width,),
            f"blocks.{i}.norm2.bias": (width,),
            f"blocks.{i}.mlp.fc1.weight": (4 * width, width),
            f"blocks.{i}.mlp.fc1.bias": (4 * width,),
            f"blocks.{i}.mlp.fc2.weight": (width, 4 * width),
            f"blocks.{i}.mlp.fc2.bias": (width,),
        }
    generator = torch.Generator().manual_seed(seed)
    return {k: torch.randn(shape, generator=generator) for k, shape in shapes.items()}


def with_decoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ``mae_visualize_vit_*.pth`` holds on top."""
    return weights | {
        "mask_token": torch.randn(1, 1, 16),
        "decoder_embed.weight": torch.randn(16, WIDTH),
        "decoder_pos_embed": torch.randn(1, 197, 16),
        "decoder_blocks.0.attn.qkv.weight": torch.randn(48, 16),
        "decoder_norm.weight": torch.randn(16),
        "decoder_pred.bias": torch.randn(768),
    }


def written(path: Path, weights: dict[str, Tensor]) -> Path:
    torch.save({"model": weights}, path)
    return path


def weights_of(sam: Sam) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in sam.state_dict().items()}


@pytest.mark.parametrize("extra", [False, True], ids=["encoder", "with decoder"])
def test_public_mae_weights_land_in_the_vit(extra: bool, tmp_path: Path) -> None:
    sam = small_sam(SMALL_VIT)
    before = weights_of(sam)
    public = public_mae()
    path = written(tmp_path / "mae.pth", with_decoder(public) if extra else public)
    start = init_encoder(sam, path)
    encoder = sam.image_encoder.state_dict()
    assert start.source == "public-mae"
    for i in range(DEPTH):
        for theirs, ours in (
            ("attn.qkv.weight", "attn.qkv.weight"),
            ("attn.proj.bias", "attn.proj.bias"),
            ("mlp.fc1.weight", "mlp.lin1.weight"),
            ("mlp.fc2.bias", "mlp.lin2.bias"),
            ("norm2.weight", "norm2.weight"),
        ):
            assert torch.equal(encoder[f"blocks.{i}.{ours}"], public[f"blocks.{i}.{theirs}"])
    assert torch.equal(encoder["patch_embed.proj.weight"], public["patch_embed.proj.weight"])
    wanted = resize_positions(public["pos_embed"][:, 1:].view(1, 14, 14, WIDTH), 8)
    assert torch.equal(encoder["pos_embed"], wanted)
    assert all("rel_pos" in name or name.startswith("neck.") for name in start.fresh)
    assert len(start.fresh) == 2 * DEPTH + 6
    assert set(start.loaded) | set(start.fresh) == set(encoder)
    for name in start.fresh:
        assert torch.equal(encoder[name], before["image_encoder." + name])
    for name, tensor in sam.state_dict().items():
        assert name.startswith("image_encoder.") or torch.equal(tensor, before[name])


def test_patches_of_14_px_become_16_and_answer_the_same_to_one_colour(tmp_path: Path) -> None:
    """MAE's ViT-H has patches of 14 px."""
    sam = small_sam(SMALL_VIT)
    public = public_mae(grid=16, patch=14)
    kernel = public["patch_embed.proj.weight"]
    smooth = kernel.mean((2, 3), keepdim=True) + 0.05 * kernel[..., :1, :1]
    public["patch_embed.proj.weight"] = smooth.expand_as(kernel).clone()
    init_encoder(sam, written(tmp_path / "mae_h.pth", public))
    got = sam.image_encoder.get_parameter("patch_embed.proj.weight").detach()
    assert got.shape == (WIDTH, 3, 16, 16)
    assert relative_error(got.sum((2, 3)), public["patch_embed.proj.weight"].sum((2, 3))) < 1e-4


@BOTH
def test_our_own_pre_training_starts_an_encoder(config: SamConfig, tmp_path: Path) -> None:
    pretrained = small_sam(config)
    side = crop_px(config)

    def batches(start: int) -> Iterator[Tensor]:
        return repeat(torch.full((2, side, side, 3), 90, dtype=torch.uint8))

    quick = MaeConfig(steps=2, warmup_steps=0, decoder_width=32, decoder_depth=1)
    pretrain(pretrained, batches, quick, tmp_path / "mae.pt")
    save_sam(pretrained, tmp_path / "whole.safetensors")
    for file, source in (("mae.pt", "pretraining"), ("whole.safetensors", "sam")):
        other = small_sam(config, seed=7)
        before = weights_of(other)
        start = init_encoder(other, tmp_path / file)
        assert (start.source, start.fresh) == (source, ())
        for name, tensor in other.state_dict().items():
            origin = pretrained.state_dict() if name.startswith("image_encoder.") else before
            assert torch.equal(tensor, origin[name])


def test_an_official_sam_checkpoint_starts_an_encoder_of_another_input_size(
    tmp_path: Path,
) -> None:
    large = small_sam(SMALL_VIT)
    torch.save(large.state_dict(), tmp_path / "sam.pth")
    small = small_sam(replace(SMALL_VIT, image_size=96), seed=3)
    start = init_encoder(small, tmp_path / "sam.pth")
    assert (start.source, start.fresh) == ("sam", ())
    theirs, ours = large.image_encoder.state_dict(), small.image_encoder.state_dict()
    assert torch.equal(ours["pos_embed"], resize_positions(theirs["pos_embed"], 6))
    windowed, everywhere = "blocks.0.attn.rel_pos_h", "blocks.1.attn.rel_pos_h"
    assert torch.equal(ours[windowed], theirs[windowed])
    assert (ours[everywhere].shape, theirs[everywhere].shape) == ((11, 16), (15, 16))
    # The offset of 0 stays in the middle, the ends stay at the ends.
    torch.testing.assert_close(ours[everywhere][5], theirs[everywhere][7])
    pixels = torch.zeros(1, 3, 96, 96)
    assert small.image_encoder(pixels).coarse_BCHW.shape == (1, 32, 6, 6)


def test_half_precision_weights_are_taken_as_the_models_own_precision(tmp_path: Path) -> None:
    path = written(tmp_path / "half.pth", {k: v.half() for k, v in public_mae().items()})
    sam = small_sam(SMALL_VIT)
    init_encoder(sam, path)
    assert sam.image_encoder.get_parameter("pos_embed").dtype == torch.float32


def test_what_does_not_fit_is_said_and_nothing_is_changed(tmp_path: Path) -> None:
    def refuses(sam: Sam, weights: dict[str, Tensor], *said: str) -> None:
        before = weights_of(sam)
        path = written(tmp_path / "wrong.pth", weights)
        with pytest.raises(CheckpointError) as caught:
            init_encoder(sam, path)
        for part in ("wrong.pth", *said):
            assert part in str(caught.value)
        after = weights_of(sam)
        assert all(torch.equal(after[name], before[name]) for name in before)

    vit, compact = small_sam(SMALL_VIT), small_sam(SMALL_COMPACT)
    refuses(compact, public_mae(), "small_compact has no ViT", "pre-train this encoder")
    refuses(vit, public_mae(width=48), "of another shape", "(48,) for (32,)")
    refuses(vit, public_mae(depth=4), "unexpected: blocks.3.")
    refuses(vit, public_mae(depth=2), "missing: blocks.2.")
    lacking = public_mae()
    del lacking["blocks.1.attn.qkv.bias"]
    refuses(vit, lacking, "missing: blocks.1.attn.qkv.bias")
    refuses(vit, public_mae(grid=3) | {"pos_embed": torch.zeros(1, 12, WIDTH)}, "pos_embed (1, 12")
    broken = public_mae()
    broken["pos_embed"][0, 0] = float("nan")  # of the class token, which nobody needs
    init_encoder(small_sam(SMALL_VIT), written(tmp_path / "fine.pth", broken))
    broken["blocks.0.norm1.bias"][0] = float("inf")
    refuses(vit, broken, "not finite: blocks.0.norm1.bias")
    refuses(vit, {"fc.weight": torch.zeros(2, 2)}, "holds no image encoder", "fc.weight")
    refuses(vit, {}, "holds no image encoder", "none")
    refuses(vit, compact.state_dict(), "missing: blocks.0", "unexpected")


def test_missing_and_unreadable_files_are_said(tmp_path: Path) -> None:
    sam = small_sam(SMALL_VIT)
    with pytest.raises(CheckpointError, match="no such file"):
        init_encoder(sam, tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(CheckpointError, match="no readable checkpoint"):
        init_encoder(sam, tmp_path / "text.pth")


@pytest.mark.parametrize(
    ("name", "encoder", "grid", "patch"),
    [
        ("vit_b", VitConfig(), 14, 16),
        ("vit_l", VitConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)), 14, 16),
        (
            "vit_h",
            VitConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
            16,
            14,
        ),
    ],
)
def test_the_public_layouts_of_all_three_sizes_fit(
    name: str, encoder: VitConfig, grid: int, patch: int, tmp_path: Path
) -> None:
    """True depths and key names at a small width."""
    small = replace(encoder, width=32, heads=4)
    sam = Sam(SamConfig(name=name, encoder=small, dim=32, decoder_heads=4, decoder_mlp_dim=32))
    public = public_mae(depth=encoder.depth, grid=grid, patch=patch)
    start = init_encoder(sam, written(tmp_path / f"{name}.pth", public))
    assert len(start.loaded) == 3 + 12 * encoder.depth
    assert sam.image_encoder.get_parameter("pos_embed").shape == (1, 64, 64, 32)
    assert PIXEL_MEAN == (123.675, 116.28, 103.53)  # what MAE normalises by, too
