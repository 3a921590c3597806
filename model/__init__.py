"""The promptable segmentation model; torch and numpy only.

>>> from model import Prompts, build_sam
>>> sam = build_sam("bundled")
>>> embedding = sam.encode(image_HWC3_uint8_rgb)
>>> prediction = sam.predict(embedding, Prompts(points_xy=[[[320, 240]]], point_labels=[[1]]))
"""

from model.checkpoint import CheckpointError, build_sam, load_sam, save_sam
from model.preprocess import PIXEL_MEAN, PIXEL_STD
from model.sam import SIZES, RecommendedThresholds, Sam, SamConfig
from model.train import TrainBatch, train
from model.train_config import SAM_TRAINING, TrainConfig
from model.types import (
    Frame,
    ImageEmbedding,
    MaskPrediction,
    PromptError,
    Prompts,
    ScoredPrompts,
)
from model.upsample import LOW_RES_STRIDE, Region, cut_window, regions_above, upsample_window

__all__ = [
    "LOW_RES_STRIDE",
    "PIXEL_MEAN",
    "PIXEL_STD",
    "SAM_TRAINING",
    "SIZES",
    "CheckpointError",
    "Frame",
    "ImageEmbedding",
    "MaskPrediction",
    "PromptError",
    "Prompts",
    "RecommendedThresholds",
    "Region",
    "Sam",
    "SamConfig",
    "ScoredPrompts",
    "TrainBatch",
    "TrainConfig",
    "build_sam",
    "cut_window",
    "load_sam",
    "regions_above",
    "save_sam",
    "train",
    "upsample_window",
]
