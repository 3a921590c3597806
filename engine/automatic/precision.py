"""The model in the precision that the settings ask for.

segmenter = in_precision(sam, config)
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING

import torch

from engine.automatic.config import AutomaticConfig
from model import Sam
from model.half_precision import computes_in_bfloat16, in_bfloat16

if TYPE_CHECKING:
    from engine.automatic.generator import Segmenter

logger = logging.getLogger(__name__)


def in_precision(sam: Segmenter, config: AutomaticConfig) -> Segmenter:
    """Return the model to use: itself, or one that decodes in bfloat16.

    The decoder is copied: who masks many images asks once.

    Args:
        sam: a float32 `Sam`; anything else is returned as it is.
        config: its `half_precision` decides.
    """
    if not config.half_precision or not isinstance(sam, Sam) or sam.dtype != torch.float32:
        return sam
    possible = computes_in_bfloat16(sam.device)
    _tell(sam.device.type, possible)
    return in_bfloat16(sam) if possible else sam


@cache
def _tell(device: str, possible: bool) -> None:
    """Say once in a process what precision is used; results depend on it a little."""
    if possible:
        logger.info("half precision: prompts are decoded in bfloat16 on %s", device)
    else:
        logger.warning(
            "half precision is asked for, but this %s device does not compute in bfloat16: "
            "prompts are decoded in float32",
            device,
        )
