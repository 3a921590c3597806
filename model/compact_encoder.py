"""The bundled model's image encoder: a small residual network with a feature pyramid.

Residual stages at stride 4, 8, 16 and 32 see far enough for whole objects; the pyramid carries
their context back to stride 16 (the decoder's image tokens) and to strides 8 and 4 (outlines).
Pyramid: arXiv 1612.03144.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from model.types import ImageFeatures


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactConfig:
    """Sizes of the compact encoder.

    Attributes:
        stem_width: channels at stride 2.
        widths: channels at strides 4, 8, 16 and 32.
        depths: residual blocks at strides 4, 8, 16 and 32.
        fine_widths: channels of the features handed out at strides 8 and 4.
    """

    stem_width: int = 24
    widths: tuple[int, int, int, int] = (40, 80, 160, 224)
    depths: tuple[int, int, int, int] = (1, 2, 3, 2)
    fine_widths: tuple[int, int] = (64, 32)


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

    def forward(self, pixels_B3HW: Tensor) -> ImageFeatures:
        """Encode normalised, padded pixels."""
        x = self.stem(pixels_B3HW)
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
        return ImageFeatures(outputs[0], (outputs[1], outputs[2]))


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
