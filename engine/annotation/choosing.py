"""Which images of a workspace to annotate next.

    arranged = choose_images(workspace, db, ChoiceRequest(images=200), load, limits=limits)

Ordering asks the model about every image that it orders, so of many candidates it is given a few
times more than are wanted: drawn by the seed, or those that the automatic stage was least sure of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.annotation.candidates import automatic_doubt, candidate_ids
from engine.annotation.database import Database
from engine.annotation.opening import Arranged
from engine.annotation.ordering import OrderingConfig, order_images
from engine.annotation.records import CampaignImage
from engine.dataset.catalog import Workspace
from engine.errors import BadInputError
from engine.images import ImageLimits
from model import Sam

__all__ = ["ORDERS", "ChoiceRequest", "OrderName", "arrange", "choose_images"]

OrderName = Literal["listed", "random", "uncertain", "disagreement", "uncovered", "diverse", "mix"]
ORDERS: tuple[OrderName, ...] = get_args(OrderName)

_LOOKED_AT_PER_IMAGE = 4
_LOOKED_AT_MOST = 20_000
_COLUMNS = ("image_id", "uri", "width", "height")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRequest:
    """What to choose.

    Attributes:
        images: how many; None: all candidates.
        order: in which they are given out: as `ordering` has it, or ``listed``: by address.
        seed: of the draw and of the order.
        doubtful_first: draw images whose automatic masks have low predicted IoUs before others.
    """

    images: int | None = None
    order: OrderName = "mix"
    seed: int = 0
    doubtful_first: bool = False

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise BadInputError(f"got {self.images} images to choose; expected 1 or more")
        if self.order not in ORDERS:
            raise BadInputError(
                f"unknown order {self.order!r}; expected one of {', '.join(ORDERS)}"
            )


def choose_images(
    workspace: Workspace,
    db: Database,
    request: ChoiceRequest,
    load: Callable[[], Sam],
    *,
    limits: ImageLimits,
    on_begin: Callable[[int], None] | None = None,
    on_image: Callable[[str], None] | None = None,
) -> Arranged:
    """Choose images and order them; the same state of the workspace gives the same choice.

    Args:
        workspace: whose images.
        db: its annotation database.
        request: how many, in which order.
        load: returns the model that orders; called only for an order that asks one.
        limits: what is too large to be decoded.
        on_begin: called with how many images will be looked at.
        on_image: called with the address of each when that is done.

    Returns:
        At most as many as asked for; none where there are no candidates. An image that cannot be
        read is not chosen.

    Raises:
        BadInputError: the workspace has no images at all.
        WorkspaceError: it is damaged.
    """
    candidates = candidate_ids(workspace, db)
    wanted = len(candidates) if request.images is None else request.images
    pool = _records(workspace, _drawn(workspace, candidates, wanted, request))
    if on_begin is not None:
        on_begin(len(pool))
    arranged = arrange(
        pool, request.order, load, seed=request.seed, limits=limits, on_image=on_image
    )
    about = {"candidates": len(candidates), "looked_at": len(pool)}
    usable = [
        image for image in arranged.images if request.order == "listed" or image.score is not None
    ]
    return Arranged(tuple(usable[:wanted]), _json({**json.loads(arranged.ordering), **about}))


def arrange(
    images: Sequence[CampaignImage],
    order: OrderName,
    load: Callable[[], Sam],
    *,
    seed: int,
    limits: ImageLimits,
    on_image: Callable[[str], None] | None = None,
) -> Arranged:
    """Put images in order; those that cannot be read go last, without a score.

    The record of the order stays small: each image's score stands beside the image.

    Args:
        images: each once.
        order: see `ChoiceRequest`.
        load: returns the model that orders; called only for an order that asks one.
        seed: of the order.
        limits: what is too large to be decoded.
        on_image: called with the address of each image that was looked at.
    """
    if order == "listed" or not images:
        return Arranged(tuple(images), _json({"strategy": order}))
    ordering = order_images(
        images,
        None if order == "random" else load(),
        OrderingConfig(strategy=order, seed=seed),
        limits=limits,
        on_image=on_image,
    )
    about = {
        "strategy": order,
        "config": json.loads(ordering.config.to_json()),
        "model_id": ordering.model_id,
        "unreadable": sum(image.score is None for image in ordering.images),
    }
    return Arranged(ordering.arrange(images), _json(about))


def _drawn(
    workspace: Workspace, candidates: NDArray[np.int64], wanted: int, request: ChoiceRequest
) -> NDArray[np.int64]:
    """Return the candidates that are looked at."""
    if request.order == "listed" or wanted >= len(candidates):
        return candidates
    drawn = np.random.default_rng(request.seed).permutation(candidates)
    if request.doubtful_first:
        doubt = automatic_doubt(workspace)
        doubts = np.array([doubt.get(image_id, -1.0) for image_id in drawn.tolist()])
        drawn = drawn[np.argsort(-doubts, kind="stable")]
    most = wanted
    if request.order != "random":
        most = max(wanted, min(wanted * _LOOKED_AT_PER_IMAGE, _LOOKED_AT_MOST))
    return drawn[:most]


def _records(workspace: Workspace, image_ids: NDArray[np.int64]) -> list[CampaignImage]:
    """Return images by address."""
    wanted = pa.array(image_ids)
    found: list[CampaignImage] = []
    for batch in workspace.table("images").scan(selected_fields=_COLUMNS).to_arrow_batch_reader():
        rows = batch.filter(pc.is_in(batch["image_id"], value_set=wanted))
        found += [CampaignImage(**row) for row in rows.to_pylist()]
    return sorted(found, key=lambda image: (image.uri, image.image_id))


def _json(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))
