"""Greedy non-maximum suppression on boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def box_nms(
    boxes_xyxy: NDArray[np.float32], scores: NDArray[np.float32], iou_threshold: float
) -> NDArray[np.int64]:
    """Keep the best box of every group that overlaps by more than a threshold.

    Areas are (x1 - x0) * (y1 - y0): a box of a one-pixel-wide mask has area 0 and suppresses
    nothing, nor is it suppressed. Equal scores keep their order.

    Args:
        boxes_xyxy: (N, 4).
        scores: (N,), higher wins.
        iou_threshold: boxes with a strictly larger IoU are suppressed.

    Returns:
        Indices of the boxes kept, best first.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = boxes_xyxy[order].astype(np.float32)
    x0, y0, x1, y1 = boxes.T
    areas = (x1 - x0) * (y1 - y0)
    alive = np.ones(len(order), dtype=bool)
    kept = []
    for i in range(len(order)):
        if not alive[i]:
            continue
        kept.append(order[i])
        later = slice(i + 1, None)
        overlap_w = np.minimum(x1[i], x1[later]) - np.maximum(x0[i], x0[later])
        overlap_h = np.minimum(y1[i], y1[later]) - np.maximum(y0[i], y0[later])
        overlap = np.maximum(overlap_w, 0) * np.maximum(overlap_h, 0)
        union = areas[i] + areas[later] - overlap
        # overlap / union > threshold, false where both are 0; the ratio in float32, as in
        # torchvision
        ratio = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
        alive[later] &= ~(ratio.astype(np.float64) > iou_threshold)
    return np.array(kept, dtype=np.int64)
