"""A SAM that was never trained and yet answers like one: compact masks below their points.

    sam = plausible_sam(SIZES["vit_b"], image_HWC3)

Random weights cost what trained ones cost in the model, but their masks are noise over the whole
image and their scores all alike, so that filters, NMS and RLE have nothing usual to do. Here a few
random weights are set by rule and a few are fitted to the image at hand, until the filters pass the
shares that a trained model lets pass on photos. All sides of a comparison load the same file.

By rule: a point's position is compared with that of each image token (image-to-token attention with
half of the Fourier features as query and key), so that image tokens near the point take over its
value; a token attends to itself, so that the point's value stays its own; the four pixels that an
upscaling convolution makes of one are nearly alike.

Fitted on a grid of points: the last bias of each hypernetwork, by least squares, so that the three
masks are blobs of three sizes, with outlines that follow the random features; their gain, by the
share of stable masks; scale and shift of the IoU head, by the share of prompts that keep a mask.

Shape suffixes: N prompts; 4 mask tokens; C channels; P image positions; hw the low-resolution map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model import LOW_RES_STRIDE, Frame, ImageEmbedding, Prompts, Sam, SamConfig

IOU_THRESHOLD, STABILITY_THRESHOLD, STABILITY_OFFSET = 0.88, 0.95, 1.0
_IOU_DEVIATION = 0.05
_RADII = (0.06, 0.045, 0.065, 0.1)  # of the four tokens' masks, as a share of the input's side
_OWN_CHOICE = 0.15  # how much of a hypernetwork's answer depends on the prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRates:
    """What the filters let pass, measured on the grid that fitted them.

    Attributes:
        prompts: share with a mask above the IoU threshold.
        masks: share above it.
        stable: share of those that are stable.
    """

    prompts: float
    masks: float
    stable: float


def plausible_sam(
    config: SamConfig,
    image_HWC3: NDArray[np.uint8],
    *,
    prompts_passing: float = 0.82,
    masks_stable: float = 0.75,
    seed: int = 0,
) -> tuple[Sam, PassRates]:
    """Build the model for one image.

    Args:
        config: one of SAM's own sizes.
        image_HWC3: that the benchmark will mask.
        prompts_passing: share of prompts that keep a mask after the IoU filter; real SAM on photos
            keeps about 82 %.
        masks_stable: share of those masks that stability keeps.
        seed: of the random weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = Sam(config)
        for name, weight in sam.named_parameters():
            if "pos" in name and "image_encoder" in name:  # zeros, else
                nn.init.normal_(weight, std=0.02)
    with torch.no_grad():
        _localise(sam)
        sam.eval()
        embedding = sam.encode(image_HWC3)
        _fit_masks(sam, embedding)
        iou_N4 = _fit_scores(sam, embedding, prompts_passing)
        passing_N3 = iou_N4[:, 1:] > IOU_THRESHOLD
        stable = _fit_gain(sam, embedding, passing_N3, masks_stable)
    return sam, PassRates(
        prompts=float(passing_N3.any(dim=1).float().mean()),
        masks=float(passing_N3.float().mean()),
        stable=stable,
    )


