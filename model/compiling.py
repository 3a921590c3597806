"""Compile the parts of a model that all its work goes through: fewer, larger kernels on a GPU.

    compile_parts(sam)          # in place; weights, names and interface stay

torch.compile takes one to several minutes when a part first meets a shape, and seconds from its
cache later (TORCHINDUCTOR_CACHE_DIR; by default a folder of the user's in the temporary files).
Results are within rounding of those without; a copy of a compiled model is not compiled. Only the
plain ViT models have fixed shapes: their input is a square, and prompts come in batches of one
size. The bundled model's input follows the image's sides, and compiling it for each of them would
cost more than it gives.
"""

from __future__ import annotations

import logging

from torch import nn

from model.image_encoder import VitConfig, VitEncoder
from model.sam import Sam

logger = logging.getLogger(__name__)


def compile_parts(sam: Sam, *, backend: str = "inductor") -> bool:
    """Compile the encoder's blocks, the decoder's transformer and its upscaling, where it pays.

    Args:
        sam: the model, on its device and in its precision; not for training.
        backend: of torch.compile.

    Returns:
        Whether anything was compiled.
    """
    if not isinstance(sam.config.encoder, VitConfig):
        logger.info("%s is not compiled: its shapes follow each image's sides", sam.config.name)
        return False
    for part in _parts(sam):
        part.compile(backend=backend, dynamic=False)
    logger.info(
        "compiling %s: the first image takes minutes, or seconds from the cache", sam.config.name
    )
    return True


def _parts(sam: Sam) -> list[nn.Module]:
    encoder = sam.image_encoder
    blocks = list(encoder.blocks) if isinstance(encoder, VitEncoder) else [encoder]
    return [*blocks, sam.mask_decoder.transformer, sam.mask_decoder.output_upscaling]
