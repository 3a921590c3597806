"""The pixels that the service gives out, kept in memory while they are asked for.

    shelf = ImageShelf(limits, max_bytes=256 * 2**20)
    picture = shelf.picture(image, long_px=1600)

An image's id is a hash of its bytes, so what was kept never grows stale, and an image that is not
what was ingested any more is refused: masks that fit another image would be worthless.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from engine.annotation.http.pictures import Picture, as_browser_picture
from engine.annotation.records import CampaignImage
from engine.errors import ImageError
from engine.images import ImageLimits, content_id, read_image_bytes

__all__ = ["ImageShelf", "read_checked"]

_Key = tuple[int, int | None]


class ImageShelf:
    """Encoded images by id and size, the least recently used forgotten first; for any threads."""

    def __init__(self, limits: ImageLimits, max_bytes: int = 256 * 2**20) -> None:
        self._limits = limits
        self._max_bytes = max_bytes
        self._kept: OrderedDict[_Key, Picture] = OrderedDict()
        self._bytes = 0
        self._being_made: dict[_Key, threading.Lock] = {}
        self._lock = threading.Lock()

    def picture(self, image: CampaignImage, long_px: int | None = None) -> Picture:
        """Return an image as browsers show it.

        Raises:
            ImageError: it is gone, changed, damaged or cannot be reached; `reason` says which.
        """
        if long_px is not None and long_px >= max(image.width, image.height):
            long_px = None
        key = (image.image_id, long_px)
        with self._lock:
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                return kept
            making = self._being_made.setdefault(key, threading.Lock())
        with making:  # whoever asks meanwhile waits for this one instead of decoding it again
            with self._lock:
                if (kept := self._kept.get(key)) is not None:
                    return kept
            try:
                data = read_checked(image, self._limits)
                picture = as_browser_picture(data, self._limits, long_px)
                self._keep(key, picture)
            finally:
                with self._lock:
                    self._being_made.pop(key, None)
        return picture

    def _keep(self, key: _Key, picture: Picture) -> None:
        with self._lock:
            self._kept[key] = picture
            self._bytes += len(picture.data)
            while self._bytes > self._max_bytes and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)


def read_checked(image: CampaignImage, limits: ImageLimits) -> bytes:
    """Read an image's file and see that it is the one that was ingested.

    Raises:
        ImageError: ``"changed"``, or as `read_image_bytes`.
    """
    data = read_image_bytes(image.uri, limits)
    if content_id(data)[0] != image.image_id:
        raise ImageError("changed", "the image's file is not the one that was ingested any more")
    return data
