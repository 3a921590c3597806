"""The fully automatic stage, without orchestration: from an image to the masks of everything in it.

>>> masks = generate_masks(sam, image_HWC3_uint8_rgb, AutomaticConfig.recommended(sam))
>>> masks[0].to_sa1b()
"""

from engine.automatic.config import AutomaticConfig
from engine.automatic.generator import Segmenter, generate_masks

__all__ = ["AutomaticConfig", "Segmenter", "generate_masks"]
