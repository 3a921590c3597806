"""What to annotate next: the images that a person's time does most for come first.

    ordering = order_images(images, sam, OrderingConfig(strategy="mix", seed=3), limits=limits)
    CampaignSpec(images=ordering.arrange(images), ordering=ordering.to_json(), ...)

The strategies, all of active learning's old acquaintances:

- ``random``: by the seed alone; reads no image;
- ``uncertain``: the mean predicted IoU of the confident masks is low;
- ``disagreement``: two models, or one model and its answer to the mirrored image, differ;
- ``uncovered``: confident masks leave much of the image free;
- ``diverse``: every next image is the one farthest from those before it (k-centre greedy,
  arXiv 1708.00489), so the first hundred show all kinds;
- ``mix``: the ranks of the others, weighted, and diverse at the same time.

What an order is to find are images on which the model is poor. The bundled model on 40 photos of
BSDS val, mean IoU after one click .577 (tests/benchmarks/bench_prefill.py, 2026-11-22):

| strategy | rank correlation with the true IoU | IoU in the first quarter | in the last |
|---|---|---|---|
| uncertain | .54 | .48 | .68 |
| disagreement, mirrored | .39 | .51 | .65 |
| uncovered | .44 | .48 | .66 |
| diverse | .08 | .57 | .58 |
| mix | .58 | .47 | .68 |

How well a box is answered none of them tells (correlations of -.1 to .2).

Images pass one by one and leave a few numbers each, so there may be many. One that cannot be used
goes last, with the reason; it does not stop the others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.annotation.coverage import GridPrompts, ImageSignals, Signal, measure_image
from engine.annotation.image_stream import read_images
from engine.annotation.records import CampaignImage
from engine.errors import BadInputError
from engine.images import ImageLimits
from engine.records import SkippedImage
from model import Sam

__all__ = [
    "STRATEGIES",
    "OrderedImage",
    "Ordering",
    "OrderingConfig",
    "Strategy",
    "arranged",
    "order_images",
    "ranks",
    "spread_out",
]

logger = logging.getLogger(__name__)

Strategy = Literal["random", "uncertain", "disagreement", "uncovered", "diverse", "mix"]
Listener = Callable[[str], None]
"""Called with an image's address when it has been looked at."""

STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
_ATTRIBUTES: dict[str, str] = {
    "uncertain": "uncertainty",
    "disagreement": "disagreement",
    "uncovered": "uncovered",
}
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderingConfig:
    """How images are ordered.

    Attributes:
        strategy: see the module.
        seed: of ``random``, and of ties.
        points_per_side: of the grid that asks for masks; a coarse one is enough to compare images.
        min_iou: masks are confident above this predicted IoU; None: what the model recommends.
        weights: of ``mix``, by strategy; ``diverse`` is the weight of being unlike those before.
        spread_first: ``diverse`` and ``mix`` look at all images for each of so many places; the
            rest follow by their scores.
    """

    strategy: Strategy = "mix"
    seed: int = 0
    points_per_side: int = 16
    min_iou: float | None = None
    weights: tuple[tuple[str, float], ...] = (
        ("uncertain", 1.0),
        ("uncovered", 1.0),
        ("diverse", 1.0),
    )
    spread_first: int = 2000

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise BadInputError(
                f"unknown strategy {self.strategy!r}; expected one of {', '.join(STRATEGIES)}"
            )
        if self.points_per_side < 1 or self.spread_first < 1:
            raise BadInputError(
                "points_per_side and spread_first count from 1; got "
                f"{self.points_per_side} and {self.spread_first}"
            )
        known = {*get_args(Signal), "diverse"}
        wrong = [name for name, weight in self.weights if name not in known or not weight >= 0]
        if wrong or not any(weight > 0 for _, weight in self.weights):
            raise BadInputError(
                f"mix takes weights from 0 of {', '.join(sorted(known))}, one of them above 0; got "
                f"{dict(self.weights)}"
            )

    @property
    def grid(self) -> GridPrompts:
        """How an image is asked for masks."""
        return GridPrompts(points_per_side=self.points_per_side, min_iou=self.min_iou)

    @property
    def asked(self) -> frozenset[str]:
        """What is to be measured of every image."""
        if self.strategy == "mix":
            return frozenset(name for name, weight in self.weights if weight > 0)
        return frozenset({self.strategy})

    def to_json(self) -> str:
        """Return the settings as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedImage:
    """An image's place.

    Attributes:
        image_id: as in the data set.
        position: from 0.
        score: why it stands there: larger comes earlier; None: it could not be looked at.
        strategy: what gave the score.
        reason: why it could not be looked at; None: it could.
    """

    image_id: int
    position: int
    score: float | None
    strategy: Strategy
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ordering:
    """An order of images, and how it came about.

    Attributes:
        config: the settings.
        model_id: of the model that was asked; None: none was.
        other_model_id: of the second model of ``disagreement``; None: there was none.
        images: in order.
    """

    config: OrderingConfig
    images: tuple[OrderedImage, ...]
    model_id: str | None = None
    other_model_id: str | None = None

    def arrange(self, images: Sequence[CampaignImage]) -> tuple[CampaignImage, ...]:
        """Return these images in order, each with its score.

        Raises:
            BadInputError: they are not the images that were ordered.
        """
        by_id = {image.image_id: image for image in images}
        if len(by_id) != len(images) or by_id.keys() != {o.image_id for o in self.images}:
            raise BadInputError(
                f"the order is of {len(self.images)} other images than the {len(images)} given"
            )
        return tuple(replace(by_id[o.image_id], score=o.score) for o in self.images)

    def to_json(self) -> str:
        """Return settings, scores and reasons as canonical JSON, for the campaign's record."""
        fields = {
            "config": json.loads(self.config.to_json()),
            "model_id": self.model_id,
            "other_model_id": self.other_model_id,
            "scores": {str(o.image_id): o.score for o in self.images if o.score is not None},
            "failed": {str(o.image_id): o.reason for o in self.images if o.reason is not None},
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))


