"""COCO's binary masks: run-length encoding and average precision; the only home of pycocotools.

    rle = encode_region(region_hw, x0=800, y0=400, height=1500, width=2250)
    average_precision(wanted, found).ap

Values go in and come out; pycocotools' dicts stay inside.
"""

from engine.masks.average_precision import AveragePrecision, JudgedMask, average_precision
from engine.masks.measuring import MeasuredMasks, measure_masks
from engine.masks.rle import (
    decode_mask,
    decode_region,
    encode_mask,
    encode_polygons,
    encode_region,
    encode_runs,
    mask_area,
    mask_areas,
    mask_box_xyxy,
    mask_iou,
    validate_rle,
)

__all__ = [
    "AveragePrecision",
    "JudgedMask",
    "MeasuredMasks",
    "average_precision",
    "decode_mask",
    "decode_region",
    "encode_mask",
    "encode_polygons",
    "encode_region",
    "encode_runs",
    "mask_area",
    "mask_areas",
    "mask_box_xyxy",
    "mask_iou",
    "measure_masks",
    "validate_rle",
]
