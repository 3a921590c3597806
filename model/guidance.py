"""Prompt encoder and mask decoder of the bundled model: SAM's, with the prompt also drawn as maps.

A small model trained for hours, not GPU-years, does not learn from tokens alone where a click is.
So each prompt is also drawn at stride 4 as guidance maps: how similar every pixel's features are to
those under the foreground and background clicks (at two scales), how far their reach extends before
it meets a boundary (`model.reachability`), where the clicks and the box lie, and the earlier mask.
They take the place of SAM's mask prompt, and the decoder sees them again while drawing.

Shapes: N prompts, P probes (points that say what is wanted), K kinds of boundary, G guidance maps,
h w pixels at stride 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.compact_encoder import FineFeatures
from model.mask_decoder import MaskDecoder
from model.prompt_encoder import PromptEncoder
from model.reachability import Terrain, seeds_at
from model.types import (
    BACKGROUND,
    FOREGROUND,
    EncodedPrompts,
    ImageFeatures,
    InputPrompts,
    ScoredPrompts,
)

GUIDANCE_STRIDE = 4
_MASK_CHANNELS = 64
CLICK_SIGMA_PX = 12.0
LOGIT_SOFTNESS = 4.0
# A distance this many times longer still counts in the wider map of what a click reaches.
WIDER = 4.0
# Where a box is looked at to learn what is inside: a 3x3 grid in its middle half.
BOX_PROBES = (0.3, 0.5, 0.7)


def guidance_maps(barriers: int) -> int:
    """Return G: 4 of affinity, 2 of clicks, 3 for each kind of boundary, box and earlier mask."""
    return 8 + 3 * barriers


class GuidedPromptEncoder(PromptEncoder):
    """`PromptEncoder` whose dense part comes from guidance maps, not from the mask alone."""

    def __init__(self, dim: int, barriers: int) -> None:
        super().__init__(dim, mask_channels=_MASK_CHANNELS)
        del self.no_mask_embed  # the guidance maps say themselves that there is no mask
        self.mask_downscaling[0] = nn.Conv2d(
            guidance_maps(barriers), _MASK_CHANNELS // 4, kernel_size=2, stride=2
        )
        self.click_feature = nn.Linear(dim, dim)

    def forward(
        self, prompts: InputPrompts, features: ImageFeatures, padded_size: tuple[int, int]
    ) -> EncodedPrompts:
        """Encode N prompts for an input of `padded_size` (height, width)."""
        probes_NP2, foreground_NP, background_NP = _probes(prompts)
        guidance_NGhw = _guidance(
            prompts, features, padded_size, probes_NP2, foreground_NP, background_NP
        )
        under_NPC = self.click_feature(
            sample(features.per_prompt(features.coarse_BCHW), probes_NP2, padded_size)
        )
        foreground_NC = (under_NPC * foreground_NP.unsqueeze(-1)).sum(1)
        foreground_NC = foreground_NC / foreground_NP.sum(1, keepdim=True).clamp(min=1.0)
        sparse_NTC = self.sparse(prompts, padded_size)
        return EncodedPrompts(
            sparse_NTC=sparse_NTC + foreground_NC.unsqueeze(1).to(sparse_NTC.dtype),
            dense_NCHW=self.mask_downscaling(guidance_NGhw),
            guidance_NGhw=guidance_NGhw,
        )


class GuidedMaskDecoder(MaskDecoder):
    """`MaskDecoder` that draws on the image's fine features and the guidance maps.

    Its upscaling has no norms: at stride 4 they would cost more than all convolutions together.
    """

    def __init__(self, dim: int, barriers: int, *, heads: int, depth: int, mlp_dim: int) -> None:
        super().__init__(dim, heads=heads, depth=depth, mlp_dim=mlp_dim)
        middle, fine = dim // 4, dim // 8
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, middle, kernel_size=2, stride=2),
            nn.ConvTranspose2d(middle, fine, kernel_size=2, stride=2),
        )
        self.from_guidance = nn.Conv2d(guidance_maps(barriers), fine, kernel_size=1)
        self.refine = nn.Conv2d(fine, fine, kernel_size=3, padding=1)

    def _upscale(self, scored: ScoredPrompts, chosen: Tensor | slice) -> Tensor:
        if scored.guidance_NGhw is None:
            raise ValueError("the guided decoder needs prompts encoded by GuidedPromptEncoder")
        to_stride8, to_stride4 = self.output_upscaling
        features = scored.features
        fine = fine_features(features)
        canvas8, canvas4 = (
            features.per_prompt(canvas) for canvas in (fine.canvas8_BCHW, fine.canvas4_BCHW)
        )
        if features.owner_N is not None:
            canvas8, canvas4 = canvas8[chosen], canvas4[chosen]
        # These maps are the largest of the decoder: added up where they are, not copied.
        x = to_stride8(scored.image_NCHW[chosen]).add_(canvas8).relu_()
        drawn = self.from_guidance(scored.guidance_NGhw[chosen])
        x = to_stride4(x).add_(canvas4).add_(drawn).relu_()
        refined: Tensor = self.refine(x)
        return refined.add_(x).relu_()


def fine_features(features: ImageFeatures) -> FineFeatures:
    """Return what the compact encoder prepared.

    Raises:
        ValueError: features of another encoder.
    """
    if not features.fine_BCHW:
        raise ValueError("guided prompts need the compact encoder's features; got a plain ViT's")
    return FineFeatures(*features.fine_BCHW)


def _guidance(
    prompts: InputPrompts,
    features: ImageFeatures,
    padded_size: tuple[int, int],
    probes_NP2: Tensor,
    foreground_NP: Tensor,
    background_NP: Tensor,
) -> Tensor:
    """Draw all guidance maps: (N, G, h, w)."""
    fine = fine_features(features)
    height, width = (side // GUIDANCE_STRIDE for side in padded_size)
    sides = (foreground_NP, background_NP)
    # Mostly, and in the automatic stage always, there is none: its maps are known then.
    none_Nhw = probes_NP2.new_zeros(len(prompts), height, width)
    any_background = bool(background_NP.any())
    maps: list[Tensor] = []
    for affinity_BCHW in (fine.affinity8_BCHW, fine.affinity4_BCHW):
        affinity = features.per_prompt(affinity_BCHW)
        keys_NPC = sample(affinity, probes_NP2, padded_size)
        maps += [
            _to_size(_best_similarity(affinity, keys_NPC, weights_NP), (height, width))
            if any_background or weights_NP is foreground_NP
            else none_Nhw
            for weights_NP in sides
        ]
    y, x = _pixel_centres(height, width, probes_NP2)
    box_Nhw = _box_map(prompts.boxes_N4, len(prompts), y, x)
    maps += [_click_bumps(probes_NP2, _only_points(w, prompts), y, x) for w in sides]
    background_spreads = any_background or prompts.boxes_N4 is not None
    maps += _reach(features, probes_NP2, sides, box_Nhw < 0, spreads=background_spreads)
    maps += [box_Nhw, _earlier_mask(prompts, height, width, probes_NP2)]
    return torch.stack([m.to(features.coarse_BCHW.dtype) for m in maps], dim=1)


def _reach(
    features: ImageFeatures,
    probes_NP2: Tensor,
    sides: tuple[Tensor, Tensor],
    outside_Nhw: Tensor,
    *,
    spreads: bool,
) -> list[Tensor]:
    """Draw what the probes reach without crossing a boundary: 3 K maps (N, h, w) in [0, 1].

    Foreground twice, the second time with a wider reach, then background, which also starts from
    everything outside the box; `spreads` is false where there is neither of these.
    """
    barriers_BKhw = fine_features(features).barriers_BKHW
    terrain = _terrain(features)
    size = (barriers_BKhw.shape[-2], barriers_BKhw.shape[-1])
    foreground, background = (seeds_at(probes_NP2 / GUIDANCE_STRIDE, w, size) for w in sides)
    background = background.masked_fill(outside_Nhw, 0.0)
    inside_NKhw = terrain.distances(foreground, features.owner_N)
    if spreads:
        beyond_NKhw = terrain.distances(background, features.owner_N)
    else:
        beyond_NKhw = background.unsqueeze(1).expand_as(inside_NKhw)
    reach = torch.cat([inside_NKhw, inside_NKhw / WIDER, beyond_NKhw], dim=1).neg().exp()
    return list(reach.unbind(1))


def _terrain(features: ImageFeatures) -> Terrain:
    """Return what it costs to cross the images, kept for the next prompt while nothing learns."""
    if torch.is_grad_enabled():
        return Terrain.from_logits(fine_features(features).barriers_BKHW)
    if features.ground.terrain is None:
        features.ground.terrain = Terrain.from_logits(fine_features(features).barriers_BKHW)
    return features.ground.terrain


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
            for v in BOX_PROBES
            for u in BOX_PROBES
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
    two_sigma_squared = 2 * CLICK_SIGMA_PX**2
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
    return torch.tanh(_to_size(prompts.mask_logits_N1hw[:, 0], (height, width)) / LOGIT_SOFTNESS)