def order_images(
    images: Sequence[CampaignImage],
    sam: Sam | None,
    config: OrderingConfig,
    *,
    limits: ImageLimits,
    other: Sam | None = None,
    on_image: Listener | None = None,
) -> Ordering:
    """Put images in the order in which people are to get them.

    The same images, models and settings give the same order, however the images were listed.

    Args:
        images: each once.
        sam: the model that the campaign works with; ``random`` needs none.
        config: how to order.
        limits: what is too large to be decoded.
        other: a second model for ``disagreement``; None: the mirrored image is asked about.
        on_image: for progress.

    Raises:
        BadInputError: an image twice, or no model for a strategy that asks one.
    """
    listed = sorted(images, key=lambda image: image.image_id)
    if len({image.image_id for image in listed}) != len(listed):
        raise BadInputError("an image stands twice in the list; name each once")
    if config.strategy == "random":
        return Ordering(config=config, images=_random_order(listed, config))
    if sam is None:
        raise BadInputError(f"the strategy {config.strategy} needs a model; got none")
    signals, failed = _look_at(listed, sam, other, config, limits, on_image)
    ids = list(signals)
    order_I, scores_I = arranged(list(signals.values()), config)
    placed = tuple(
        OrderedImage(
            image_id=ids[place],
            position=position,
            score=round(float(scores_I[place]), _DIGITS),
            strategy=config.strategy,
        )
        for position, place in enumerate(order_I.tolist())
    )
    last = tuple(
        OrderedImage(
            image_id=image_id,
            position=position,
            score=None,
            strategy=config.strategy,
            reason=f"{skipped.reason}: {skipped.message}",
        )
        for position, (image_id, skipped) in enumerate(failed.items(), start=len(placed))
    )
    return Ordering(
        config=config,
        images=(*placed, *last),
        model_id=sam.model_id(),
        other_model_id=other.model_id() if other is not None else None,
    )


def _random_order(
    images: Sequence[CampaignImage], config: OrderingConfig
) -> tuple[OrderedImage, ...]:
    places_I = np.random.default_rng(config.seed).permutation(len(images))
    return tuple(
        OrderedImage(
            image_id=images[place].image_id,
            position=position,
            score=round(1 - position / len(images), _DIGITS),
            strategy="random",
        )
        for position, place in enumerate(places_I.tolist())
    )


def _look_at(
    images: Sequence[CampaignImage],
    sam: Sam,
    other: Sam | None,
    config: OrderingConfig,
    limits: ImageLimits,
    on_image: Listener | None,
) -> tuple[dict[int, ImageSignals], dict[int, SkippedImage]]:
    """Measure every image; those that cannot be used apart, with the reason."""
    asked = config.asked
    signals: dict[int, ImageSignals] = {}
    failed: dict[int, SkippedImage] = {}
    for image, pixels in read_images(images, limits):
        if isinstance(pixels, SkippedImage):
            logger.warning("%s goes last (%s): %s", image.uri, pixels.reason, pixels.message)
            failed[image.image_id] = pixels
        else:
            signals[image.image_id] = measure_image(sam, pixels, asked, config.grid, other)
        if on_image is not None:
            on_image(image.uri)
    return signals, failed


