"""What AdamW is told: which weights decay, how fast each learns and when, and their average.

>>> optimizer = torch.optim.AdamW(parameter_groups(sam, config), betas=BETAS)
>>> set_learning_rates(optimizer, step, config)

Paper: Segment Anything, appendix A; layer-wise decay as in ViTDet (arXiv 2203.16527).
"""

from __future__ import annotations

import copy
import math
import re
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from model.image_encoder import VitEncoder
from model.sam import Sam
from model.train_config import TrainConfig

BETAS = (0.9, 0.999)
_LAST_SHARE = 0.01


def parameter_groups(sam: Sam, config: TrainConfig) -> list[dict[str, Any]]:
    """Split what learns into AdamW's groups, each with its ``weight_decay`` and ``lr_scale``.

    Matrices decay; biases, norms and embeddings do not. Frozen weights are left out.
    """
    embeddings = {id(m.weight) for m in sam.modules() if isinstance(m, nn.Embedding)}
    groups: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for name, parameter in sam.named_parameters():
        if not parameter.requires_grad:
            continue
        is_position = name.endswith(("pos_embed", "rel_pos_h", "rel_pos_w"))
        is_matrix = parameter.ndim > 1 and id(parameter) not in embeddings and not is_position
        weight_decay = config.weight_decay if is_matrix else 0.0
        groups[layer_scale(name, sam, config.layer_decay), weight_decay].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay, "lr_scale": scale}
        for (scale, weight_decay), parameters in sorted(groups.items(), key=lambda g: g[0])[::-1]
    ]


def layer_scale(name: str, sam: Sam, layer_decay: float) -> float:
    """Return the learning rate of a parameter, relative to that of the decoder.

    It falls by `layer_decay` with each ViT block from the last to the first, and once more for the
    patch and position embeddings.

    Raises:
        ValueError: a decay for a model without a ViT.
    """
    if layer_decay == 1:
        return 1.0
    if not isinstance(sam.image_encoder, VitEncoder):
        raise ValueError(
            f"layer_decay {layer_decay} is for the blocks of a ViT, and {sam.config.name} has "
            "none; set layer_decay=1"
        )
    depth = len(sam.image_encoder.blocks)
    if name.startswith(("image_encoder.patch_embed", "image_encoder.pos_embed")):
        return float(layer_decay ** (depth + 1))
    block = re.match(r"image_encoder\.blocks\.(\d+)\.", name)
    return float(layer_decay ** (depth - int(block[1]))) if block else 1.0


def set_learning_rates(optimizer: torch.optim.Optimizer, step: int, config: TrainConfig) -> None:
    """Set the rate of every group for a step."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config) * group["lr_scale"]


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up; then down to 1 % of the peak along a cosine or late, or in steps."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.decay == "step":
        falls = sum(step >= round(share * config.steps) for share in config.decay_at)
        return config.learning_rate * config.decay_factor**falls
    if config.decay == "late":
        left = (config.steps - step) / max(1.0, config.decay_share * config.steps)
        return config.learning_rate * min(1.0, max(_LAST_SHARE, left))
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return config.learning_rate * (_LAST_SHARE + (1 - _LAST_SHARE) * cosine)


def start_average(sam: Sam, config: TrainConfig) -> Sam:
    """Return where the averaged weights will be: a copy, or without averaging the model itself."""
    if config.ema_decay == 0:
        return sam
    return copy.deepcopy(sam).eval().requires_grad_(False)


@torch.no_grad()
def update_average(average: Sam, sam: Sam, step: int, config: TrainConfig) -> None:
    """Move the averaged weights and norm statistics a little towards the current ones.

    Early on they move faster, so that the random start is soon forgotten.
    """
    if average is sam:
        return
    decay = min(config.ema_decay, (step + 1) / (step + 10))
    theirs = average.state_dict()
    floats = [(theirs[k], v) for k, v in sam.state_dict().items() if v.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