def _localise(sam: Sam) -> None:
    """Let image tokens near a point take over its value."""
    dim = sam.config.dim
    quarter, half = dim // 4, dim // 2
    decoder, prompts = sam.mask_decoder, sam.prompt_encoder
    # A quarter of the frequencies says where; the others' channels say what kind of token it is.
    frequencies = prompts.pe_layer.positional_encoding_gaussian_matrix
    frequencies[:, :quarter] *= 1.2
    frequencies[:, quarter:] = 0
    kind = torch.zeros(dim)
    kind[quarter:half] = 2
    foreground = cast(nn.Embedding, prompts.point_embeddings[1])
    for embedding in (
        foreground,
        prompts.not_a_point_embed,
        decoder.mask_tokens,
        decoder.iou_token,
    ):
        embedding.weight *= kind
    prompts.no_mask_embed.weight *= 0.1
    cast(Tensor, cast(nn.Sequential, sam.image_encoder.neck)[3].weight).fill_(0.25)
    for layer in decoder.transformer.layers:
        self_attention = layer.get_submodule("self_attn")
        _linear(self_attention, "k_proj").weight.copy_(5 * _linear(self_attention, "q_proj").weight)
        for norm, scale in (("norm3", 0.3), ("norm4", 0.25)):
            cast(nn.LayerNorm, layer.get_submodule(norm)).weight.fill_(scale)
        _compare_positions(
            layer.get_submodule("cross_attn_image_to_token"), sam.config.decoder_heads, dim
        )
    for i in (0, 3):
        taps = cast(Tensor, decoder.output_upscaling[i].weight)
        mean = taps.mean(dim=(2, 3), keepdim=True)
        taps.copy_(2 * mean + 0.05 * (taps - mean))


