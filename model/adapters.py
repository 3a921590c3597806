"""Adapting a large model to a domain on one GPU: frozen parts and low-rank adapters.

    sam = add_lora(build_sam("vit_h", "sam_vit_h.pth"), rank=8)    # 0.2 % of the weights learn
    trained = train(sam, batches, config, checkpoint)
    save_lora(trained, Path("cells.safetensors"))                  # a few MB
    plain = merge_lora(trained)                                    # a plain Sam again

LoRA (arXiv 2106.09685) learns an update of low rank to the query and value projections of every
attention. The updates are parametrisations of the weights themselves, so no forward pass knows of
them, and merging keeps the very weights that the adapted model computed with.

What is frozen also stays in inference mode, whatever `Sam.train` says: its batch norms learn no
statistics.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from model.checkpoint import CheckpointError
from model.sam import Sam

__all__ = [
    "ParameterCount",
    "Part",
    "add_lora",
    "count_parameters",
    "freeze_all_but",
    "load_lora",
    "lora_state_dict",
    "merge_lora",
    "save_lora",
]

Part = Literal["decoder", "prompt_and_decoder", "encoder", "all"]
_PARTS: dict[Part, tuple[str, ...]] = {
    "decoder": ("mask_decoder",),
    "prompt_and_decoder": ("prompt_encoder", "mask_decoder"),
    "encoder": ("image_encoder",),
    "all": ("image_encoder", "prompt_encoder", "mask_decoder"),
}
_LORA_KEY = "maskwheel.lora"
_SAMPLE = 5


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How much of a model learns.

    Attributes:
        trainable: parameters that do.
        total: all parameters.
        trainable_by_part: for image_encoder, prompt_encoder and mask_decoder.
    """

    trainable: int
    total: int
    trainable_by_part: dict[str, int]

    def __str__(self) -> str:
        share = 100 * self.trainable / max(1, self.total)
        return f"{self.trainable:,} of {self.total:,} parameters learn ({share:.2g} %)"


def count_parameters(sam: Sam) -> ParameterCount:
    """Count what learns and what there is."""
    by_part = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad)
        for name, part in sam.named_children()
    }
    return ParameterCount(sum(by_part.values()), sum(p.numel() for p in sam.parameters()), by_part)


def freeze_all_but(sam: Sam, part: Part) -> ParameterCount:
    """Let only a part of the model learn, in place; ``"all"`` undoes it.

    Frozen parts run in inference mode from now on.

    Raises:
        ValueError: an unknown part.
    """
    if part not in _PARTS:
        raise ValueError(f"unknown part {part!r}; expected one of {', '.join(_PARTS)}")
    for name, child in sam.named_children():
        child.requires_grad_(name in _PARTS[part])
        _rest_while_frozen(child)
    return count_parameters(sam)


def _rest_while_frozen(part: nn.Module) -> None:
    """Make a part return to inference mode before it runs, as long as nothing in it learns."""
    # The mask decoder is not called as a whole: its batch norms must look after themselves.
    norms = [m for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in (part, *norms):
        if _rest not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_rest)


def _rest(module: nn.Module, _: object) -> None:
    if module.training and not any(p.requires_grad for p in module.parameters()):
        module.eval()