def arranged(
    signals: Sequence[ImageSignals], config: OrderingConfig
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Order images by what was measured of them.

    Returns:
        int64 (I,): places of `signals`, the first to be annotated first; float64 (I,): the score of
        each of `signals`.
    """
    if not signals:
        return np.empty(0, dtype=np.int64), np.empty(0)
    # Whom the seed puts first wins a tie.
    shuffled_I = np.random.default_rng(config.seed).permutation(len(signals))
    drawn = [signals[place] for place in shuffled_I.tolist()]
    if config.strategy in get_args(Signal):
        scores_I = signal_values(drawn, config.strategy)
        order_I = np.argsort(-scores_I, kind="stable")
    else:
        weights = dict(config.weights) if config.strategy == "mix" else {"diverse": 1.0}
        total = sum(weights.values())
        base_I = np.zeros(len(drawn))
        for name in get_args(Signal):
            if weights.get(name, 0) > 0:
                base_I += weights[name] / total * ranks(signal_values(drawn, name))
        spread = weights.get("diverse", 0) / total
        if spread:
            vectors_ID = np.stack([s.vector_D for s in drawn if s.vector_D is not None])
            order_I, scores_I = spread_out(vectors_ID, base_I, spread, config.spread_first)
        else:
            order_I, scores_I = np.argsort(-base_I, kind="stable"), base_I
    back_I = np.empty(len(signals))
    back_I[shuffled_I] = scores_I
    return shuffled_I[order_I], back_I


def signal_values(signals: Sequence[ImageSignals], name: str) -> NDArray[np.float64]:
    """Return one number of every image: larger comes earlier."""
    values = [getattr(one, _ATTRIBUTES[name]) for one in signals]
    return np.array(values, dtype=np.float64)


def ranks(values_I: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace values by their ranks from 0 to 1; equal values share the middle of theirs."""
    if len(values_I) < 2:
        return np.zeros(len(values_I))
    low = np.searchsorted(np.sort(values_I), values_I, "left")
    high = np.searchsorted(np.sort(values_I), values_I, "right") - 1
    return np.asarray((low + high) / 2 / (len(values_I) - 1))


def spread_out(
    vectors_ID: NDArray[np.float32],
    base_I: NDArray[np.float64],
    spread: float,
    first: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose one after another what scores high and is far from all that was chosen.

    Args:
        vectors_ID: of the images; distances count in their spread over all images.
        base_I: scores from 0 to 1 that distance is weighed against.
        spread: the weight of distance.
        first: so many are chosen one after another; the rest follow by their last scores.

    Returns:
        The order, and the score that each image was chosen with.
    """
    centred_ID = vectors_ID - vectors_ID.mean(axis=0)
    scale_D = centred_ID.std(axis=0)
    places_ID = np.divide(centred_ID, scale_D, out=np.zeros_like(centred_ID), where=scale_D > 0)
    norms_I = np.einsum("id,id->i", places_ID, places_ID)
    # As if the mean image had been chosen before: the first one is then unusual, or scores high.
    distance_I = np.sqrt(norms_I.astype(np.float64))
    unit = float(distance_I.max()) or 1.0
    scores_I = np.empty(len(base_I))
    is_open_I = np.ones(len(base_I), dtype=np.bool_)
    order: list[int] = []
    for _ in range(min(first, len(base_I))):
        value_I = np.where(is_open_I, base_I + spread * distance_I / unit, -np.inf)
        chosen = int(value_I.argmax())
        scores_I[chosen] = value_I[chosen]
        is_open_I[chosen] = False
        order.append(chosen)
        squares_I = norms_I + norms_I[chosen] - 2 * (places_ID @ places_ID[chosen])
        distance_I = np.minimum(distance_I, np.sqrt(np.maximum(squares_I, 0)))
    rest_I = np.flatnonzero(is_open_I)
    scores_I[rest_I] = base_I[rest_I] + spread * distance_I[rest_I] / unit
    rest_I = rest_I[np.argsort(-scores_I[rest_I], kind="stable")]
    return np.concatenate([np.array(order, dtype=np.int64), rest_I]), scores_I
