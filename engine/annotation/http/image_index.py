"""Which images the service knows: those of its campaigns, and no other file of the machine.

index = ImageIndex(database)
image = index.find(image_id)
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from engine.annotation.campaigns import find_image
from engine.annotation.database import Database
from engine.annotation.http.errors import ApiError
from engine.annotation.records import CampaignImage

__all__ = ["ImageIndex"]

_KEPT = 50_000


class ImageIndex:
    """Images by id, remembered once found: they never change, and never leave a campaign."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[int, CampaignImage] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, image_id: int) -> CampaignImage:
        """Return an image of any campaign.

        Raises:
            ApiError: 404, there is none.
        """
        with self._lock:
            if (kept := self._kept.get(image_id)) is not None:
                return kept
        found = find_image(self._database, image_id)
        if found is None:
            raise ApiError(404, "unknown_image", f"no campaign has the image {image_id}")
        with self._lock:
            self._kept[image_id] = found
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found
