"""What is too large to be decoded, as the settings of this machine have it.

limits = image_limits()          # asked where a flow runs; tasks elsewhere are handed the answer
"""

from __future__ import annotations

from engine.config import load_settings
from engine.images import ImageLimits

__all__ = ["image_limits"]


def image_limits() -> ImageLimits:
    """Return the limits that the settings give."""
    settings = load_settings()
    return ImageLimits(max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes)
