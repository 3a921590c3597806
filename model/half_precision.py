"""A SAM that computes in bfloat16 what bears it: half the memory traffic, faster products.

    fast = in_bfloat16(sam)                     # answers as a Sam does, nearly the same

Prompts are decoded in bfloat16. The plain ViT encodes in it too. The compact encoder stays as it
is: it is a hundredth of the work, and its features, rounded, move masks more than all the rest.
Rounding moves few masks by a pixel and fewer into or out of the answer; `infra/docs/speed.md` has
the figures.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from model.compact_encoder import FineFeatures
from model.image_encoder import VitConfig
from model.sam import Sam
from model.types import ImageEmbedding, ImageFeatures


def computes_in_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 matrices itself, and so faster than float32."""
    if device.type == "cuda":
        supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported
    if device.type != "cpu":
        return False
    # An older torch cannot tell.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))


def in_bfloat16(sam: Sam) -> Sam:
    """Return a model with the same weights for inference in bfloat16; `sam` stays as it is.

    What stays in the precision of `sam` is shared with it, the rest is a copy.
    """
    return _HalfPrecisionSam(sam)


class _HalfPrecisionSam(Sam):
    def __init__(self, sam: Sam) -> None:
        nn.Module.__init__(self)
        self.config = sam.config
        self.prompt_encoder = copy.deepcopy(sam.prompt_encoder).to(torch.bfloat16)
        self.mask_decoder = copy.deepcopy(sam.mask_decoder).to(torch.bfloat16)
        self.image_encoder = sam.image_encoder
        if isinstance(sam.config.encoder, VitConfig):
            self.image_encoder = copy.deepcopy(sam.image_encoder).to(torch.bfloat16)
        # Kept aside of the modules: its encoder is here already, and its decoder is not used.
        self._precise = (sam,)
        self.eval()

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """Encode as `Sam` does, then round what prompts are decoded with."""
        if isinstance(self.config.encoder, VitConfig):
            return super().encode_batch(images)
        (sam,) = self._precise
        return [
            ImageEmbedding(_rounded(embedding.features), embedding.frame)
            for embedding in sam.encode_batch(images)
        ]


def _rounded(features: ImageFeatures) -> ImageFeatures:
    """Round all but what guidance maps are made of: distances add up small differences."""
    fine = FineFeatures(*features.fine_BCHW)
    fine = fine._replace(
        canvas8_BCHW=fine.canvas8_BCHW.to(torch.bfloat16),
        canvas4_BCHW=fine.canvas4_BCHW.to(torch.bfloat16),
    )
    return ImageFeatures(features.coarse_BCHW.to(torch.bfloat16), fine, features.owner_N)
