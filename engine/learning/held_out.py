"""Images that are held out for good, so that a model is never compared on what it has learned.

    below = held_out_below(image_ids, wanted=40, earlier=[r.held_out_below for r in retrainings])
    is_held_out_I = places(image_ids) < below

Every image has a place, drawn from its id; those below a bound are held out. The bound only ever
falls. So as a data set grows from round to round, no image that a model was trained on, or the
champion before it, is held out later: what is held out has been so from its first day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError

__all__ = [
    "HELD_OUT_LEAST",
    "HELD_OUT_MOST",
    "held_out_below",
    "number_held_out",
    "place",
    "places",
]

HELD_OUT_LEAST = 10  # what the promotion gate needs to tell a difference from luck
HELD_OUT_MOST = 200  # more would cost more time than they tell
_SHARE = 0.05
_PLACES = 2**62


def place(image_id: int) -> int:
    """Return an image's place, 0 to 2**62 - 1, as good as random and the same for ever."""
    # The id itself comes from a hash too, but shards and samples are ordered by it.
    digest = hashlib.sha256(f"held out {image_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % _PLACES


def places(image_ids: Sequence[int]) -> NDArray[np.int64]:
    """Return the place of every image."""
    return np.fromiter(map(place, image_ids), dtype=np.int64, count=len(image_ids))


def number_held_out(images: int) -> int:
    """Return how many of so many images are held out unless somebody wants otherwise."""
    return min(max(HELD_OUT_LEAST, int(images * _SHARE)), HELD_OUT_MOST)


def held_out_below(image_ids: Sequence[int], wanted: int, earlier: Iterable[int] = ()) -> int:
    """Return the bound of the places that are held out.

    Args:
        image_ids: what there is to learn from and to compare on.
        wanted: how many of them to hold out; after a bound that was lower it may be fewer.
        earlier: the bounds of all trainings before.

    Raises:
        BadInputError: nothing would be left to train on.
    """
    if wanted >= len(image_ids):
        raise BadInputError(
            f"holding {wanted} of {len(image_ids)} images out to compare on leaves none to train "
            "on; annotate more, or hold fewer out"
        )
    sorted_I = np.sort(places(image_ids))
    return min([int(sorted_I[wanted]), *earlier])
