"""RGB arrays to JPEG and PNG, and smaller.

jpeg = encode_jpeg(resize_to_fit(image_HWC3, max_side=1024))
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError

_JPEG_MAX_SIDE_PX = 65_535


def encode_jpeg(image_HWC3: NDArray[np.uint8], quality: int = 85) -> bytes:
    """Encode RGB uint8 (H, W, 3) as a JPEG.

    Args:
        image_HWC3: sides of 1 to 65,535 pixels.
        quality: 1 (smallest) to 100 (best).

    Raises:
        BadInputError: another shape or dtype, a side or a quality out of range.
    """
    _check_array(image_HWC3, (3,))
    if max(image_HWC3.shape) > _JPEG_MAX_SIDE_PX or not 1 <= quality <= 100:
        raise BadInputError(
            f"a JPEG has sides up to {_JPEG_MAX_SIDE_PX} px and a quality of 1 to 100; got shape "
            f"{image_HWC3.shape} and quality {quality}; use encode_png for longer sides"
        )
    return _encode(".jpg", image_HWC3, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode RGB uint8 (H, W, 3) or grey uint8 (H, W) as a PNG, without loss.

    Raises:
        BadInputError: another shape or dtype.
    """
    _check_array(image, (3, None))
    return _encode(".png", image, [])


def encode_label_map(labels_HW: NDArray[np.uint16]) -> bytes:
    """Encode a map of labels, uint16 (H, W), as a grey PNG of 16 bits.

    Raises:
        BadInputError: another shape or dtype.
    """
    if labels_HW.dtype != np.uint16 or labels_HW.ndim != 2 or not labels_HW.size:
        raise BadInputError(f"expected uint16 (H, W), got {labels_HW.dtype} {labels_HW.shape}")
    done, buffer = cv2.imencode(".png", np.ascontiguousarray(labels_HW))
    if not done:
        raise BadInputError(f"OpenCV cannot write labels of shape {labels_HW.shape} as .png")
    return bytes(buffer)


def resize_to_fit(image: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """Shrink an image until its longer side is `max_side`; never enlarges.

    Args:
        image: uint8 (H, W, 3) or (H, W).
        max_side: in pixels, at least 1.

    Returns:
        uint8, area-averaged, sides rounded but never below 1; `image` itself when it fits already.

    Raises:
        BadInputError: another shape or dtype, or `max_side` below 1.
    """
    _check_array(image, (3, None))
    if max_side < 1:
        raise BadInputError(f"max_side must be at least 1 px, got {max_side}")
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer <= max_side:
        return image
    new_width = max(1, round(width * max_side / longer))
    new_height = max(1, round(height * max_side / longer))
    source = np.ascontiguousarray(image)
    shrunk = cv2.resize(source, (new_width, new_height), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, dtype=np.uint8)


def _check_array(image: NDArray[np.uint8], channels: tuple[int | None, ...]) -> None:
    """Raise BadInputError unless uint8, not empty, and (H, W, c) with c allowed; None is (H, W)."""
    got = image.shape[2] if image.ndim == 3 else None
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or got not in channels or not image.size:
        expected = " or ".join("(H, W)" if c is None else f"(H, W, {c})" for c in channels)
        raise BadInputError(f"expected uint8 {expected}, got {image.dtype} {image.shape}")


def _encode(suffix: str, image: NDArray[np.uint8], options: list[int]) -> bytes:
    source = np.ascontiguousarray(image)
    if image.ndim == 3:
        source = np.asarray(cv2.cvtColor(source, cv2.COLOR_RGB2BGR), dtype=np.uint8)
    done, buffer = cv2.imencode(suffix, source, options)
    if not done:
        raise BadInputError(f"OpenCV cannot write an image of shape {image.shape} as {suffix}")
    return bytes(buffer)
