"""SAM's training step once more, written from the paper in plain loops to check the real one by.

Masks are decoded one by one, losses are spelled out pixel by pixel, and all numbers of the recipe
stand here as the paper has them (appendix A). Only the forward pass of the model is shared. Random
numbers are drawn in the order that `train_step` documents: drop path, first points, boxes, who
begins with a box, how many clicks, where the round without a click goes, then every click.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model import Sam, TrainBatch
from model.image_encoder import Block, VitEncoder
from model.types import ImageFeatures, InputPrompts

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FOCAL, DICE, IOU = 20, 1, 1
ALPHA = 0.25
DROP_PATH = 0.4
CLICKS = 8


def plain_step(sam: Sam, batch: TrainBatch, generator: torch.Generator) -> Tensor:
    """Return the total loss of SAM's 11 rounds."""
    images = encode_each(sam, batch.images_BHW3, generator)
    masks = list(batch.masks_NHW)
    first_clicks = [pixel_of(m, u) for m, u in zip(masks, uniform(generator, masks), strict=True)]
    noise = torch.randn(len(masks), 4, generator=generator)
    boxes = [noisy_box(mask, z) for mask, z in zip(masks, noise, strict=True)]
    boxed = [u < 0.5 for u in uniform(generator, masks)]
    torch.rand((), generator=generator)  # whether to correct at all: always
    torch.rand((), generator=generator)  # how many clicks: always eight
    still = int(float(torch.rand((), generator=generator)) * CLICKS)
    new_click = [True] * still + [False] + [True] * (CLICKS - still) + [False]

    clicks: list[list[tuple[int, int, int]]] = [
        [] if box else [(*click, 1)] for box, click in zip(boxed, first_clicks, strict=True)
    ]
    shown: list[Tensor | None] = [None] * len(masks)
    total = torch.zeros((), dtype=torch.float64)
    for number in range(11):
        draws = uniform(generator, masks) if number and new_click[number - 1] else None
        losses = []
        for n, mask in enumerate(masks):
            earlier = shown[n]
            if draws is not None and earlier is not None:
                clicks[n].append(corrective_click(mask, earlier, draws[n]))
            box = boxes[n] if boxed[n] else None
            features = images[int(batch.image_index_N[n])]
            predicted_iou, logits = decode_one(sam, features, clicks[n], box, earlier, mask)
            tokens = [1, 2, 3] if number == 0 else [0]
            loss, best = best_loss(logits, mask, tokens)
            error = float(iou(logits[best], mask)) - predicted_iou[best]
            losses.append(loss + IOU * error**2)
            trusted = max(tokens, key=lambda token: float(predicted_iou[token].detach()))
            shown[n] = logits[trusted].detach()
        total = total + sum(losses, torch.zeros(())) / len(losses)
    return total / 11


def uniform(generator: torch.Generator, masks: list[Tensor]) -> list[float]:
    numbers: list[float] = torch.rand(len(masks), 1, generator=generator)[:, 0].tolist()
    return numbers


def encode_each(sam: Sam, images_BHW3: Tensor, generator: torch.Generator) -> list[ImageFeatures]:
    """Encode images one by one, dropping branches of the ViT's blocks."""
    encoder = sam.image_encoder
    assert isinstance(encoder, VitEncoder)
    depth = len(encoder.blocks)
    drawn = torch.rand(len(images_BHW3), 2 * depth, generator=generator)
    encoded = []
    for image, numbers in zip(images_BHW3, drawn.tolist(), strict=True):
        planes = [(image[..., c].double() - MEAN[c]) / STD[c] for c in range(3)]
        x = encoder.patch_embed(torch.stack(planes).unsqueeze(0)) + encoder.pos_embed
        for i, block in enumerate(encoder.blocks):
            assert isinstance(block, Block)
            kept = 1 - DROP_PATH * i / (depth - 1)
            if numbers[2 * i] < kept:
                x = x + attended(block, x) / kept
            if numbers[2 * i + 1] < kept:
                x = x + block.mlp(block.norm2(x)) / kept
        encoded.append(ImageFeatures(encoder.neck(x.permute(0, 3, 1, 2))))
    return encoded


