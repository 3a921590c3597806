"""Simulated people who prompt for a mask and correct the answer, and how good the answers are.

>>> answers = click_rounds(SamOnImage(sam, embedding), wanted_NHW, first_N2, correct, clicks=9)
>>> answers[0].trusted_iou_N.mean(), answers[0].oracle_iou_N.mean()

Paper: Segment Anything, section 7.1 and appendix D.1. Shape legend: N wanted masks, one prompt for
each; M answers to a prompt; K points; H W image pixels; h w low-resolution logits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.prompt_sampling import tight_boxes
from model.types import FOREGROUND, ImageEmbedding, MaskPrediction, Prompts


class Click(NamedTuple):
    """A point in pixels of the image and its label: 1 foreground, 0 background."""

    x: int
    y: int
    label: int


Corrector = Callable[[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]], Click]
"""Chooses the next click from the wanted mask and the answer, both (H, W), and the clicks so far,
(K, 2) xy."""


class Answerer(Protocol):
    """Whoever answers prompts about one image: a model, or something to compare it with."""

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        """Answer N prompts with M masks each, or with one each."""
        ...


class Segmenter(Protocol):
    """What evaluation needs of a model; `Sam` is one."""

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode an RGB image."""
        ...

    def predict(
        self, embedding: ImageEmbedding, prompts: Prompts, *, multimask: bool = True
    ) -> MaskPrediction:
        """Answer N prompts on it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SamOnImage:
    """A model and the image that it is asked about."""

    sam: Segmenter
    embedding: ImageEmbedding

    def answer(self, prompts: Prompts, *, multimask: bool) -> MaskPrediction:
        """See `Sam.predict`."""
        return self.sam.predict(self.embedding, prompts, multimask=multimask)


@dataclass(frozen=True, slots=True, eq=False)
class AnswerQuality:
    """How good the answers to N prompts are.

    Attributes:
        iou_NM: float64, IoU of every answer with the wanted mask.
        predicted_NM: float64, the model's own estimate of it.
        trusted_N: int64, which answer a user would be given.
    """

    iou_NM: NDArray[np.float64]
    predicted_NM: NDArray[np.float64]
    trusted_N: NDArray[np.int64]

    @property
    def trusted_iou_N(self) -> NDArray[np.float64]:  # noqa: N802 - a shape suffix
        """IoU of the answer that a user would be given."""
        return self.iou_NM[np.arange(len(self.trusted_N)), self.trusted_N]

    @property
    def oracle_iou_N(self) -> NDArray[np.float64]:  # noqa: N802 - a shape suffix
        """IoU of the best answer, as if somebody knew which one that is."""
        best: NDArray[np.float64] = self.iou_NM.max(axis=1)
        return best

    @property
    def predicted_iou_N(self) -> NDArray[np.float64]:  # noqa: N802 - a shape suffix
        """What the model predicted for the trusted answer."""
        return self.predicted_NM[np.arange(len(self.trusted_N)), self.trusted_N]

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> AnswerQuality:
        """Return the quality of some of the prompts."""
        return AnswerQuality(self.iou_NM[chosen], self.predicted_NM[chosen], self.trusted_N[chosen])

    @classmethod
    def joined(cls, parts: Sequence[AnswerQuality]) -> AnswerQuality:
        """Put the prompts of several images together."""
        return cls(
            np.concatenate([part.iou_NM for part in parts]),
            np.concatenate([part.predicted_NM for part in parts]),
            np.concatenate([part.trusted_N for part in parts]),
        )


def click_rounds(
    answerer: Answerer,
    wanted_NHW: NDArray[np.bool_],
    first_N2: NDArray[np.float64],
    correct: Corrector,
    clicks: int,
    oracle_at: Collection[int] = (),
) -> tuple[AnswerQuality, ...]:
    """Click, look at the answer, click into what is wrong with it, and so on.

    One click is ambiguous and gets several masks, of which the one with the highest predicted IoU
    is trusted. From the second click on there is one mask, and the logits of the last trusted mask
    go in with the clicks.

    Args:
        answerer: about the image.
        wanted_NHW: bool, at the image's size.
        first_N2: xy of the first click into each mask.
        correct: where to click next.
        clicks: how many in all, at least 1.
        oracle_at: numbers of clicks after which the several masks are drawn too, for the oracle;
            after the first click they always are.

    Returns:
        The quality after 1, 2, ... clicks. Where the several masks were drawn as well they follow
        the single one.

    Raises:
        ValueError: fewer than one click.
    """
    if clicks < 1:
        raise ValueError(f"clicks must be at least 1; got {clicks}")
    points_NK2 = np.asarray(first_N2, dtype=np.float64)[:, None, :]
    labels_NK = np.full(points_NK2.shape[:2], FOREGROUND, dtype=np.int64)
    prediction = answerer.answer(
        Prompts(points_xy=points_NK2, point_labels=labels_NK), multimask=True
    )
    rounds = [answer_quality(prediction, wanted_NHW)]
    trusted = torch.from_numpy(rounds[0].trusted_N)
    for count in range(2, clicks + 1):
        masks_NHW = _trusted(prediction.masks_NMHW, trusted)[:, 0].cpu().numpy()
        added = [
            correct(wanted, mask, points)
            for wanted, mask, points in zip(wanted_NHW, masks_NHW, points_NK2, strict=True)
        ]
        points_NK2 = np.append(points_NK2, [[[c.x, c.y]] for c in added], axis=1)
        labels_NK = np.append(labels_NK, [[c.label] for c in added], axis=1)
        prompts = Prompts(
            points_xy=points_NK2,
            point_labels=labels_NK,
            mask_logits=_trusted(prediction.low_res_logits_NMhw, trusted),
        )
        prediction = answerer.answer(prompts, multimask=False)
        quality = answer_quality(prediction, wanted_NHW)
        if count in oracle_at:
            several = answer_quality(answerer.answer(prompts, multimask=True), wanted_NHW)
            quality = _single_first(quality, several)
        rounds.append(quality)
        trusted = torch.zeros_like(trusted)
    return tuple(rounds)


def _trusted(maps_NMxy: Tensor, trusted_N: Tensor) -> Tensor:
    """Pick one of M maps for each prompt: (N, 1, ...)."""
    rows = torch.arange(len(maps_NMxy), device=maps_NMxy.device)
    return maps_NMxy[rows, trusted_N.to(maps_NMxy.device)].unsqueeze(1)


def _single_first(single: AnswerQuality, several: AnswerQuality) -> AnswerQuality:
    return AnswerQuality(
        np.concatenate([single.iou_NM, several.iou_NM], axis=1),
        np.concatenate([single.predicted_NM, several.predicted_NM], axis=1),
        single.trusted_N,
    )


def box_answers(answerer: Answerer, wanted_NHW: NDArray[np.bool_]) -> AnswerQuality:
    """Prompt with every wanted mask's tight box.

    Args:
        answerer: about the image.
        wanted_NHW: bool, at the image's size, none empty.
    """
    boxes_N4 = tight_boxes(torch.from_numpy(wanted_NHW))
    prediction = answerer.answer(Prompts(boxes_xyxy=boxes_N4.double().numpy()), multimask=True)
    return answer_quality(prediction, wanted_NHW)


def answer_quality(prediction: MaskPrediction, wanted_NHW: NDArray[np.bool_]) -> AnswerQuality:
    """Compare the answers to each prompt with the wanted mask; two empty masks have an IoU of 0."""
    masks_NMHW = prediction.masks_NMHW.cpu().numpy()
    overlap_NM = _pixels(masks_NMHW & wanted_NHW[:, None])
    union_NM = _pixels(masks_NMHW) + _pixels(wanted_NHW[:, None]) - overlap_NM
    iou_NM = overlap_NM / np.maximum(union_NM, 1)
    predicted_NM = prediction.iou_NM.double().cpu().numpy()
    return AnswerQuality(iou_NM, predicted_NM, predicted_NM.argmax(axis=1))


def _pixels(masks_NMHW: NDArray[np.bool_]) -> NDArray[np.int64]:
    # One mask at a time: numpy counts a whole array a hundred times faster than along its axes.
    counts = [[np.count_nonzero(mask) for mask in masks_MHW] for masks_MHW in masks_NMHW]
    return np.array(counts, dtype=np.int64)
