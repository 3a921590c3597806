"""Pixels: decode, encode, resize, and the geometry of masks. The only package that touches cv2.

image_HWC3 = decode_image(read_image_bytes("photos/cat.jpg"))
"""

from engine.image_formats import ImageReason
from engine.images.decoding import (
    ImageInfo,
    content_id,
    decode_image,
    probe_image,
)
from engine.images.encoding import encode_jpeg, encode_label_map, encode_png, resize_to_fit
from engine.images.grabcut import Hint, grabcut
from engine.images.prefetching import read_ahead, reading_depth
from engine.images.reading import ImageLimits, read_image_bytes
from engine.images.shapes import border_distance, connected_components, mask_contours, tilt

__all__ = [
    "Hint",
    "ImageInfo",
    "ImageLimits",
    "ImageReason",
    "border_distance",
    "connected_components",
    "content_id",
    "decode_image",
    "encode_jpeg",
    "encode_label_map",
    "encode_png",
    "grabcut",
    "mask_contours",
    "probe_image",
    "read_ahead",
    "read_image_bytes",
    "reading_depth",
    "resize_to_fit",
    "tilt",
]
