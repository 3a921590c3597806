"""Prompt encoder and mask decoder of the bundled model: SAM's, with the prompt also drawn as maps.

A small model trained for hours, not GPU-years, does not learn from tokens alone where a click is.
So each prompt is also drawn at stride 4 as eight guidance maps: how similar every pixel's features
are to those under the foreground and background clicks (at two scales), where the clicks and the
box lie, and the earlier mask. They take the place of SAM's mask prompt, and the decoder sees them
again while drawing.

Shapes: N prompts, K points, G = 8 guidance maps, h w pixels at stride 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.mask_decoder import MaskDecoder
from model.prompt_encoder import PromptEncoder
from model.types import (
    BACKGROUND,
    FOREGROUND,
    EncodedPrompts,
    ImageFeatures,
    InputPrompts,
    ScoredPrompts,
)

GUIDANCE_MAPS = 8
GUIDANCE_STRIDE = 4
_AFFINITY_DIM = 32
_CLICK_SIGMA_PX = 12.0
_LOGIT_SOFTNESS = 4.0
# Where a box is looked at to learn what is inside: a 3x3 grid in its middle half.
_BOX_PROBES = (0.3, 0.5, 0.7)


class GuidedPromptEncoder(PromptEncoder):
    """`PromptEncoder` whose dense part comes from guidance maps, not from the mask alone."""

    def __init__(self, dim: int, fine_widths: tuple[int, int]) -> None:
        super().__init__(dim, mask_channels=32)
        del self.no_mask_embed  # the guidance maps say themselves that there is no mask
        self.mask_downscaling[0] = nn.Conv2d(GUIDANCE_MAPS, 8, kernel_size=2, stride=2)
        self.click_feature = nn.Linear(dim, dim)
        self.affinity = nn.ModuleList(
            nn.Conv2d(width, _AFFINITY_DIM, kernel_size=1) for width in fine_widths
        )

    def forward(
        self, prompts: InputPrompts, features: ImageFeatures, padded_size: tuple[int, int]
    ) -> EncodedPrompts:
        """Encode N prompts for an input of `padded_size` (height, width)."""
        probes_NP2, weights_foreground_NP, weights_background_NP = _probes(prompts)
        guidance = self._guidance(
            prompts, features, padded_size, probes_NP2, weights_foreground_NP, weights_background_NP
        )
        under_NPC = self.click_feature(
            sample(features.per_prompt(features.coarse_BCHW), probes_NP2, padded_size)
        )
        foreground = (under_NPC * weights_foreground_NP.unsqueeze(-1)).sum(1)
        foreground = foreground / weights_foreground_NP.sum(1, keepdim=True).clamp(min=1.0)
        sparse_NTC = self.sparse(prompts, padded_size)
        return EncodedPrompts(
            sparse_NTC=sparse_NTC + foreground.unsqueeze(1).to(sparse_NTC.dtype),
            dense_NCHW=self.mask_downscaling(guidance),
            guidance_NGhw=guidance,
        )

    def _guidance(
        self,
        prompts: InputPrompts,
        features: ImageFeatures,
        padded_size: tuple[int, int],
        probes_NP2: Tensor,
        foreground_NP: Tensor,
        background_NP: Tensor,
    ) -> Tensor:
        height, width = (side // GUIDANCE_STRIDE for side in padded_size)
        maps = []
        for project, level in zip(self.affinity, features.fine_BCHW, strict=True):
            projected = features.per_prompt(F.normalize(project(level), dim=1))
            keys_NPC = sample(projected, probes_NP2, padded_size)
            maps += [
                _to_size(_best_similarity(projected, keys_NPC, weights), (height, width))
                for weights in (foreground_NP, background_NP)
            ]
        centres = _pixel_centres(height, width, probes_NP2)
        maps += [
            _click_bumps(probes_NP2, _only_points(weights, prompts), *centres)
            for weights in (foreground_NP, background_NP)
        ]
        maps.append(_box_map(prompts.boxes_N4, len(prompts), *centres))
        maps.append(_earlier_mask(prompts, height, width, probes_NP2))
        return torch.stack([m.to(features.coarse_BCHW.dtype) for m in maps], dim=1)


class GuidedMaskDecoder(MaskDecoder):
    """`MaskDecoder` that draws on the image's fine features and the guidance maps.

    Its upscaling has no norms: at stride 4 they would cost more than all convolutions together.
    """

    def __init__(
        self, dim: int, fine_widths: tuple[int, int], *, heads: int, depth: int, mlp_dim: int
    ) -> None:
        super().__init__(dim, heads=heads, depth=depth, mlp_dim=mlp_dim)
        middle, fine = dim // 4, dim // 8
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, middle, kernel_size=2, stride=2),
            nn.ConvTranspose2d(middle, fine, kernel_size=2, stride=2),
        )
        self.from_stride8 = nn.Conv2d(fine_widths[0], middle, kernel_size=1)
        self.from_stride4 = nn.Conv2d(fine_widths[1], fine, kernel_size=1)
        self.from_guidance = nn.Conv2d(GUIDANCE_MAPS, fine, kernel_size=1)
        self.refine = nn.Conv2d(fine, fine, kernel_size=3, padding=1)

    def _upscale(self, scored: ScoredPrompts, chosen: Tensor | slice) -> Tensor:
        to_stride8, to_stride4 = self.output_upscaling
        features = scored.features
        stride8 = features.per_prompt(self.from_stride8(features.fine_BCHW[0]))
        stride4 = features.per_prompt(self.from_stride4(features.fine_BCHW[1]))
        if features.owner_N is not None:
            stride8, stride4 = stride8[chosen], stride4[chosen]
        if scored.guidance_NGhw is None:
            raise ValueError("the guided decoder needs prompts encoded by GuidedPromptEncoder")
        x = F.relu(to_stride8(scored.image_NCHW[chosen]) + stride8)
        x = F.relu(to_stride4(x) + stride4 + self.from_guidance(scored.guidance_NGhw[chosen]))
        return F.relu(x + self.refine(x))


def sample(maps_BCHW: Tensor, points_NP2: Tensor, padded_size: tuple[int, int]) -> Tensor:
    """Read maps at points by bilinear interpolation.

    Args:
        maps_BCHW: batch 1 or N.
        points_NP2: (x, y) in pixels of the padded input.
        padded_size: (height, width) of the padded input.

    Returns:
        (N, P, C).
    """
    size_xy = points_NP2.new_tensor([padded_size[1], padded_size[0]])
    grid = (2 * (points_NP2 + 0.5) / size_xy - 1).to(maps_BCHW.dtype)
    if len(maps_BCHW) == 1:  # one image: all prompts' points are just more points
        flat = F.grid_sample(maps_BCHW, grid.view(1, 1, -1, 2), "bilinear", "border", False)
        return flat[0, :, 0].T.view(*grid.shape[:2], maps_BCHW.shape[1])
    read = F.grid_sample(maps_BCHW, grid.unsqueeze(1), "bilinear", "border", False)
    return read[:, :, 0].transpose(1, 2)


def _probes(prompts: InputPrompts) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places that say what is wanted: (N, P, 2) and 0/1 weights (N, P) for fg and bg."""
    places, foreground, background = [], [], []
    if prompts.points_NK2 is not None and prompts.labels_NK is not None:
        places.append(prompts.points_NK2.float())
        foreground.append(prompts.labels_NK == FOREGROUND)
        background.append(prompts.labels_NK == BACKGROUND)
    if prompts.boxes_N4 is not None:
        x0, y0, x1, y1 = prompts.boxes_N4.float().unbind(-1)
        grid = [
            torch.stack([x0 + (x1 - x0) * u, y0 + (y1 - y0) * v], -1)
            for v in _BOX_PROBES
            for u in _BOX_PROBES
        ]
        places.append(torch.stack(grid, dim=1))
        inside = torch.ones(places[-1].shape[:2], dtype=torch.bool, device=x0.device)
        foreground.append(inside)
        background.append(~inside)
    if not places:  # a mask alone: one probe that nothing reads
        if prompts.mask_logits_N1hw is None:
            raise ValueError("no prompt given")
        anchor = prompts.mask_logits_N1hw.float()
        nothing = torch.zeros(len(anchor), 1, dtype=torch.bool, device=anchor.device)
        return anchor.new_zeros(len(anchor), 1, 2), nothing.float(), nothing.float()
    return torch.cat(places, 1), torch.cat(foreground, 1).float(), torch.cat(background, 1).float()


