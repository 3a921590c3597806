"""SAM's weights under the names of the transformers package, and under the official ones.

sam.load_state_dict(official_names(oracle.state_dict()))
"""

from __future__ import annotations

import re

from torch import Tensor

# The same tensor as shared_image_embedding's.
_SHARED_TWICE = "prompt_encoder.shared_embedding.positional_embedding"

# transformers' name -> official name; the first rule that matches is used.
_RULES = (
    (r"^vision_encoder\.patch_embed\.projection", "image_encoder.patch_embed.proj"),
    (r"^vision_encoder\.neck\.conv1", "image_encoder.neck.0"),
    (r"^vision_encoder\.neck\.layer_norm1", "image_encoder.neck.1"),
    (r"^vision_encoder\.neck\.conv2", "image_encoder.neck.2"),
    (r"^vision_encoder\.neck\.layer_norm2", "image_encoder.neck.3"),
    (r"^vision_encoder\.layers\.(\d+)\.layer_norm(\d)", r"image_encoder.blocks.\1.norm\2"),
    (r"^vision_encoder\.layers", "image_encoder.blocks"),
    (r"^vision_encoder", "image_encoder"),
    (
        r"^shared_image_embedding\.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"^prompt_encoder\.mask_embed\.conv1", "prompt_encoder.mask_downscaling.0"),
    (r"^prompt_encoder\.mask_embed\.layer_norm1", "prompt_encoder.mask_downscaling.1"),
    (r"^prompt_encoder\.mask_embed\.conv2", "prompt_encoder.mask_downscaling.3"),
    (r"^prompt_encoder\.mask_embed\.layer_norm2", "prompt_encoder.mask_downscaling.4"),
    (r"^prompt_encoder\.mask_embed\.conv3", "prompt_encoder.mask_downscaling.6"),
    (r"^mask_decoder\.transformer\.layer_norm_final", "mask_decoder.transformer.norm_final"),
    (
        r"^mask_decoder\.transformer\.layers\.(\d+)\.layer_norm(\d)",
        r"mask_decoder.transformer.layers.\1.norm\2",
    ),
    (r"^mask_decoder\.upscale_conv1", "mask_decoder.output_upscaling.0"),
    (r"^mask_decoder\.upscale_layer_norm", "mask_decoder.output_upscaling.1"),
    (r"^mask_decoder\.upscale_conv2", "mask_decoder.output_upscaling.3"),
    (r"^(mask_decoder\..*)\.proj_in", r"\1.layers.0"),
    (r"^(mask_decoder\.(?:output_h|iou_pred).*)\.layers\.0", r"\1.layers.1"),
    (r"^(mask_decoder\..*)\.proj_out", r"\1.layers.2"),
)


def official_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename transformers' weights to the official names."""
    return {
        _official_name(name): tensor.clone()
        for name, tensor in state.items()
        if name != _SHARED_TWICE
    }


def _official_name(name: str) -> str:
    for pattern, replacement in _RULES:
        renamed, hits = re.subn(pattern, replacement, name)
        if hits:
            return renamed
    return name


def transformers_names(state: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename official weights to those of transformers.

    Args:
        state: under the official names.
        wanted: transformers' state dict, whose values are not looked at.
    """
    shared = "shared_image_embedding.positional_embedding"
    renamed = {name: state[_official_name(name)] for name in wanted if name != _SHARED_TWICE}
    return {**renamed, _SHARED_TWICE: renamed[shared]}
