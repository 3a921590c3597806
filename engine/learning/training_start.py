"""Where a training starts: random weights, a checkpoint, a registered model, a pre-trained encoder.

>>> start = start_from("mae:mae.pt", model="vit_b", seed=0, device=device)
>>> start.sam, start.parent
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from engine.errors import BadInputError
from engine.learning.decisions import resolve
from engine.learning.registry import BUILT_IN, load_model
from engine.objects import ObjectStore
from model import SIZES, CheckpointError, Sam, build_sam, load_sam
from model.adapters import add_lora, freeze_all_but, merge_lora
from model.encoder_start import init_encoder

__all__ = [
    "SCRATCH",
    "Start",
    "Tune",
    "is_version_name",
    "load_teacher",
    "start_from",
    "tune",
    "tuned",
]

logger = logging.getLogger(__name__)

SCRATCH = "scratch"
_MAE = "mae:"
Tune = Literal["all", "decoder", "lora"]


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A model to be trained.

    Attributes:
        sam: float32, on its device.
        parent: the registered version that its weights are those of, if they are.
        source: the file that they come from, if they do.
    """

    sam: Sam
    parent: str | None = None
    source: str | None = None


def start_from(
    init: str,
    *,
    model: str | None,
    default_model: str = BUILT_IN,
    seed: int,
    device: torch.device,
    store: ObjectStore | None = None,
) -> Start:
    """Make the model that a training starts from.

    Args:
        init: ``scratch``: random weights; ``vit_b``, ``vit_l``, ``vit_h``: likewise, of that size;
            ``mae:PATH``: random weights, but for the encoder; the path of a checkpoint; or a
            registered model: ``bundled``, ``champion``, ``m3``.
        model: the size that is wanted; None: what `init` has, or `default_model` for a new one.
        default_model: size of a new model.
        seed: of random weights.
        device: where it is to compute.
        store: of the workspace with the registered models; None: only ``bundled`` is known.

    Raises:
        BadInputError: an unknown name or size, or a file that cannot be used.
        WorkspaceError: the registered model is damaged.
    """
    if model is not None and model not in SIZES:
        raise BadInputError(f"unknown model size {model!r}; expected one of {', '.join(SIZES)}")
    try:
        start = _start(init, model, default_model, seed, store)
    except CheckpointError as error:
        raise BadInputError(f"cannot start from {init!r}: {error}") from error
    if model is not None and start.sam.config.encoder != SIZES[model].encoder:
        raise BadInputError(
            f"{init!r} is a {start.sam.config.name} model, not {model}; leave --model out, or "
            "start from something else"
        )
    return Start(start.sam.float().to(device), start.parent, start.source)


def _start(
    init: str, model: str | None, default_model: str, seed: int, store: ObjectStore | None
) -> Start:
    if init == SCRATCH:
        return Start(_random_weights(model or default_model, seed))
    if init.startswith(_MAE):
        path = Path(init.removeprefix(_MAE))
        sam = _random_weights(model or default_model, seed)
        init_encoder(sam, path)
        return Start(sam, source=path.name)
    if init in SIZES and init != BUILT_IN:
        logger.warning(
            "%s starts from random weights; name a file to start from SAM's official ones", init
        )
        return Start(_random_weights(init, seed))
    if Path(init).suffix or Path(init).is_file():
        return Start(load_sam(init, device="cpu"), source=Path(init).name)
    if init == BUILT_IN and store is None:
        return Start(build_sam(BUILT_IN, device="cpu"), parent=BUILT_IN)
    if store is None:
        raise BadInputError(
            f"cannot start from {init!r}: expected {SCRATCH}, {', '.join(SIZES)}, the path of a "
            f"checkpoint, {_MAE}PATH, or a registered model and the --workspace it is in"
        )
    version = resolve(store, init)
    return Start(load_model(store, version, device="cpu"), parent=version.name)


def _random_weights(size: str, seed: int) -> Sam:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Sam(SIZES[size])


def is_version_name(init: str) -> bool:
    """Whether a start names a model of the registry, rather than a file or random weights."""
    path = Path(init)
    is_random = init == SCRATCH or init.startswith(_MAE) or (init in SIZES and init != BUILT_IN)
    return not (is_random or path.suffix or path.is_file())


def load_teacher(name: str | None, device: torch.device, store: ObjectStore | None = None) -> Sam:
    """Load the model that another one is to learn from.

    Raises:
        BadInputError: none is named, or it cannot be used.
    """
    if (
        name is None
        or name == SCRATCH
        or name.startswith(_MAE)
        or name in SIZES.keys() - {BUILT_IN}
    ):
        raise BadInputError(
            f"got the teacher {name!r}; expected a trained model: the path of a checkpoint, or a "
            "registered model such as champion"
        )
    return start_from(name, model=None, seed=0, device=device, store=store).sam


def tune(sam: Sam, what: Tune, lora_rank: int, seed: int) -> None:
    """Let all of a model learn, its decoder alone, or low-rank updates alone; in place.

    Raises:
        BadInputError: a model that has nothing of the kind, or a rank below 1.
    """
    try:
        if what == "lora":
            add_lora(sam, lora_rank, seed=seed)
        elif what == "decoder":
            logger.info("%s", freeze_all_but(sam, "decoder"))
    except ValueError as error:
        raise BadInputError(f"--tune {what}: {error}") from error


def tuned(sam: Sam, what: Tune) -> Sam:
    """Return a plain model after training."""
    return merge_lora(sam) if what == "lora" else sam