def attended(block: Block, x: Tensor) -> Tensor:
    """Attend in the whole image, or in one window after the other."""
    x = block.norm1(x)
    side = block.window_size
    if not side:
        whole: Tensor = block.attn(x)
        return whole
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    rows = []
    for top in range(0, height, side):
        windows = [x[:, top : top + side, left : left + side] for left in range(0, width, side)]
        rows.append(torch.cat([block.attn(window) for window in windows], dim=2))
    return torch.cat(rows, dim=1)[:, :height, :width]


def pixel_of(mask: Tensor, chance: float) -> tuple[int, int]:
    """Return the pixel (x, y) at this share of a mask's pixels in reading order."""
    pixels = mask.nonzero().tolist()
    y, x = pixels[int(chance * len(pixels))]
    return x, y


def noisy_box(mask: Tensor, noise: Tensor) -> list[float]:
    ys, xs = mask.nonzero().unbind(1)
    x0, y0, x1, y1 = int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max())
    height, width = mask.shape
    box = []
    for side, length, limit, z in zip(
        (x0, y0, x1, y1),
        (x1 - x0, y1 - y0) * 2,
        (width - 1, height - 1) * 2,
        noise.tolist(),
        strict=True,
    ):
        moved = side + min(20.0, max(-20.0, z * 0.1 * length))
        box.append(min(float(limit), max(0.0, moved)))
    return box


def corrective_click(mask: Tensor, logits: Tensor, chance: float) -> tuple[int, int, int]:
    """Click into the error, or once more into the mask where there is none."""
    drawn = F.interpolate(logits[None, None].float(), mask.shape, mode="bilinear")[0, 0] > 0
    errors = mask != drawn
    x, y = pixel_of(errors if errors.any() else mask, chance)
    return x, y, int(mask[y, x])


def decode_one(
    sam: Sam,
    features: ImageFeatures,
    clicks: list[tuple[int, int, int]],
    box: list[float] | None,
    earlier: Tensor | None,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Ask for one mask: predicted IoU (4,) and logits (4, h, w)."""
    height, width = mask.shape
    prompts = InputPrompts(
        points_NK2=torch.tensor([[click[:2] for click in clicks]]).float() if clicks else None,
        labels_NK=torch.tensor([[click[2] for click in clicks]]) if clicks else None,
        boxes_N4=None if box is None else torch.tensor([box]),
        # What a person's browser would send back: float32.
        mask_logits_N1hw=None if earlier is None else earlier.float()[None, None],
    )
    scored = sam.score_input(features, prompts, (height, width))
    return scored.iou_N4[0].double(), sam.mask_decoder.draw(scored)[0].double()


def best_loss(logits: Tensor, mask: Tensor, tokens: list[int]) -> tuple[Tensor, int]:
    """Return the smallest mask loss of these tokens, and whose it is."""
    losses = {token: mask_loss(logits[token], mask) for token in tokens}
    best = min(tokens, key=lambda token: float(losses[token].detach()))
    return losses[best], best


def coverage(mask: Tensor) -> Tensor:
    """Share of every 4 x 4 block that the mask covers."""
    height, width = mask.shape
    return mask.double().reshape(height // 4, 4, width // 4, 4).mean((1, 3))


def mask_loss(logits: Tensor, mask: Tensor) -> Tensor:
    target = coverage(mask)
    p = 1 / (1 + torch.exp(-logits))
    entropy = -target * F.logsigmoid(logits) - (1 - target) * F.logsigmoid(-logits)
    right = p * target + (1 - p) * (1 - target)
    weight = ALPHA * target + (1 - ALPHA) * (1 - target)
    focal = (weight * (1 - right) ** 2 * entropy).sum() / target.numel()
    dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    return FOCAL * focal + DICE * dice


def iou(logits: Tensor, mask: Tensor) -> float:
    drawn, wanted = logits > 0, coverage(mask) > 0.5
    union = int((drawn | wanted).sum())
    return int((drawn & wanted).sum()) / union if union else 0.0
