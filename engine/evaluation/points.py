"""Prompts: clicks and boxes put to a model, or to a baseline, on labelled images.

    scores = score_model(sam, labelled_set, PromptConfig())
    scores.after(clicks=1).trusted_iou_N.mean(), scores.box.trusted_iou_N.mean()

An image is encoded once; all its prompts run as one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadInputError
from engine.evaluation.clicks import centre_clicks, corrective_click, random_clicks
from engine.evaluation.labelled import Asked, LabelledSet, Selection, ask, decode_masks
from model.evaluate import (
    Answerer,
    AnswerQuality,
    SamOnImage,
    Segmenter,
    box_answers,
    click_rounds,
)

FirstClick = Literal["centre", "random"]
Listener = Callable[[str, int], None]
"""Called with an image's path and its number of masks when it is done."""

_PROMPTS_AT_ONCE = 64
# Three masks of each prompt stay below this many pixels together.
_PIXELS_AT_ONCE = 64_000_000
_CLICK_DRAW = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """What is put to the model.

    Attributes:
        max_clicks: length of the conversations; 0 for none.
        report_at: numbers of clicks that tables show, and where the oracle is known.
        first_click: the mask's centre (farthest from its border) or a random pixel of it.
        box: also prompt with the tight box.
        selection: which masks.
    """

    max_clicks: int = 9
    report_at: tuple[int, ...] = (1, 2, 3, 5, 9)
    first_click: FirstClick = "centre"
    box: bool = True
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        if self.max_clicks < 0 or not (self.max_clicks or self.box):
            raise BadInputError(
                f"max_clicks must be 0 or more, and there must be a click or a box; got "
                f"{self.max_clicks} clicks and box={self.box}"
            )


