"""The few functions of torchvision that the peers call, where torchvision is not installed.

    install_stand_in()   # then import the public generator

Peers are imported in a process of their own; only there, and only when the real package is absent,
modules of its names are put in place. They answer as torchvision does: resizing an image is
Pillow's antialiased bilinear filter, and NMS compares boxes in order of their scores, areas without
the + 1, suppressing where the IoU is larger than the threshold.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

_MANY_COORDINATES = 4000  # from here on torchvision's processor path goes class by class


def box_area(boxes_N4: Tensor) -> Tensor:
    """Return the area of XYXY boxes."""
    x0, y0, x1, y1 = boxes_N4.unbind(dim=1)
    return (x1 - x0) * (y1 - y0)


def nms(boxes_N4: Tensor, scores_N: Tensor, iou_threshold: float) -> Tensor:
    """Return the indices of the boxes that stay, best score first."""
    order = scores_N.sort(descending=True, stable=True).indices
    x0, y0, x1, y1 = (side.numpy() for side in boxes_N4[order].detach().cpu().unbind(dim=1))
    areas = (x1 - x0) * (y1 - y0)
    alive = np.ones(len(areas), dtype=bool)
    kept = []
    for i in range(len(areas)):
        if not alive[i]:
            continue
        kept.append(i)
        rest = slice(i + 1, None)
        width = np.clip(np.minimum(x1[i], x1[rest]) - np.maximum(x0[i], x0[rest]), 0, None)
        height = np.clip(np.minimum(y1[i], y1[rest]) - np.maximum(y0[i], y0[rest]), 0, None)
        shared = width * height
        with np.errstate(invalid="ignore"):  # 0 / 0 is no overlap
            alive[rest] &= ~(shared / (areas[i] + areas[rest] - shared) > iou_threshold)
    return order[torch.tensor(kept, dtype=torch.int64, device=order.device)]


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    """Do NMS within each class of `idxs`; both of torchvision's ways, as it chooses them."""
    if boxes.numel() > _MANY_COORDINATES:
        keep = torch.zeros_like(scores, dtype=torch.bool)
        for each in torch.unique(idxs):
            members = torch.where(idxs == each)[0]
            keep[members[nms(boxes[members], scores[members], iou_threshold)]] = True
        kept = torch.where(keep)[0]
        return kept[scores[kept].sort(descending=True).indices]
    if boxes.numel() == 0:
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    apart = idxs.to(boxes) * (boxes.max() + 1)
    return nms(boxes + apart[:, None], scores, iou_threshold)


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to (height, width)."""
    return image.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def to_pil_image(image_HWC3: NDArray[np.uint8]) -> Image.Image:
    """Wrap RGB pixels."""
    return Image.fromarray(image_HWC3)


def install_stand_in() -> bool:
    """Put the functions where imports look for them; return False where torchvision is real."""
    if importlib.util.find_spec("torchvision") is not None:
        return False
    found = {
        "torchvision": {},
        "torchvision.ops": {},
        "torchvision.ops.boxes": {"batched_nms": batched_nms, "box_area": box_area, "nms": nms},
        "torchvision.transforms": {},
        "torchvision.transforms.functional": {"resize": resize, "to_pil_image": to_pil_image},
    }
    for name, contents in found.items():
        module = ModuleType(name)
        vars(module).update(contents)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return True
