"""The weights of a box proposer as one file: the detector's, and the sizes and model they fit.

>>> save_proposer(detector, config, sam.model_id(), Path("proposer.safetensors"))
>>> proposer = read_proposer(Path("proposer.safetensors"), sam, name="p1")

The frozen image encoder is not in the file: the model version that it belongs to is registered on
its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from engine.errors import BadInputError
from engine.learning.proposer import Proposer, ProposerConfig, build_detector, feature_channels
from model import Sam

if TYPE_CHECKING:
    from transformers import RTDetrForObjectDetection

__all__ = ["ProposerHeader", "read_header", "read_proposer", "save_proposer"]

_KEY = "maskwheel.proposer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerHeader:
    """What a proposer's file says of itself.

    Attributes:
        config: its sizes.
        model_id: of the model whose features it reads.
    """

    config: ProposerConfig
    model_id: str


_HEADER = TypeAdapter(ProposerHeader)


def save_proposer(
    detector: RTDetrForObjectDetection, config: ProposerConfig, model_id: str, path: Path
) -> None:
    """Write a detector; the file appears whole or not at all."""
    tensors = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in detector.state_dict().items()
    }
    said = _HEADER.dump_json(ProposerHeader(config=config, model_id=model_id)).decode()
    partial = path.with_suffix(".partial")
    # One entry: several come in any order, and the same proposer would have several hashes.
    save_file(tensors, partial, {_KEY: said})
    partial.replace(path)


def read_header(path: Path) -> ProposerHeader:
    """Read what a proposer's file says of itself.

    Raises:
        BadInputError: no such file, or not a proposer's.
    """
    try:
        with safe_open(path, "pt") as file:
            return _HEADER.validate_json((file.metadata() or {})[_KEY])
    except (OSError, SafetensorError, KeyError, ValueError, ValidationError) as error:
        raise BadInputError(
            f"{path} is no box proposer ({error!r}); `maskwheel train --recipe proposer` makes one"
        ) from error


def read_proposer(path: Path, sam: Sam, name: str = "proposer") -> Proposer:
    """Load a proposer on the device of its model.

    Args:
        path: of the file.
        sam: the model that it was trained with.
        name: for records.

    Raises:
        BadInputError: not a proposer's file, another model's, or transformers is not installed.
    """
    header = read_header(path)
    if header.model_id != sam.model_id():
        raise BadInputError(
            f"{path} reads the features of {header.model_id}, not of {sam.model_id()}; train a "
            "proposer for this model, or use that one"
        )
    with torch.random.fork_rng(devices=[]):  # building draws weights that are replaced at once
        detector = build_detector(header.config, feature_channels(sam))
    try:
        with safe_open(path, "pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        detector.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BadInputError(f"the weights in {path} do not fit a proposer: {error}") from error
    return Proposer(detector, sam, header.config, name)