class Method(Protocol):
    """Something that answers prompts on images: a model or a baseline."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def open(self, image_HWC3: NDArray[np.uint8]) -> Answerer:
        """Look at an image, to be asked about it."""
        ...


@dataclass(frozen=True, slots=True)
class ModelMethod:
    """A model among the methods."""

    sam: Segmenter
    name: str = "model"

    def open(self, image_HWC3: NDArray[np.uint8]) -> Answerer:
        """Encode the image."""
        return SamOnImage(self.sam, self.sam.encode(image_HWC3))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelScores:
    """What a method scored on a set, mask by mask: N masks of some of the set's images.

    Attributes:
        method: which method.
        data: which set.
        image_N: int64, place of each mask's image in the set, ascending.
        area_N: int64, pixels of each mask.
        votes_N: int64, how many people drew it.
        by_clicks: quality after 1, 2, ... clicks.
        box: quality after a tight box, or None.
    """

    method: str
    data: str
    image_N: NDArray[np.int64]
    area_N: NDArray[np.int64]
    votes_N: NDArray[np.int64]
    by_clicks: tuple[AnswerQuality, ...] = ()
    box: AnswerQuality | None = None

    def __len__(self) -> int:
        """Return N."""
        return len(self.image_N)

    @property
    def images(self) -> int:
        """Number of images that the masks belong to."""
        return len(np.unique(self.image_N))

    def after(self, clicks: int) -> AnswerQuality:
        """Return the quality after so many clicks.

        Raises:
            BadInputError: the conversations were shorter.
        """
        if not 1 <= clicks <= len(self.by_clicks):
            raise BadInputError(
                f"scores after 1 to {len(self.by_clicks)} clicks are known; got {clicks}"
            )
        return self.by_clicks[clicks - 1]

    def clicks_to(self, iou: float) -> NDArray[np.int64]:
        """Count the clicks until the trusted mask reached an IoU (NoC); (N,).

        The length of the conversation stands for masks that never did.
        """
        reached_TN = np.stack([quality.trusted_iou_N >= iou for quality in self.by_clicks])
        first_N = reached_TN.argmax(axis=0) + 1
        return np.where(reached_TN.any(axis=0), first_N, len(self.by_clicks)).astype(np.int64)

    def reached(self, iou: float) -> NDArray[np.bool_]:
        """Tell for which masks some trusted answer reached an IoU; (N,)."""
        best_N: NDArray[np.float64] = np.max([q.trusted_iou_N for q in self.by_clicks], axis=0)
        return best_N >= iou

    def rows(self, chosen: NDArray[np.bool_]) -> ModelScores:
        """Return the scores of some of the masks."""
        return ModelScores(
            method=self.method,
            data=self.data,
            image_N=self.image_N[chosen],
            area_N=self.area_N[chosen],
            votes_N=self.votes_N[chosen],
            by_clicks=tuple(quality.rows(chosen) for quality in self.by_clicks),
            box=None if self.box is None else self.box.rows(chosen),
        )

    def agreed(self, votes: int, masks_per_image: int) -> ModelScores:
        """Return the scores of masks that so many people drew, at most so many of each image.

        With a level of `Selection.votes` and its `masks_per_image` these are the masks that were
        drawn for that level.
        """
        fitting_N = self.votes_N >= votes
        if masks_per_image:
            counted_N: NDArray[np.int64] = np.cumsum(fitting_N, dtype=np.int64)
            starts = np.searchsorted(self.image_N, self.image_N)
            before_N = (counted_N - fitting_N)[starts]  # fitting masks of earlier images
            fitting_N &= counted_N - before_N <= masks_per_image
        return self.rows(fitting_N)


def score_model(
    sam: Segmenter,
    labelled_set: LabelledSet,
    config: PromptConfig,
    on_image: Listener | None = None,
    name: str = "model",
) -> ModelScores:
    """Put prompts for masks of every image to a model.

    Args:
        sam: the model.
        labelled_set: images with masks, e.g. `CocoMasks`.
        config: which prompts for which masks. The same config gives the same prompts, mask by mask,
            so the scores of two models can be paired.
        on_image: for progress.
        name: of the model in tables.

    Raises:
        BadInputError: the set has no fitting mask, or a mask does not fit its image.
    """
    return score_method(ModelMethod(sam, name), labelled_set, config, on_image)


def score_method(
    method: Method,
    labelled_set: LabelledSet,
    config: PromptConfig,
    on_image: Listener | None = None,
) -> ModelScores:
    """Put the same prompts to any method; see `score_model`."""
    parts: list[ModelScores] = []
    for asked in ask(labelled_set, config.selection):
        parts += _score_image(method, labelled_set.name, asked, config)
        if on_image is not None:
            on_image(str(asked.image.path), len(asked.masks))
    if not parts:
        raise BadInputError(
            f"{labelled_set.name} has no mask that {min(config.selection.votes)} or more people "
            f"drew, in {len(labelled_set)} images; lower --min-votes or give other images"
        )
    return _joined(parts)


def _score_image(
    method: Method, data: str, asked: Asked, config: PromptConfig
) -> Iterator[ModelScores]:
    image_HWC3 = asked.image.read()
    answerer = method.open(image_HWC3)
    random = config.selection.random(asked.image, _CLICK_DRAW)
    height, width = image_HWC3.shape[:2]
    at_once = max(1, min(_PROMPTS_AT_ONCE, _PIXELS_AT_ONCE // (3 * height * width)))
    for start in range(0, len(asked.masks), at_once):
        masks = asked.masks[start : start + at_once]
        wanted_NHW = decode_masks(masks)
        if wanted_NHW.shape[1:] != (height, width):
            raise BadInputError(
                f"{asked.image.path} is {height} x {width} pixels, but its masks are "
                f"{wanted_NHW.shape[1]} x {wanted_NHW.shape[2]}; was the image resized?"
            )
        yield ModelScores(
            method=method.name,
            data=data,
            image_N=np.full(len(masks), asked.index, dtype=np.int64),
            area_N=wanted_NHW.sum((1, 2), dtype=np.int64),
            votes_N=np.array([mask.votes for mask in masks], dtype=np.int64),
            by_clicks=_converse(answerer, wanted_NHW, config, random),
            box=box_answers(answerer, wanted_NHW) if config.box else None,
        )


def _converse(
    answerer: Answerer,
    wanted_NHW: NDArray[np.bool_],
    config: PromptConfig,
    random: np.random.Generator,
) -> tuple[AnswerQuality, ...]:
    if not config.max_clicks:
        return ()
    first_N2 = (
        centre_clicks(wanted_NHW)
        if config.first_click == "centre"
        else random_clicks(wanted_NHW, random)
    )
    return click_rounds(
        answerer, wanted_NHW, first_N2, corrective_click, config.max_clicks, config.report_at
    )


def _joined(parts: list[ModelScores]) -> ModelScores:
    boxes = [part.box for part in parts if part.box is not None]
    return ModelScores(
        method=parts[0].method,
        data=parts[0].data,
        image_N=np.concatenate([part.image_N for part in parts]),
        area_N=np.concatenate([part.area_N for part in parts]),
        votes_N=np.concatenate([part.votes_N for part in parts]),
        by_clicks=tuple(
            AnswerQuality.joined([part.by_clicks[i] for part in parts])
            for i in range(len(parts[0].by_clicks))
        ),
        box=AnswerQuality.joined(boxes) if boxes else None,
    )