def _compare_positions(attention: nn.Module, heads: int, dim: int) -> None:
    """Give every head some frequencies, sine and cosine, as its query and its key."""
    inner = dim // 2
    per_head = inner // heads
    row = torch.arange(inner)
    frequency = row // per_head * (per_head // 2) + row % (per_head // 2)
    column = torch.where(row % per_head < per_head // 2, frequency, frequency + dim // 2)
    for name, gain in (("q_proj", 1.0), ("k_proj", 4.0)):
        linear = _linear(attention, name)
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[row, column] = gain
    for name in ("v_proj", "out_proj"):
        _linear(attention, name).weight.mul_(3)


def _linear(module: nn.Module, name: str) -> nn.Linear:
    return cast(nn.Linear, module.get_submodule(name))


def _grid_prompts(frame: Frame, per_side: int) -> tuple[Prompts, Tensor]:
    """Return a grid of points, and the same in low-resolution pixels: (N, 2)."""
    height, width = frame.original_size
    y, x = np.mgrid[:per_side, :per_side].reshape(2, -1)
    points_N2 = (np.stack([x, y], axis=-1) + 0.5) / per_side * [width, height]
    labels_N1 = np.ones((len(points_N2), 1), dtype=np.int64)
    scale = frame.input_size[1] / width / LOW_RES_STRIDE
    prompts = Prompts(points_xy=points_N2[:, None], point_labels=labels_N1)
    return prompts, torch.from_numpy(points_N2 * scale).float()


def _hypernetworks(sam: Sam) -> list[nn.Sequential]:
    """Return each mask token's layers."""
    mlps = sam.mask_decoder.output_hypernetworks_mlps
    return [cast(nn.Sequential, mlp.get_submodule("layers")) for mlp in mlps]


def _fit_masks(sam: Sam, embedding: ImageEmbedding) -> None:
    """Fit the hypernetworks' last biases so that masks are blobs around their points."""
    prompts, points_N2 = _grid_prompts(embedding.frame, 4)
    scored = sam.score(embedding, prompts)
    lasts = [cast(nn.Linear, layers[-1]) for layers in _hypernetworks(sam)]
    own = [last.weight.clone() for last in lasts]
    channels = []
    for first in range(0, lasts[0].out_features, len(lasts)):
        for i, last in enumerate(lasts):  # token i draws channel first + i and nothing else
            last.weight.zero_()
            last.bias.zero_()
            last.bias[first + i] = 1
        channels.append(sam.draw(scored))
    canvas_NChw = torch.cat(channels, dim=1)
    used = tuple(-(-side // LOW_RES_STRIDE) for side in embedding.frame.input_size)
    canvas_NChw = canvas_NChw[:, :, : used[0], : used[1]]
    y_h1 = torch.arange(used[0])[:, None] + 0.5
    x_1w = torch.arange(used[1])[None, :] + 0.5
    distance_Nhw = torch.hypot(
        x_1w - points_N2[:, 0, None, None], y_h1 - points_N2[:, 1, None, None]
    )
    features_PC = canvas_NChw.permute(0, 2, 3, 1).flatten(0, 2).double()
    for last, weight, share, hidden_NC in zip(
        lasts, own, _RADII, _hidden(sam, scored.mask_tokens_N4C), strict=True
    ):
        radius = share * sam.config.image_size / LOW_RES_STRIDE
        wanted_P = torch.tanh(2 - 2 * distance_Nhw / radius).flatten().double()
        importance_P1 = torch.where(wanted_P > 0, 6.0, 1.0)[:, None]
        weighted_PC = features_PC * importance_P1
        gram = features_PC.T @ weighted_PC
        gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        brush_C = torch.linalg.solve(gram, weighted_PC.T @ wanted_P).float()
        answers_NC = hidden_NC @ weight.T
        spread = answers_NC.std(dim=0).square().sum().sqrt().clamp_min(1e-12)
        scale = _OWN_CHOICE * brush_C.norm() / spread
        last.weight.copy_(weight * scale)
        last.bias.copy_(brush_C - answers_NC.mean(dim=0) * scale)


def _hidden(sam: Sam, tokens_N4C: Tensor) -> list[Tensor]:
    """Return what each hypernetwork's last layer gets: (N, C) per token."""
    hidden = []
    for i, layers in enumerate(_hypernetworks(sam)):
        x_NC = tokens_N4C[:, i]
        for layer in list(layers)[:-1]:
            x_NC = torch.relu(layer(x_NC))
        hidden.append(x_NC)
    return hidden


def _fit_scores(sam: Sam, embedding: ImageEmbedding, prompts_passing: float) -> Tensor:
    """Scale and shift the IoU head; return the grid's scores after it."""
    prompts, _ = _grid_prompts(embedding.frame, 8)
    iou_N4 = sam.score(embedding, prompts).iou_N4
    mean_4, deviation_4 = iou_N4.mean(dim=0), iou_N4.std(dim=0).clamp_min(1e-9)
    best_N = ((iou_N4 - mean_4) / deviation_4)[:, 1:].amax(dim=1)
    scale_4 = _IOU_DEVIATION / deviation_4
    centre = IOU_THRESHOLD - _IOU_DEVIATION * float(best_N.quantile(1 - prompts_passing))
    head = cast(nn.Sequential, sam.mask_decoder.iou_prediction_head.get_submodule("layers"))
    last = cast(nn.Linear, head[-1])
    last.weight.mul_(scale_4[:, None])
    last.bias.copy_((last.bias - mean_4) * scale_4 + centre)
    return sam.score(embedding, prompts).iou_N4


def _fit_gain(
    sam: Sam, embedding: ImageEmbedding, passing_N3: Tensor, masks_stable: float
) -> float:
    """Scale all logits so that the wanted share of passing masks is stable; return the share."""
    prompts, _ = _grid_prompts(embedding.frame, 8)
    scored = sam.score(embedding, prompts)
    logits_Mhw = torch.cat(
        [
            sam.draw(scored, slice(i, i + 8))[:, 1:][passing_N3[i : i + 8]]
            for i in range(0, len(prompts), 8)
        ]
    )
    low, high = 1e-2, 1e6
    for _ in range(40):
        gain = (low * high) ** 0.5
        low, high = (gain, high) if _stable_share(logits_Mhw, gain) < masks_stable else (low, gain)
    for layers in _hypernetworks(sam):
        for parameter in cast(nn.Linear, layers[-1]).parameters():
            parameter.mul_(high)
    return _stable_share(logits_Mhw, high)


def _stable_share(logits_Mhw: Tensor, gain: float) -> float:
    """Return the share of stable masks, measured at low resolution."""
    inner = (logits_Mhw > STABILITY_OFFSET / gain).sum(dim=(1, 2))
    outer = (logits_Mhw > -STABILITY_OFFSET / gain).sum(dim=(1, 2))
    return float((inner >= STABILITY_THRESHOLD * outer.clamp_min(1)).float().mean())
