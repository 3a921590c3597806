"""Models small enough for tests, with all weights drawn at random so that none hides as a zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model import Sam, SamConfig, TrainBatch
from model.compact_encoder import CompactConfig
from model.image_encoder import VitConfig

SMALL_VIT = SamConfig(
    name="small_vit",
    encoder=VitConfig(width=32, depth=3, heads=2, global_blocks=(1,), window_size=5),
    image_size=128,
    dim=32,
    decoder_heads=4,
    decoder_mlp_dim=48,
)
SMALL_COMPACT = SamConfig(
    name="small_compact",
    encoder=CompactConfig(
        stem_width=8, widths=(8, 12, 16, 24), depths=(1, 1, 1, 1), fine_widths=(12, 8)
    ),
    image_size=128,
    dim=32,
    decoder_heads=4,
    decoder_mlp_dim=48,
)


# Two axes, yet not the weights of a linear layer.
_NO_MATRICES = (
    "_token.weight",
    "_tokens.weight",
    "_embed.weight",
    *(f"point_embeddings.{i}.weight" for i in range(4)),
    "gaussian_matrix",
)


def small_sam(config: SamConfig, seed: int = 0) -> Sam:
    """Build a model in inference mode, its weights drawn from a seed."""
    sam = Sam(config)
    draw_weights(sam, seed)
    return sam.eval()


def draw_weights(module: nn.Module, seed: int) -> None:
    """Draw all weights at scales that keep signals alive through the layers."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("running_var"):
            noise = 0.5 + noise.abs()
        elif tensor.ndim == 1:
            noise = 0.1 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif tensor.ndim == 2 and not name.endswith(_NO_MATRICES):
            noise = noise / tensor.shape[1] ** 0.5
        elif tensor.ndim == 4 and "pos_embed" not in name:
            noise = noise / tensor[0].numel() ** 0.5
        tensor.copy_(noise)


def random_image(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw an RGB image of coarse blotches and fine noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height // 16 + 1, width // 16 + 1, 3))
    blotches = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return (blotches + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def discs_batch(side_px: int, seed: int, per_image: Sequence[int] = (2, 2)) -> TrainBatch:
    """Draw images of plain discs on noise, with the discs as masks."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px]
    images, masks, owners = [], [], []
    for i, count in enumerate(per_image):
        image = rng.integers(0, 40, (side_px, side_px, 3))
        for _ in range(count):
            cx, cy = rng.integers(12, side_px - 12, 2)
            disc = (x - cx) ** 2 + (y - cy) ** 2 <= rng.integers(6, 12) ** 2
            image[disc] = rng.integers(100, 255, 3)
            masks.append(disc)
            owners.append(i)
        images.append(image.astype(np.uint8))
    return TrainBatch(
        torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks)), torch.tensor(owners)
    )


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest wanted value."""
    return float((got.double() - wanted.double()).abs().max() / wanted.double().abs().max())
