"""The box proposer: a one-class detector on top of the promptable model's own features.

    proposer = load_proposer(workspace.store, version, sam)
    boxes_N4, scores_N = proposer.boxes(image_HWC3)

The paper's semi-automatic stage proposes boxes by a detector of one class, "object", trained on the
masks of the first stage; the boxes then prompt the model. Here the detector is RT-DETR (arXiv
2304.08069) as the library transformers maintains it: its encoder, queries, decoder, matching and
losses. Its backbone is the promptable model's image encoder, frozen: features that know outlines
already need far fewer labels than a backbone that starts from chance, and only two million weights
are trained and kept. So a proposer belongs to one model version.

Every image is laid into a square, as in training, because RT-DETR's boxes and anchors count in
shares of its input.

Shapes: B images, S side of the input, h w its sixteenth, C channels, N boxes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.errors import BadInputError
from model import Sam
from model.preprocess import input_frame, preprocess
from model.types import ImageFeatures

if TYPE_CHECKING:
    from transformers import RTDetrForObjectDetection

__all__ = [
    "BoxProposer",
    "Proposer",
    "ProposerConfig",
    "build_detector",
    "feature_channels",
    "packed_features",
    "square_features",
]

_STRIDES = (8, 16, 32)
_PLACEHOLDER_WIDTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposerConfig:
    """Sizes of the detector.

    Attributes:
        side_px: of the square that it sees, a multiple of 32; None: the model's own input size, the
            only one that SAM's ViT takes.
        width: channels of its encoder and decoder, a multiple of 8 times `heads`.
        feed_forward: channels inside their feed-forward blocks.
        heads: of attention.
        decoder_layers: each moves the boxes once more.
        queries: boxes that it gives for every image.
        denoising: noisy true boxes that it learns to repair beside, in training.
    """

    side_px: int | None = None
    width: int = 128
    feed_forward: int = 512
    heads: int = 4
    decoder_layers: int = 3
    queries: int = 100
    denoising: int = 60

    def __post_init__(self) -> None:
        sizes = {name: size for name, size in asdict(self).items() if size is not None}
        if min(sizes.values()) < 1 or self.width % (8 * self.heads):
            raise BadInputError(
                "a proposer needs sizes of at least 1 and a width that 8 x heads divides; got "
                f"{sizes}"
            )

    def side(self, sam: Sam) -> int:
        """Return the side of the square in pixels.

        Raises:
            BadInputError: a side that the model cannot take.
        """
        own, multiple = sam.config.image_size, sam.config.pad_multiple
        side = own if self.side_px is None else self.side_px
        if side % multiple or side < 2 * _STRIDES[-1]:
            raise BadInputError(
                f"{sam.config.name} takes squares whose side is a multiple of {multiple}, at least "
                f"{2 * _STRIDES[-1]}; got {side}"
            )
        return side

    def to_json(self) -> str:
        """Return the sizes as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))


class BoxProposer(Protocol):
    """Whatever finds boxes of objects; `Proposer` is one."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def boxes(
        self, image_HWC3: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return boxes (N, 4) XYXY in pixels of the image and scores (N,), the best first."""
        ...


