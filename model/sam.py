"""The promptable model: images in, prompts in, masks out.

>>> sam = build_sam("bundled")
>>> embedding = sam.encode(image_HWC3)
>>> prediction = sam.predict(embedding, Prompts(points_xy=[[[320, 240]]], point_labels=[[1]]))
>>> prediction.masks_NMHW, prediction.iou_NM

Inference keeps no state: an embedding is a value, and one model serves any number of them.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.compact_encoder import CompactConfig, CompactEncoder
from model.guidance import GuidedMaskDecoder, GuidedPromptEncoder
from model.host_memory import keep_freed_memory
from model.image_encoder import VitConfig, VitEncoder
from model.mask_decoder import MaskDecoder
from model.preprocess import input_frame, preprocess, to_input_frame
from model.prompt_encoder import PromptEncoder
from model.types import (
    Frame,
    ImageEmbedding,
    ImageFeatures,
    InputPrompts,
    MaskPrediction,
    PromptError,
    Prompts,
    ScoredPrompts,
)
from model.upsample import LOW_RES_STRIDE, upsample_masks

logger = logging.getLogger(__name__)

_COMPACT_STRIDE = 32
_PROMPTS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RecommendedThresholds:
    """What a model's scores mean for filtering; the defaults are those of the public SAM generator.

    Attributes:
        pred_iou_thresh: masks are kept above this predicted IoU.
        stability_score_thresh: and from this stability on.
        stability_score_offset: distance of the two stability thresholds from the mask threshold.
        box_nms_thresh: of two boxes with a larger IoU the better one stays.
        min_mask_region_area: islands and holes below this many pixels are removed; 0 keeps all.
    """

    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    min_mask_region_area: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamConfig:
    """Sizes of a model; `SIZES` holds the named ones.

    Attributes:
        name: family name that goes into the model's id.
        encoder: sizes of the image encoder; its type chooses plain SAM or the compact model.
        image_size: long side of the model's input in pixels.
        dim: channels of image tokens and prompt tokens.
        decoder_heads: attention heads of the two-way transformer.
        decoder_depth: its layers.
        decoder_mlp_dim: width of its feed-forward blocks.
        iou_sigmoid: predicted IoUs pass a sigmoid, as in SAM 2; else they may exceed 1.
        recommended: thresholds that fit this model's scores.
    """

    name: str
    encoder: VitConfig | CompactConfig
    image_size: int = 1024
    dim: int = 256
    decoder_heads: int = 8
    decoder_depth: int = 2
    decoder_mlp_dim: int = 2048
    iou_sigmoid: bool = False
    recommended: RecommendedThresholds = field(default_factory=RecommendedThresholds)

    @property
    def pad_multiple(self) -> int:
        """The input's sides are multiples of this; SAM's ViT takes a full square."""
        return self.image_size if isinstance(self.encoder, VitConfig) else _COMPACT_STRIDE


SizeName = Literal["bundled", "vit_b", "vit_l", "vit_h"]
SIZES: dict[str, SamConfig] = {
    "vit_b": SamConfig(name="vit_b", encoder=VitConfig()),
    "vit_l": SamConfig(
        name="vit_l",
        encoder=VitConfig(width=1024, depth=24, heads=16, global_blocks=(5, 11, 17, 23)),
    ),
    "vit_h": SamConfig(
        name="vit_h",
        encoder=VitConfig(width=1280, depth=32, heads=16, global_blocks=(7, 15, 23, 31)),
    ),
    "bundled": SamConfig(
        name="bundled",
        encoder=CompactConfig(),
        image_size=512,
        dim=128,
        decoder_heads=4,
        decoder_mlp_dim=512,
        iou_sigmoid=True,
    ),
}


class Sam(nn.Module):
    """Segment Anything: image encoder, prompt encoder and mask decoder.

    Submodules and parameters carry the names of the official checkpoints.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        if isinstance(config.encoder, VitConfig):
            self.image_encoder: nn.Module = VitEncoder(
                config.encoder, config.image_size, config.dim
            )
            self.prompt_encoder = PromptEncoder(config.dim)
            self.mask_decoder = MaskDecoder(
                config.dim,
                heads=config.decoder_heads,
                depth=config.decoder_depth,
                mlp_dim=config.decoder_mlp_dim,
            )
        else:
            barriers = config.encoder.barriers
            self.image_encoder = CompactEncoder(config.encoder, config.dim)
            self.prompt_encoder = GuidedPromptEncoder(config.dim, barriers)
            self.mask_decoder = GuidedMaskDecoder(
                config.dim,
                barriers,
                heads=config.decoder_heads,
                depth=config.decoder_depth,
                mlp_dim=config.decoder_mlp_dim,
            )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mask_decoder.iou_token.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights and of the computation."""
        return self.mask_decoder.iou_token.weight.dtype

    @torch.inference_mode()
    def encode(self, image_HWC3: NDArray[np.uint8]) -> ImageEmbedding:
        """Encode one RGB image of any size.

        Raises:
            ValueError: not an (H, W, 3) uint8 array.
        """
        return self.encode_batch([image_HWC3])[0]

    @torch.inference_mode()
    def encode_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[ImageEmbedding]:
        """Encode several images or crops; those that share an input size run as one batch.

        Returns:
            One embedding per image, in the order given.
        """
        keep_freed_memory()
        frames = [self.frame(image.shape[:2]) for image in images]
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, frame in enumerate(frames):
            by_size[frame.padded_size].append(i)
        embeddings: dict[int, ImageEmbedding] = {}
        for indices in by_size.values():
            pixels = torch.stack([preprocess(images[i], frames[i], self.device) for i in indices])
            features = self.image_encoder(pixels.to(self.dtype))
            for row, i in enumerate(indices):
                embeddings[i] = ImageEmbedding(features.of_image(row), frames[i])
        return [embeddings[i] for i in range(len(images))]

    @torch.inference_mode()
    def predict(
        self, embedding: ImageEmbedding, prompts: Prompts, *, multimask: bool = True
    ) -> MaskPrediction:
        """Answer N prompts on one image.

        Args:
            embedding: from `encode`.
            prompts: points and boxes in pixels of the original image.
            multimask: three masks (whole, part, sub-part) for ambiguous prompts, else one.

        Returns:
            Masks at the image's original size; M is 3 or 1.

        Raises:
            PromptError: a mask prompt of the wrong size.
        """
        tokens = slice(1, None) if multimask else slice(0, 1)
        scored = self.score(embedding, prompts)
        logits = [
            self.draw(scored, slice(start, start + _PROMPTS_AT_ONCE))[:, tokens]
            for start in range(0, max(len(prompts), 1), _PROMPTS_AT_ONCE)
        ]
        masks = [upsample_masks(drawn, embedding.frame) for drawn in logits]
        return MaskPrediction(_joined(masks), scored.iou_N4[:, tokens], _joined(logits))

    @torch.inference_mode()
    def score(self, embedding: ImageEmbedding, prompts: Prompts) -> ScoredPrompts:
        """Run the cheap half of decoding: tokens and float32 predicted IoUs of N prompts."""
        prepared = to_input_frame(prompts, embedding.frame, self.device)
        return self.score_input(embedding.features, prepared, embedding.frame.padded_size)

    @torch.inference_mode()
    def draw(self, scored: ScoredPrompts, chosen: Tensor | slice = slice(None)) -> Tensor:
        """Run the other half for the chosen prompts: float32 logits (chosen, 4, h, w)."""
        return self.mask_decoder.draw(scored, chosen).float()

    def score_input(
        self, features: ImageFeatures, prompts: InputPrompts, padded_size: tuple[int, int]
    ) -> ScoredPrompts:
        """Score prompts given in the input frame; differentiable.

        Args:
            features: of one image for all prompts, or of several with an owner for each prompt.
            prompts: N prompts in pixels of the padded input.
            padded_size: (height, width) of the padded input.
        """
        expected = tuple(side // LOW_RES_STRIDE for side in padded_size)
        given = prompts.mask_logits_N1hw
        if given is not None and tuple(given.shape[-2:]) != expected:
            raise PromptError(f"mask_logits must be (N, 1, {expected}); got {tuple(given.shape)}")
        encoded = self.prompt_encoder(prompts, features, padded_size)
        scored: ScoredPrompts = self.mask_decoder.score(
            features, self._positions(features), encoded
        )
        iou_N4 = scored.iou_N4.float()
        return ScoredPrompts(
            iou_N4=iou_N4.sigmoid() if self.config.iou_sigmoid else iou_N4,
            mask_tokens_N4C=scored.mask_tokens_N4C,
            image_NCHW=scored.image_NCHW,
            features=scored.features,
            guidance_NGhw=scored.guidance_NGhw,
        )

    def _positions(self, features: ImageFeatures) -> Tensor:
        """Return the image tokens' positions, kept for the next prompt while nothing learns."""
        positions_1CHW = features.ground.positions_1CHW
        if positions_1CHW is None or torch.is_grad_enabled():
            grid = features.coarse_BCHW.shape[-2:]
            positions_1CHW = self.prompt_encoder.image_positions(*grid)
            if not torch.is_grad_enabled():
                features.ground.positions_1CHW = positions_1CHW
        return positions_1CHW

    def frame(self, original_size: tuple[int, ...]) -> Frame:
        """Return how an image of (height, width) is laid into this model's input."""
        height, width = original_size
        return input_frame((height, width), self.config.image_size, self.config.pad_multiple)

    def model_id(self) -> str:
        """Name the exact weights and precision: ``<name>-<12 hex digits>``."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().view(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        return f"{self.config.name}-{digest.hexdigest()[:12]}"


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