class LowRankUpdate(nn.Module):
    """Adds scale x up @ down to some blocks of rows of a linear layer's weight.

    `up` starts at zero, so a new update changes nothing.

    Args:
        weight: (out, in), the layer's.
        blocks: numbers of the row blocks to update, each `rows` high.
        rows: height of a block; ``out`` for a layer that is one block.
        rank: of the update of each block.
        scale: alpha / rank.
        generator: draws `down`.
    """

    def __init__(
        self,
        weight: Tensor,
        blocks: Sequence[int],
        rows: int,
        rank: int,
        scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.blocks, self.rows, self.scale = tuple(blocks), rows, scale
        bound = 1 / math.sqrt(weight.shape[1])
        down = torch.empty(len(blocks), rank, weight.shape[1]).uniform_(
            -bound, bound, generator=generator
        )
        up = torch.zeros(len(blocks), rows, rank)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(up.to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the updated weight."""
        updates = self.scale * (self.up @ self.down)
        parts = list(torch.split(weight, self.rows))
        for block, update in zip(self.blocks, updates, strict=True):
            parts[block] = parts[block] + update.to(weight.dtype)
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def add_lora(sam: Sam, rank: int = 8, alpha: float = 16.0, *, seed: int = 0) -> Sam:
    """Add low-rank updates to the query and value projections of every attention, in place.

    Only they learn afterwards. The bundled model's convolutional encoder has no attention: there
    the decoder alone adapts.

    Args:
        sam: a model without adapters.
        rank: of the updates; 4 to 16 is usual.
        alpha: updates count alpha / rank, so that the learning rate need not follow the rank.
        seed: of their first weights.

    Returns:
        `sam`; it computes what it computed before.

    Raises:
        ValueError: a rank below 1, a model that has adapters, or one without attention.
    """
    if rank < 1:
        raise ValueError(f"rank is at least 1; got {rank}")
    if any(True for _ in _adapted(sam)):
        raise ValueError("this model has adapters already; merge_lora them first")
    freeze_all_but(sam, "all")
    sam.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    linear = [(n, m) for n, m in sam.named_modules() if isinstance(m, nn.Linear)]
    chosen = [(layer, _adapted_blocks(name)) for name, layer in linear if _adapted_blocks(name)]
    if not chosen:
        raise ValueError(f"{sam.config.name} has no attention whose projections could be adapted")
    for layer, blocks in chosen:
        rows = layer.out_features // (3 if len(blocks) == 2 else 1)
        update = LowRankUpdate(layer.weight, blocks, rows, rank, alpha / rank, generator)
        parametrize.register_parametrization(layer, "weight", update)
    return sam


def _adapted_blocks(name: str) -> tuple[int, ...]:
    """Return which thirds (or the whole) of a layer's weight make queries and values."""
    if name.endswith(".attn.qkv"):
        return (0, 2)
    return (0,) if name.endswith((".q_proj", ".v_proj")) else ()


def merge_lora(sam: Sam) -> Sam:
    """Turn adapted weights into plain ones, in place: the same answers, the official names.

    Every parameter learns again afterwards.

    Raises:
        ValueError: a model without adapters.
    """
    adapted = list(_adapted(sam))
    if not adapted:
        raise ValueError("this model has no adapters to merge")
    for _, layer, _ in adapted:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    freeze_all_but(sam, "all")
    return sam


def _adapted(sam: Sam) -> Iterator[tuple[str, nn.Module, LowRankUpdate]]:
    for name, layer in sam.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            update = layer.parametrizations["weight"][0]
            if isinstance(update, LowRankUpdate):
                yield name, layer, update


def lora_state_dict(sam: Sam) -> dict[str, Tensor]:
    """Return the adapters alone: ``<layer>.up`` and ``<layer>.down``."""
    return {
        f"{name}.{which}": tensor
        for name, _, update in _adapted(sam)
        for which, tensor in update.state_dict().items()
    }


@dataclass(frozen=True, slots=True)
class _LoraHeader:
    """What a file of adapters says of itself."""

    model: str
    rank: int
    alpha: float
    base: str


def save_lora(sam: Sam, path: Path) -> None:
    """Write the adapters as .safetensors, with what is needed to put them back.

    Raises:
        ValueError: a model without adapters.
    """
    updates = [update for _, _, update in _adapted(sam)]
    if not updates:
        raise ValueError("this model has no adapters to save")
    rank = updates[0].down.shape[1]
    header = _LoraHeader(sam.config.name, rank, updates[0].scale * rank, _base_fingerprint(sam))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {k: v.detach().cpu().contiguous() for k, v in lora_state_dict(sam).items()}
    save_file(tensors, partial, metadata={_LORA_KEY: json.dumps(asdict(header), sort_keys=True)})
    partial.replace(path)


def load_lora(sam: Sam, path: Path) -> Sam:
    """Put saved adapters onto the model that they were trained on, in place.

    Raises:
        CheckpointError: no adapters, or those of other weights; the model is then untouched.
        ValueError: a model that has adapters.
    """
    tensors, header = _read_lora(path)
    base = _base_fingerprint(sam)
    if header.base != base:
        raise CheckpointError(
            f"{path} was trained on other weights ({header.model} {header.base}) than these "
            f"({sam.config.name} {base}); load the checkpoint, in the precision, that the training "
            "began with"
        )
    add_lora(sam, header.rank, header.alpha)
    wanted = lora_state_dict(sam)
    shapes = [{k: tuple(t.shape) for k, t in side.items()} for side in (wanted, tensors)]
    if shapes[0] != shapes[1]:
        wrong = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
        merge_lora(sam)
        raise CheckpointError(
            f"{path} does not fit {sam.config.name}; missing, unexpected or of another shape: "
            f"{', '.join(wrong[:_SAMPLE])}"
        )
    for key, tensor in wanted.items():
        tensor.copy_(tensors[key])
    return sam


def _read_lora(path: Path) -> tuple[dict[str, Tensor], _LoraHeader]:
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            stored = (file.metadata() or {}).get(_LORA_KEY)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no readable .safetensors file: {error}") from error
    if stored is None:
        raise CheckpointError(f"{path} holds no adapters; save_lora writes files that do")
    return tensors, _LoraHeader(**json.loads(stored))


def _base_fingerprint(sam: Sam) -> str:
    """Name the weights below the adapters, with or without adapters on them."""
    digest = hashlib.sha256()
    for name, layer in sam.named_modules():
        if not _adapted_blocks(name):
            continue
        weight = layer.get_parameter(
            "parametrizations.weight.original" if parametrize.is_parametrized(layer) else "weight"
        )
        digest.update(f"{name}:{weight.dtype}:{tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]
