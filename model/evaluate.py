"""How well a model answers simulated clicks: mIoU of the mask it trusts most and of its best one.

Paper: Segment Anything, section 7.1: a click where
the mask is farthest from its border.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from model.prompt_sampling import centre_point
from model.sam import Sam
from model.types import ImageEmbedding, Prompts


@dataclass(frozen=True, slots=True, eq=False)
class ClickResult:
    """What N prompts gave, one entry per wanted mask.

    Attributes:
        trusted_iou_N: IoU with the wanted mask of the answer with the highest predicted IoU.
        oracle_iou_N: IoU of the best of the three answers.
        predicted_iou_N: what the model predicted for the trusted answer.
    """

    trusted_iou_N: NDArray[np.float64]
    oracle_iou_N: NDArray[np.float64]
    predicted_iou_N: NDArray[np.float64]

    @classmethod
    def joined(cls, results: Sequence[ClickResult]) -> ClickResult:
        """Put the results of several images together."""
        return cls(
            np.concatenate([r.trusted_iou_N for r in results]),
            np.concatenate([r.oracle_iou_N for r in results]),
            np.concatenate([r.predicted_iou_N for r in results]),
        )


def centre_click(sam: Sam, embedding: ImageEmbedding, wanted_NHW: NDArray[np.bool_]) -> ClickResult:
    """Click once into the middle of every wanted mask.

    Args:
        sam: the model.
        embedding: of the image.
        wanted_NHW: bool, at the image's original size, none empty.
    """
    points = np.array([[centre_point(mask)] for mask in wanted_NHW], dtype=np.float64)
    prompts = Prompts(points_xy=points, point_labels=np.ones(points.shape[:2], dtype=np.int64))
    return answer_quality(sam, embedding, prompts, wanted_NHW)


def box_prompt(sam: Sam, embedding: ImageEmbedding, wanted_NHW: NDArray[np.bool_]) -> ClickResult:
    """Prompt with every wanted mask's tight box; arguments as `centre_click`."""
    boxes = []
    for mask in wanted_NHW:
        ys, xs = np.nonzero(mask)
        boxes.append([xs.min(), ys.min(), xs.max(), ys.max()])
    prompts = Prompts(boxes_xyxy=np.array(boxes, dtype=np.float64))
    return answer_quality(sam, embedding, prompts, wanted_NHW)


def answer_quality(
    sam: Sam, embedding: ImageEmbedding, prompts: Prompts, wanted_NHW: NDArray[np.bool_]
) -> ClickResult:
    """Compare the three answers to each prompt with the wanted mask."""
    prediction = sam.predict(embedding, prompts)
    wanted = torch.from_numpy(wanted_NHW).to(prediction.masks_NMHW.device).unsqueeze(1)
    overlap = (prediction.masks_NMHW & wanted).sum((-2, -1)).double()
    union = (prediction.masks_NMHW | wanted).sum((-2, -1)).double()
    iou_NM = (overlap / union.clamp(min=1)).cpu().numpy()
    predicted_NM = prediction.iou_NM.double().cpu().numpy()
    trusted = predicted_NM.argmax(axis=1)
    rows = np.arange(len(trusted))
    return ClickResult(iou_NM[rows, trusted], iou_NM.max(axis=1), predicted_NM[rows, trusted])