def _only_points(weights_NP: Tensor, prompts: InputPrompts) -> Tensor:
    """Zero the weights of probes that come from a box."""
    points = 0 if prompts.points_NK2 is None else prompts.points_NK2.shape[1]
    kept = torch.arange(weights_NP.shape[1], device=weights_NP.device) < points
    return weights_NP * kept


def _best_similarity(maps_BCHW: Tensor, keys_NPC: Tensor, weights_NP: Tensor) -> Tensor:
    """Cosine of every pixel with the most similar weighted key, 0 without any: (N, H, W)."""
    if len(maps_BCHW) == 1:
        cosine = torch.einsum("npc,chw->nphw", keys_NPC, maps_BCHW[0])
    else:
        cosine = torch.einsum("npc,nchw->nphw", keys_NPC, maps_BCHW)
    off = (weights_NP == 0)[:, :, None, None]
    best = cosine.masked_fill(off, -1.0).amax(1)
    return best * (weights_NP.amax(1) > 0)[:, None, None]


def _to_size(maps_NHW: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps_NHW.shape[1:]) == size:
        return maps_NHW
    resized = F.interpolate(maps_NHW.unsqueeze(1), size, mode="bilinear", align_corners=False)
    return resized[:, 0]


def _pixel_centres(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres of the guidance pixels in pixels of the padded input: y (h,) and x (w,)."""
    y = torch.arange(height, device=like.device) * GUIDANCE_STRIDE + (GUIDANCE_STRIDE - 1) / 2
    x = torch.arange(width, device=like.device) * GUIDANCE_STRIDE + (GUIDANCE_STRIDE - 1) / 2
    return y, x


def _click_bumps(points_NP2: Tensor, weights_NP: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Gaussian bumps at the weighted points: (N, h, w), at most 1."""
    two_sigma_squared = 2 * _CLICK_SIGMA_PX**2
    along_x = torch.exp(-((x - points_NP2[..., :1]) ** 2) / two_sigma_squared)
    along_y = torch.exp(-((y - points_NP2[..., 1:]) ** 2) / two_sigma_squared)
    along_y = along_y * weights_NP.unsqueeze(-1)
    return torch.einsum("nph,npw->nhw", along_y, along_x).clamp(max=1.0)


def _box_map(boxes_N4: Tensor | None, count: int, y: Tensor, x: Tensor) -> Tensor:
    """1 inside the box, -1 outside, 0 everywhere without a box: (N, h, w)."""
    if boxes_N4 is None:
        return y.new_zeros(count, len(y), len(x))
    x0, y0, x1, y1 = (side.unsqueeze(-1) for side in boxes_N4.unbind(-1))
    inside = ((y >= y0) & (y <= y1)).unsqueeze(2) & ((x >= x0) & (x <= x1)).unsqueeze(1)
    return inside.float() * 2 - 1


def _earlier_mask(prompts: InputPrompts, height: int, width: int, like: Tensor) -> Tensor:
    """The mask prompt squashed to (-1, 1), 0 everywhere without one: (N, h, w)."""
    if prompts.mask_logits_N1hw is None:
        return like.new_zeros(len(prompts), height, width)
    return torch.tanh(_to_size(prompts.mask_logits_N1hw[:, 0], (height, width)) / _LOGIT_SOFTNESS)
