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

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.compact_encoder import FineFeatures
from model.fast_linear import linear
from model.layers import subpixels
from model.mask_decoder import MaskDecoder
from model.prompt_encoder import PromptEncoder
from model.prompt_groups import prompt_groups
from model.reachability import Terrain, seeds_at
from model.transfers import constant
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


def foreground_maps(barriers: int) -> list[int]:
    """Return which of all maps are not 0 everywhere when prompts are foreground clicks only."""
    return [0, 2, 4, *range(6, 6 + 2 * barriers)]


class GuidedPromptEncoder(PromptEncoder):
    """`PromptEncoder` whose dense part comes from guidance maps, not from the mask alone."""

    def __init__(self, dim: int, barriers: int) -> None:
        super().__init__(dim, mask_channels=_MASK_CHANNELS)
        del self.no_mask_embed  # the guidance maps say themselves that there is no mask
        self.mask_downscaling[0] = nn.Conv2d(
            guidance_maps(barriers), _MASK_CHANNELS // 4, kernel_size=2, stride=2
        )
        self.click_feature = nn.Linear(dim, dim)
        self._foreground_maps = foreground_maps(barriers)

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
            dense_NCHW=self._dense_of(guidance_NGhw),
            guidance_NGhw=guidance_NGhw,
        )

    def _dense_of(self, guidance_NGhw: Tensor) -> Tensor:
        read, *between, project = self.mask_downscaling
        read, project = cast(nn.Conv2d, read), cast(nn.Conv2d, project)
        weight = _of_maps(read.weight, guidance_NGhw.shape[1], self._foreground_maps)
        x_NCHW = F.conv2d(guidance_NGhw, weight, read.bias, stride=2)
        for layer in between:
            x_NCHW = layer(x_NCHW)
        x_NHWC = x_NCHW.permute(0, 2, 3, 1)
        dense_NHWC = linear(x_NHWC, project.weight.flatten(1), project.bias)
        return dense_NHWC.permute(0, 3, 1, 2)


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
        self._foreground_maps = foreground_maps(barriers)

    def _paint(self, brushes_N4c: Tensor, scored: ScoredPrompts, chosen: Tensor | slice) -> Tensor:
        masks, drawn = [], 0
        for rows in prompt_groups(chosen, len(scored.image_NCHW), scored.image_NCHW[:1]):
            canvas_Nhwc = self._canvas_of(scored, rows)
            brushes = brushes_N4c[drawn : drawn + len(canvas_Nhwc)]
            masks_N4P = brushes @ canvas_Nhwc.flatten(1, 2).transpose(1, 2)
            masks.append(masks_N4P.view(*masks_N4P.shape[:2], *canvas_Nhwc.shape[1:3]))
            drawn += len(canvas_Nhwc)
        return masks[0] if len(masks) == 1 else torch.cat(masks)

    def _canvas_of(self, scored: ScoredPrompts, chosen: Tensor | slice) -> Tensor:
        """Return what the brushes read: (chosen, h, w, c).

        Channels come last: all but `refine` are products of matrices then. These maps are the
        largest of the decoder and are added up where they are, not copied.
        """
        if scored.guidance_NGhw is None:
            raise ValueError("the guided decoder needs prompts encoded by GuidedPromptEncoder")
        to_stride8, to_stride4 = cast("tuple[nn.ConvTranspose2d, ...]", self.output_upscaling)
        fine = fine_features(scored.features)
        image, guidance, canvas8, canvas4 = (
            maps.permute(0, 2, 3, 1)
            for maps in (
                scored.image_NCHW,
                scored.guidance_NGhw,
                scored.features.per_prompt(fine.canvas8_BCHW),
                scored.features.per_prompt(fine.canvas4_BCHW),
            )
        )
        if scored.features.owner_N is not None:
            canvas8, canvas4 = canvas8[chosen], canvas4[chosen]
        x = _in_rows(subpixels(image[chosen], to_stride8)).flatten(3, 4).flatten(1, 2)
        x = x.add_(canvas8).relu_()
        weight = _of_maps(self.from_guidance.weight, guidance.shape[3], self._foreground_maps)
        drawn = linear(guidance[chosen], weight.flatten(1), self.from_guidance.bias)
        cells = _in_rows(subpixels(x, to_stride4))
        x = drawn.view(cells.shape).add_(cells).view(drawn.shape).add_(canvas4).relu_()
        refined: Tensor = self.refine(x.permute(0, 3, 1, 2))
        return refined.permute(0, 2, 3, 1).add_(x).relu_()


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
    """Draw all guidance maps, or `foreground_maps` where the others are 0: (N, G, h, w).

    Channels come last in memory, as the convolutions that read them like it.
    """
    fine = fine_features(features)
    height, width = (side // GUIDANCE_STRIDE for side in padded_size)
    # In the automatic stage always: half of the maps need not be made, stored and read then.
    background_spreads = prompts.boxes_N4 is not None or _has_background(prompts, background_NP)
    foreground_only = not background_spreads and prompts.mask_logits_N1hw is None
    sides = (foreground_NP,) if foreground_only else (foreground_NP, background_NP)
    maps: list[Tensor] = []
    for affinity_BCHW in (fine.affinity8_BCHW, fine.affinity4_BCHW):
        affinity = features.per_prompt(affinity_BCHW)
        keys_NPC = sample(affinity, probes_NP2, padded_size)
        maps += [_to_size(_best_similarity(affinity, keys_NPC, w), (height, width)) for w in sides]
    y, x = _pixel_centres(height, width, probes_NP2)
    maps += [_click_bumps(probes_NP2, _only_points(w, prompts), y, x) for w in sides]
    inside_NKhw = _distances(features, probes_NP2, foreground_NP)
    for reach_NKhw in (inside_NKhw.neg().exp_(), (inside_NKhw / -WIDER).exp_()):
        maps += reach_NKhw.unbind(1)
    if not foreground_only:
        box_Nhw = _box_map(prompts.boxes_N4, len(prompts), y, x)
        if background_spreads:
            beyond_NKhw = _distances(features, probes_NP2, background_NP, everywhere_at=box_Nhw < 0)
            maps += beyond_NKhw.neg().exp_().unbind(1)
        else:
            maps += torch.zeros_like(inside_NKhw).unbind(1)
        maps += [box_Nhw, _earlier_mask(prompts, height, width, probes_NP2)]
    stacked_NGhw = torch.stack([m.to(features.coarse_BCHW.dtype) for m in maps], dim=1)
    return stacked_NGhw.contiguous(memory_format=torch.channels_last)


def _has_background(prompts: InputPrompts, background_NP: Tensor) -> bool:
    known = prompts.has_background
    return bool(background_NP.any()) if known is None else known


def _distances(
    features: ImageFeatures,
    probes_NP2: Tensor,
    weights_NP: Tensor,
    *,
    everywhere_at: Tensor | None = None,
) -> Tensor:
    """Measure how far every pixel is from the weighted probes: (N, K, h, w).

    Args:
        features: of the images.
        probes_NP2: pixels of the padded input.
        weights_NP: 0 or 1.
        everywhere_at: pixels (N, h, w) that are starting points too.
    """
    terrain = _terrain(features)
    places_NP2 = probes_NP2 / GUIDANCE_STRIDE
    if everywhere_at is None and places_NP2.shape[1] == 1:
        return terrain.distances_from_point(places_NP2[:, 0], weights_NP[:, 0], features.owner_N)
    seeds_Nhw = seeds_at(places_NP2, weights_NP, terrain.size)
    if everywhere_at is not None:
        seeds_Nhw = seeds_Nhw.masked_fill(everywhere_at, 0.0)
    return terrain.distances(seeds_Nhw, features.owner_N)


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
    size_xy = constant(padded_size[::-1], points_NP2.device, points_NP2.dtype)
    # In float32: half precision tells places apart by pixels only.
    grid = (2 * (points_NP2 + 0.5) / size_xy - 1).float()
    maps = maps_BCHW.float()
    if len(maps) == 1:  # one image: all prompts' points are just more points
        flat = F.grid_sample(maps, grid.view(1, 1, -1, 2), "bilinear", "border", False)
        return flat[0, :, 0].T.view(*grid.shape[:2], maps.shape[1]).to(maps_BCHW.dtype)
    read = F.grid_sample(maps, grid.unsqueeze(1), "bilinear", "border", False)
    return read[:, :, 0].transpose(1, 2).to(maps_BCHW.dtype)


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
    if keys_NPC.shape[1] == 1 and len(maps_BCHW) == 1:
        return torch.einsum(
            "nc,chw->nhw",
            (keys_NPC * weights_NP.unsqueeze(2).to(keys_NPC.dtype))[:, 0],
            maps_BCHW[0],
        )
    if len(maps_BCHW) == 1:
        cosine = torch.einsum("npc,chw->nphw", keys_NPC, maps_BCHW[0])
    else:
        cosine = torch.einsum("npc,nchw->nphw", keys_NPC, maps_BCHW)
    off = (weights_NP == 0)[:, :, None, None]
    best = cosine.masked_fill(off, -1.0).amax(1)
    return best * (weights_NP.amax(1) > 0)[:, None, None]


def _of_maps(weight: Tensor, count: int, foreground: list[int]) -> Tensor:
    """Take the weights of the maps that are there; what the others would add is 0."""
    return weight if weight.shape[1] == count else weight[:, foreground]


def _in_rows(cells_Nhw4C: Tensor) -> Tensor:
    """Put what `subpixels` made in rows of an image: a view (N, h, 2, w, 2, C)."""
    N, h, w, _, C = cells_Nhw4C.shape
    return cells_Nhw4C.view(N, h, w, 2, 2, C).transpose(2, 3)


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
