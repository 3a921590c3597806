"""Where an image encoder starts from: a pre-training of ours, public MAE weights, a SAM checkpoint.

    start = init_encoder(Sam(SIZES["vit_b"]), Path("mae_pretrain_vit_base.pth"))
    start.source, len(start.loaded), start.fresh

SAM's own encoder began as MAE's plain ViT; neck and relative positions were new.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.checkpoint import CheckpointError, read_checkpoint
from model.image_encoder import VitEncoder
from model.mae import resize_positions
from model.sam import Sam

logger = logging.getLogger(__name__)

_SAMPLE = 5
Source = Literal["sam", "pretraining", "public-mae"]
_PREFIXES: dict[Source, str] = {"sam": "image_encoder.", "pretraining": "encoder."}
# What MAE's files hold beside the encoder: class token, decoder, classifier.
_MAE_LEAVES = ("cls_token", "mask_token", "decoder", "norm.", "fc_norm.", "head.")
_MAE_LACKS = ("neck.", ".rel_pos_h", ".rel_pos_w")


@dataclass(frozen=True, slots=True)
class EncoderStart:
    """What came from a checkpoint.

    Attributes:
        source: layout of the file.
        loaded: parameters and buffers of the encoder that were taken, by name.
        fresh: those that the file does not have; they stay as they were.
    """

    source: Source
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]


def init_encoder(sam: Sam, checkpoint: Path) -> EncoderStart:
    """Load the weights of an image encoder into `sam.image_encoder`; all else stays as it is.

    Args:
        sam: any size; positions (absolute and relative) are resized where its input is larger or
            smaller than that of the file.
        checkpoint: the training file of `model.mae.pretrain`; public MAE weights
            (``mae_pretrain_vit_base.pth`` and the like), patches of 14 px are resized; or a SAM
            checkpoint, ours or an official one.

    Raises:
        CheckpointError: no such file, or weights that do not fit; the model is then untouched.
    """
    tensors, _ = read_checkpoint(checkpoint)
    source, given = _encoder_part(tensors, checkpoint)
    wanted = sam.image_encoder.state_dict()
    if source == "public-mae":
        if not isinstance(sam.image_encoder, VitEncoder):
            raise CheckpointError(
                f"{checkpoint} holds a ViT of MAE; {sam.config.name} has no ViT: choose vit_b, "
                "vit_l or vit_h, or pre-train this encoder itself"
            )
        given = _from_public_mae(given)
    given = {name: _resized(name, t, wanted.get(name)) for name, t in given.items()}
    _check(given, wanted, source, checkpoint, sam.config.name)
    sam.image_encoder.load_state_dict(given, strict=False)
    fresh = tuple(sorted(wanted.keys() - given.keys()))
    logger.info("%s: %d tensors of %s, %d stay", checkpoint, len(given), source, len(fresh))
    return EncoderStart(source, tuple(sorted(given)), fresh)


def _encoder_part(
    tensors: Mapping[str, Tensor], checkpoint: Path
) -> tuple[Source, dict[str, Tensor]]:
    """Tell the layout from the names; return the encoder's tensors without prefix."""
    for source, prefix in _PREFIXES.items():
        part = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if part:
            return source, part
    if "pos_embed" in tensors and "patch_embed.proj.weight" in tensors:
        kept = {k: v for k, v in tensors.items() if not k.startswith(_MAE_LEAVES)}
        return "public-mae", kept
    raise CheckpointError(
        f"{checkpoint} holds no image encoder: expected names that start with image_encoder. "
        f"(SAM), encoder. (our pre-training) or MAE's pos_embed and blocks.*; its first names are "
        f"{', '.join(sorted(tensors)[:_SAMPLE]) or 'none'}"
    )


def _from_public_mae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the feed-forward layers and lay the positions out as a grid, without class token."""
    renamed = {
        k.replace(".mlp.fc1.", ".mlp.lin1.").replace(".mlp.fc2.", ".mlp.lin2."): v
        for k, v in tensors.items()
    }
    flat_1LC = renamed["pos_embed"]
    if flat_1LC.ndim == 3:
        grid = int((flat_1LC.shape[1] - 1) ** 0.5)
        if flat_1LC.shape[1] == grid * grid + 1:
            renamed["pos_embed"] = flat_1LC[:, 1:].reshape(1, grid, grid, -1)
    return renamed


def _resized(name: str, given: Tensor, wanted: Tensor | None) -> Tensor:
    """Resize what depends on the input's or a patch's size; leave the rest to the check."""
    if wanted is None or given.shape == wanted.shape or given.ndim != wanted.ndim:
        return given
    if name == "pos_embed" and given.ndim == 4 and given.shape[3] == wanted.shape[3]:
        return resize_positions(given, wanted.shape[1])
    if name.endswith(("rel_pos_h", "rel_pos_w")) and given.shape[1] == wanted.shape[1]:
        line = F.interpolate(given.T.unsqueeze(0).float(), len(wanted), mode="linear")
        return line[0].T.to(given.dtype)
    if name == "patch_embed.proj.weight" and given.shape[:2] == wanted.shape[:2]:
        size = (wanted.shape[2], wanted.shape[3])
        kernel = F.interpolate(given.float(), size, mode="bicubic", align_corners=False)
        # The sum over a patch must not grow with its pixels.
        return (kernel * (given.shape[2:].numel() / wanted.shape[2:].numel())).to(given.dtype)
    return given


def _check(
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: Source,
    checkpoint: Path,
    model: str,
) -> None:
    may_lack = _MAE_LACKS if source == "public-mae" else ()
    missing = [k for k in sorted(wanted.keys() - given.keys()) if not _any_in(may_lack, k)]
    shared = sorted(wanted.keys() & given.keys())
    problems = []
    for title, names in (
        ("missing", missing),
        ("unexpected", sorted(given.keys() - wanted.keys())),
        (
            "of another shape",
            [
                f"{k} {tuple(given[k].shape)} for {tuple(wanted[k].shape)}"
                for k in shared
                if given[k].shape != wanted[k].shape
            ],
        ),
        (
            "not finite",
            [k for k in shared if given[k].is_floating_point() and not _finite(given[k])],
        ),
    ):
        if names:
            more = f" and {len(names) - _SAMPLE} more" if len(names) > _SAMPLE else ""
            problems.append(f"{title}: {', '.join(names[:_SAMPLE])}{more}")
    if problems:
        raise CheckpointError(
            f"{checkpoint} does not fit the image encoder of {model}; {'; '.join(problems)}"
        )


def _any_in(parts: tuple[str, ...], name: str) -> bool:
    return any(part in name for part in parts)


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
