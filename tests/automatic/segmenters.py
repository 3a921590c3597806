"""The same model twice: as our generator takes it and as the reference takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import ImageEmbedding, Prompts, Sam, SamConfig, ScoredPrompts
from model.image_encoder import VitConfig
from model.preprocess import input_frame, to_input_frame
from model.types import ImageFeatures, InputPrompts
from tests.automatic.oracle_segmenter import OracleFeatures, OracleScene
from tests.automatic.reference_generator import reference_pixels

SIDE = 1024


@dataclass(frozen=True, eq=False)
class OracleEmbedding(ImageEmbedding):
    """An embedding that remembers what the oracle sees."""

    seen: OracleFeatures


@dataclass(frozen=True, eq=False)
class OracleScores(ScoredPrompts):
    """Scored prompts that remember the oracle's logits."""

    logits_N4hw: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass(frozen=True)
class OracleSegmenter:
    """`OracleScene` behind the interface of `Sam`."""

    scene: OracleScene

    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        frame = input_frame(image_HWC3.shape[:2], SIDE, SIDE)
        return OracleEmbedding(ImageFeatures(torch.empty(0)), frame, self.scene.encode(image_HWC3))

    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        assert isinstance(embedding, OracleEmbedding)
        points = to_input_frame(prompts, embedding.frame, torch.device("cpu")).points_NK2
        assert points is not None
        logits, iou = self.scene.decode(embedding.seen, points[:, 0].numpy())
        nothing = torch.empty(0)
        return OracleScores(
            iou_N4=torch.from_numpy(np.pad(iou, ((0, 0), (1, 0)))),
            mask_tokens_N4C=nothing,
            image_NCHW=nothing,
            features=embedding.features,
            logits_N4hw=torch.from_numpy(np.pad(logits, ((0, 0), (1, 0), (0, 0), (0, 0)))),
        )

    def draw(self, scored: ScoredPrompts, chosen: Tensor) -> Tensor:
        assert isinstance(scored, OracleScores)
        return scored.logits_N4hw[chosen]


def small_vit_sam(seed: int = 0) -> Sam:
    """Build SAM with a narrow two-block ViT and random weights; the decoder is full-size."""
    torch.manual_seed(seed)
    encoder = VitConfig(width=32, depth=2, heads=2, global_blocks=(1,))
    sam = Sam(SamConfig(name="small_vit", encoder=encoder)).eval()
    parameters = dict(sam.named_parameters())
    decoder = "mask_decoder."
    with torch.no_grad():  # spread the scores and logits, which random weights leave near zero
        parameters["image_encoder.pos_embed"].normal_(std=0.5)
        parameters[f"{decoder}iou_prediction_head.layers.2.weight"].mul_(8)
        parameters[f"{decoder}iou_prediction_head.layers.2.bias"].fill_(0.7)
        for token in range(4):
            brush = f"{decoder}output_hypernetworks_mlps.{token}.layers.2"
            parameters[f"{brush}.weight"].mul_(40)
            parameters[f"{brush}.bias"].normal_(std=3.0)
    return sam


@dataclass(frozen=True)
class PlainSam:
    """A `Sam` taken apart for the reference: its modules, none of its preprocessing."""

    sam: Sam

    def encode(self, crop_HWC3: NDArray[np.uint8]) -> Any:
        with torch.inference_mode():
            return self.sam.image_encoder(reference_pixels(crop_HWC3))

    def decode(
        self, features: Any, points_N2: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        points = torch.from_numpy(points_N2)[:, None]
        labels = torch.ones(points.shape[:2], dtype=torch.long)
        with torch.inference_mode():
            scored = self.sam.score_input(
                features, InputPrompts(points, labels, None, None), (SIDE, SIDE)
            )
            logits = self.sam.mask_decoder.draw(scored)
        return logits[:, 1:].numpy(), scored.iou_N4[:, 1:].numpy()
