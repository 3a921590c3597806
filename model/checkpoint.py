"""Loading and saving weights, with errors that say what is wrong with a file.

Reads the official SAM checkpoints (``sam_vit_{b,l,h}_*.pth``) and safetensors; writes safetensors
whose metadata carries the model's configuration, so such a file alone is enough to build the model.
Pickled files are read with ``weights_only=True``: a checkpoint cannot run code.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
import struct
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from model.compact_encoder import CompactConfig
from model.image_encoder import VitConfig
from model.sam import SIZES, RecommendedThresholds, Sam, SamConfig

logger = logging.getLogger(__name__)

_CONFIG_KEY = "maskwheel.config"
_SAMPLE = 5
# What torch's unpickler raises on bytes that are no pickle, or only a part of one.
_UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    EOFError,
    AttributeError,
    LookupError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
BUNDLED_WEIGHTS = "bundled.safetensors"


class _NothingDrawn(TorchFunctionMode):
    """Builds modules on the meta device without drawing first weights, which have no values there.

    Torch would draw them by way of its compiler, and import that: slower than all of the loading.
    """

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        named = dict(kwargs or {})
        if function is torch.randn:
            return torch.empty(*args, **named)  # type: ignore[call-overload]  # as it was called
        if getattr(function, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        return function(*args, **named)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what is missing, unexpected or broken."""


def build_sam(
    name: str = "bundled",
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Sam:
    """Build a model of a named size and load its weights.

    Args:
        name: ``bundled``, ``vit_b``, ``vit_l`` or ``vit_h``.
        checkpoint: a file with weights; the bundled model has its own, the others get random
            weights (and a warning) without one.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``; by default the best one there is, which is
            logged.
        dtype: float32, bfloat16 or float16.

    Raises:
        CheckpointError: a file that is not a checkpoint of this size.
        ValueError: an unknown name.
    """
    if name not in SIZES:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(sorted(SIZES))}")
    if checkpoint is None and name == "bundled":
        with resources.as_file(resources.files("model") / "weights" / BUNDLED_WEIGHTS) as path:
            return load_sam(path, device=device, dtype=dtype)
    if checkpoint is not None:
        return load_sam(checkpoint, name=name, device=device, dtype=dtype)
    logger.warning("%s has random weights: no checkpoint was given", name)
    return _placed(Sam(SIZES[name]), device, dtype)


def load_sam(
    checkpoint: str | Path,
    name: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Sam:
    """Load a checkpoint file; its size is read from the file unless `name` says it.

    Raises:
        CheckpointError: missing, truncated or foreign file, or weights that do not fit.
        ValueError: an unknown name.
    """
    if name is not None and name not in SIZES:
        raise ValueError(f"unknown model {name!r}; expected one of {', '.join(sorted(SIZES))}")
    path = Path(checkpoint)
    state, stored_config = read_checkpoint(path)
    config = stored_config or _recognise(state, path)
    if name is not None and config.name != name and SIZES[name].encoder != config.encoder:
        raise CheckpointError(f"{path} holds a {config.name} model; asked for {name}")
    with torch.device("meta"), _NothingDrawn():
        sam = Sam(config)
    _check_fit(sam, state, path)
    sam.load_state_dict(state, assign=True)
    return _placed(sam, device, dtype)


def save_sam(sam: Sam, path: Path) -> None:
    """Write weights and configuration as .safetensors; the file appears whole or not at all.

    Raises:
        CheckpointError: weights that are not finite numbers, or are not those of a plain `Sam`.
    """
    if any(parametrize.is_parametrized(module) for module in sam.modules()):
        raise CheckpointError(
            f"{path} is not written: the model has adapters; merge_lora first, or save_lora alone"
        )
    broken = [
        name
        for name, tensor in sam.state_dict().items()
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]
    if broken:
        raise CheckpointError(
            f"{path} is not written: {len(broken)} weights are not finite, first {broken[0]}; "
            "did training diverge, or do float32 values not fit float16?"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    tensors = {k: v.detach().cpu().contiguous() for k, v in sam.state_dict().items()}
    save_file(tensors, partial, metadata={_CONFIG_KEY: _config_to_json(sam.config)})
    partial.replace(path)


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], SamConfig | None]:
    """Read a .safetensors or pickled checkpoint: weights, and the configuration if it has one."""
    if not path.is_file():
        raise CheckpointError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=False)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is no readable checkpoint (truncated, or not weights alone): {reason}"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise CheckpointError(f"{path} holds no weights: expected a mapping of names to tensors")
    return dict(state), None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], SamConfig | None]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is no readable .safetensors file: {error}") from error
    stored = metadata.get(_CONFIG_KEY)
    return state, None if stored is None else _config_from_json(stored, path)


def _recognise(state: Mapping[str, Tensor], path: Path) -> SamConfig:
    """Tell the named size from the shape of the encoder's position embedding."""
    position = state.get("image_encoder.pos_embed")
    for config in SIZES.values():
        encoder = config.encoder
        if isinstance(encoder, VitConfig) and position is not None and position.ndim == 4:
            blocks = f"image_encoder.blocks.{encoder.depth - 1}.norm1.weight" in state
            if position.shape[-1] == encoder.width and blocks:
                return config
    found = (
        "no image_encoder.pos_embed" if position is None else f"pos_embed {tuple(position.shape)}"
    )
    raise CheckpointError(
        f"{path} is not a SAM checkpoint (vit_b, vit_l or vit_h): {found}; its first names are "
        f"{', '.join(sorted(state)[:_SAMPLE]) or 'none'}"
    )


def _check_fit(sam: Sam, state: Mapping[str, Tensor], path: Path) -> None:
    tensors = sam.state_dict()
    wanted = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    shared = [key for key in tensors if key in state]
    floats = [[s[k].is_floating_point() for k in shared] for s in (tensors, state)]
    other_kind = [k for k, ours, theirs in zip(shared, *floats, strict=True) if ours != theirs]
    problems = []
    for title, keys in (
        ("missing", sorted(wanted.keys() - state.keys())),
        ("unexpected", sorted(state.keys() - wanted.keys())),
        ("of another shape", [k for k in shared if wanted[k] != state[k].shape]),
        ("integers where floats belong, or the reverse", other_kind),
    ):
        if keys:
            more = f" and {len(keys) - _SAMPLE} more" if len(keys) > _SAMPLE else ""
            problems.append(f"{title}: {', '.join(keys[:_SAMPLE])}{more}")
    if problems:
        raise CheckpointError(f"{path} does not fit {sam.config.name}; {'; '.join(problems)}")


def _placed(sam: Sam, device: str | torch.device | None, dtype: torch.dtype) -> Sam:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and torch.backends.mps.is_available():
            device = "mps"
        logger.info("%s runs on %s", sam.config.name, device)
    return sam.to(device=device, dtype=dtype).eval()


def _config_to_json(config: SamConfig) -> str:
    kind = "vit" if isinstance(config.encoder, VitConfig) else "compact"
    return json.dumps({"encoder_kind": kind, **dataclasses.asdict(config)}, sort_keys=True)


def _config_from_json(text: str, path: Path) -> SamConfig:
    try:
        fields = json.loads(text)
        kinds = {"vit": VitConfig, "compact": CompactConfig}
        kind = kinds[fields.pop("encoder_kind")]
        encoder = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["encoder"].items()}
        fields["encoder"] = kind(**encoder)
        fields["recommended"] = RecommendedThresholds(**fields["recommended"])
        return SamConfig(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise CheckpointError(
            f"{path} carries a configuration of another version: {error!r}"
        ) from error
