"""The bundled model's image encoder: a small residual network with a feature pyramid.

Residual stages at stride 4, 8, 16 and 32 see far enough for whole objects; the pyramid carries
their context back to stride 16 (the decoder's image tokens) and to strides 8 and 4 (outlines).
Whatever prompts need of an image but does not depend on them is made here, once.
Pyramid: arXiv 1612.03144.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.types import ImageFeatures

_RARE_LOGIT = -2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig:
    """Sizes of the compact encoder.

    Attributes:
        stem_width: channels at stride 2.
        widths: channels at strides 4, 8, 16 and 32.
        depths: residual blocks at strides 4, 8, 16 and 32.
        fine_widths: channels of the pyramid at strides 8 and 4.
        affinity_dim: length of the vectors that say which pixels belong together.
        barriers: kinds of boundary that a prompt's reach is measured by.
    """

    stem_width: int = 24
    widths: tuple[int, int, int, int] = (40, 80, 160, 224)
    depths: tuple[int, int, int, int] = (1, 2, 3, 2)
    fine_widths: tuple[int, int] = (64, 32)
    affinity_dim: int = 32
    barriers: int = 2


class FineFeatures(NamedTuple):
    """`ImageFeatures.fine_BCHW` of the compact encoder: made once per image, read by every prompt.

    Attributes:
        affinity8_BCHW: unit vectors at stride 8, alike where pixels belong together.
        affinity4_BCHW: the same at stride 4.
        canvas8_BCHW: added to the decoder's canvas at stride 8.
        canvas4_BCHW: added to it at stride 4.
        barriers_BKHW: logits of K kinds of boundary at stride 4; the first is the one people draw.
    """

    affinity8_BCHW: Tensor
    affinity4_BCHW: Tensor
    canvas8_BCHW: Tensor
    canvas4_BCHW: Tensor
    barriers_BKHW: Tensor


class CompactEncoder(nn.Module):
    """Pixels (B, 3, H, W), sides multiples of 32, to features at strides 16, 8 and 4."""

    def __init__(self, config: CompactConfig, out_dim: int) -> None:
        super().__init__()
        self.stem = conv_norm_act(3, config.stem_width, stride=2)
        widths_in = (config.stem_width, *config.widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv_norm_act(width_in, width, stride=2),
                *(ResidualBlock(width) for _ in range(depth)),
            )
            for width_in, width, depth in zip(widths_in, config.widths, config.depths, strict=True)
        )
        out_widths = (config.fine_widths[1], config.fine_widths[0], out_dim, out_dim)
        self.laterals = nn.ModuleList(
            nn.Conv2d(width, out, kernel_size=1)
            for width, out in zip(config.widths, out_widths, strict=True)
        )
        self.from_above = nn.ModuleList(
            nn.Conv2d(above, out, kernel_size=1)
            for above, out in zip(out_widths[1:], out_widths[:-1], strict=True)
        )
        self.smooth = nn.ModuleList(conv_norm_act(out, out) for out in out_widths[:-1])
        self.heads = PromptHeads(config, out_dim)

    def forward(self, pixels_B3HW: Tensor) -> ImageFeatures:
        """Encode normalised, padded pixels."""
        # Channels last in memory, here and in everything made of it: convolutions are faster.
        x = self.stem(pixels_B3HW.contiguous(memory_format=torch.channels_last))
        levels = []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        merged = levels[3]
        outputs: list[Tensor] = []
        for level in (2, 1, 0):
            above = F.interpolate(self.from_above[level](merged), scale_factor=2.0, mode="nearest")
            merged = self.smooth[level](levels[level] + above)
            outputs.append(merged)
        return ImageFeatures(outputs[0], self.heads(outputs[1], outputs[2]))


@torch.no_grad()
def fit_norms_to_half(module: nn.Module) -> None:
    """Scale convolutions before batch norms so that the statistics fit float16; same outputs.

    A norm undoes any scale of what comes before it. Variances of trained networks exceed float16's
    65,504, and an infinite one silences its channel. Powers of two lose no bits.
    """
    layers = list(module.modules())
    for convolution, norm in pairwise(layers):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            mean, variance = norm.running_mean, norm.running_var
            if mean is None or variance is None or convolution.bias is not None:
                continue
            exponent = (variance.clamp(min=1.0).log2() / 2).floor()
            scale = torch.exp2(-exponent)
            convolution.weight *= scale[:, None, None, None]
            mean *= scale
            variance *= scale.square()


class PromptHeads(nn.Module):
    """The pyramid's fine levels, projected to what prompts and decoder read."""

    def __init__(self, config: CompactConfig, out_dim: int) -> None:
        super().__init__()
        stride8, stride4 = config.fine_widths
        self.affinity8 = nn.Conv2d(stride8, config.affinity_dim, kernel_size=1)
        self.affinity4 = nn.Conv2d(stride4, config.affinity_dim, kernel_size=1)
        self.canvas8 = nn.Conv2d(stride8, out_dim // 4, kernel_size=1)
        self.canvas4 = nn.Conv2d(stride4, out_dim // 8, kernel_size=1)
        self.barriers = nn.Conv2d(stride4, config.barriers, kernel_size=1)
        # Most pixels are no boundary.
        self.barriers.bias = nn.Parameter(torch.full((config.barriers,), _RARE_LOGIT))

    def forward(self, stride8_BCHW: Tensor, stride4_BCHW: Tensor) -> FineFeatures:
        """Project both levels."""
        return FineFeatures(
            affinity8_BCHW=F.normalize(self.affinity8(stride8_BCHW), dim=1),
            affinity4_BCHW=F.normalize(self.affinity4(stride4_BCHW), dim=1),
            canvas8_BCHW=self.canvas8(stride8_BCHW),
            canvas4_BCHW=self.canvas4(stride4_BCHW),
            barriers_BKHW=self.barriers(stride4_BCHW),
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv_norm_act(width, width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return F.relu(x_BCHW + self.norm2(self.conv2(self.conv1(x_BCHW))))


def conv_norm_act(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(inplace=True),
    )