class Proposer:
    """A trained detector with the model whose features it reads.

    Attributes:
        name: of its version, for records.
    """

    def __init__(
        self,
        detector: RTDetrForObjectDetection,
        sam: Sam,
        config: ProposerConfig,
        name: str = "proposer",
    ) -> None:
        self.name = name
        self._side = config.side(sam)
        self._detector = detector.to(sam.device).eval()
        self._sam = sam

    @torch.inference_mode()
    def boxes(
        self, image_HWC3: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Find objects in an RGB image.

        Returns:
            Boxes (N, 4) XYXY in pixels of the image, cut to it, and scores (N,) from 0 to 1, the
            best first; N is the number of queries.
        """
        sam, side = self._sam, self._side
        height, width = image_HWC3.shape[:2]
        frame = input_frame((height, width), side, side)
        pixels = preprocess(image_HWC3, frame, sam.device)
        answer = self._detector(pixel_values=square_features(sam, pixels[None]))
        scores_N = answer.logits[0, :, 0].float().sigmoid().cpu().numpy()
        shares_N4 = answer.pred_boxes[0].double().cpu().numpy()
        inner_height, inner_width = frame.input_size
        scale_xy = np.array([width / inner_width, height / inner_height]) * side
        centres_N2, sizes_N2 = shares_N4[:, :2] * scale_xy, shares_N4[:, 2:] * scale_xy
        boxes_N4 = np.concatenate([centres_N2 - sizes_N2 / 2, centres_N2 + sizes_N2 / 2], axis=1)
        boxes_N4 = np.clip(boxes_N4, 0, np.array([width, height, width, height]))
        order = np.argsort(-scores_N, kind="stable")
        return boxes_N4[order], scores_N[order]


def build_detector(config: ProposerConfig, channels: Sequence[int]) -> RTDetrForObjectDetection:
    """Make an untrained detector; torch's global generator decides its weights.

    Args:
        config: its sizes.
        channels: of the features at strides 8, 16 and 32, see `feature_channels`.

    Raises:
        BadInputError: the library transformers is not installed.
    """
    try:
        from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig
    except ImportError as error:
        raise BadInputError(
            f"the box proposer needs the library transformers ({error}): "
            "pip install 'maskwheel[proposer]'"
        ) from error
    # transformers builds a backbone in any case; a thin one stands in until ours takes its place.
    stand_in = RTDetrResNetConfig(
        embedding_size=_PLACEHOLDER_WIDTH,
        hidden_sizes=[_PLACEHOLDER_WIDTH, *channels],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    detector = RTDetrForObjectDetection(
        RTDetrConfig(
            backbone_config=stand_in,
            num_labels=1,
            feat_strides=list(_STRIDES),
            encoder_in_channels=list(channels),
            encoder_hidden_dim=config.width,
            encoder_ffn_dim=config.feed_forward,
            encoder_attention_heads=config.heads,
            hidden_expansion=0.5,
            d_model=config.width,
            decoder_in_channels=[config.width] * len(_STRIDES),
            decoder_ffn_dim=config.feed_forward,
            decoder_attention_heads=config.heads,
            decoder_layers=config.decoder_layers,
            num_queries=config.queries,
            num_denoising=config.denoising,
            initializer_range=(3 * config.width) ** -0.5,
        )
    )
    detector.model.backbone = _FeatureLevels(channels)
    # The library draws these around 0, for weights that are loaded anyway; a detector that starts
    # from there hardly learns.
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return detector


class _FeatureLevels(nn.Module):
    """Stands where RT-DETR has its backbone: unpacks the frozen features; nothing to train.

    The middle level is the model's own; above and below it are its interpolation and its maxima, as
    in ViTDet's simple pyramid (arXiv 2203.16527).
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.intermediate_channel_sizes = list(channels)

    def forward(self, packed_BChw: Tensor, mask_Bhw: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (features, mask) at strides 8, 16 and 32; RT-DETR does not read the masks."""
        stride8, stride16, _ = self.intermediate_channel_sizes
        coarse, fine = packed_BChw[:, :stride16], packed_BChw[:, stride16:]
        above = F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        if stride8 > stride16:
            above = torch.cat([above, F.pixel_shuffle(fine, 2)], dim=1)
        return [(level, mask_Bhw) for level in (above, coarse, F.max_pool2d(coarse, 2))]


def feature_channels(sam: Sam) -> tuple[int, int, int]:
    """Return the channels that a model's features have at strides 8, 16 and 32."""
    dim = sam.config.dim
    if sam.config.pad_multiple == sam.config.image_size:  # a plain ViT has no finer features
        return dim, dim, dim
    side = sam.config.pad_multiple
    packed = square_features(sam, torch.zeros(1, 3, side, side, device=sam.device))
    return dim + (packed.shape[1] - dim) // 4, dim, dim


@torch.no_grad()
def square_features(sam: Sam, pixels_B3SS: Tensor) -> Tensor:
    """Encode normalised pixels and pack what the detector reads, see `packed_features`."""
    return packed_features(sam.image_encoder(pixels_B3SS.to(sam.dtype)))


def packed_features(features: ImageFeatures) -> Tensor:
    """Put the features at strides 16 and 8 into one map: (B, C, h, w) float32.

    What is at stride 8 lies behind the rest, folded to stride 16 (four channels for each). Folded
    and unfolded they keep every number, and the detector needs one tensor only.
    """
    coarse = features.coarse_BCHW
    double = tuple(2 * side for side in coarse.shape[-2:])
    fine = [level for level in features.fine_BCHW if level.shape[-2:] == double]
    folded = [F.pixel_unshuffle(torch.cat(fine, dim=1), 2)] if fine else []
    return torch.cat([coarse, *folded], dim=1).float()
