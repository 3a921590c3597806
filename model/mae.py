"""Pre-training of an image encoder on photos without masks: hide patches, predict their pixels.

    sam = pretrain(Sam(SIZES["vit_b"]), batches, MaeConfig(steps=20_000), Path("mae.pt"))
    start = init_encoder(another_sam, Path("mae.pt"))     # see model/encoder_start.py

The ViT follows MAE (arXiv 2111.06377) to the letter where that pays: hidden tokens are dropped, so
three quarters of the work are never done. Windowed attention does not stand in the way, because a
crop is exactly one window (14 x 14 tokens, 224 px: MAE's own size). In it windowed and global
attention are the same, and relative positions keep their meaning whichever tokens are missing; had
crops more windows, masked tokens would have to stay (SimMIM, arXiv 2111.09886) at almost four times
the cost. Positions are not learnt, as in MAE: sines where the encoder has none yet.

A convolutional encoder cannot drop patches: theirs are painted with a learnt colour (SimMIM), in
patches of its largest stride, and a light head at each pyramid level adds its share of the pixels.

Shapes: B images, L patches of an image, T visible ones, P = 3 x patch x patch pixel values.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.compact_encoder import FineFeatures
from model.image_encoder import Attention, Block, VitConfig, VitEncoder
from model.processes import Rows
from model.relative_attention import relative_positions
from model.sam import Sam, SamConfig
from model.step_loop import ImageBatches, OnLog, StepConfig, run_steps, to_pixels
from model.types import ImageFeatures

__all__ = ["MaeConfig", "crop_px", "masked_pixel_loss", "pretrain", "random_mask"]

COMPACT_PATCH_PX = 32
_DECODER_HEAD_DIM = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MaeConfig(StepConfig):
    """How to pre-train; see `StepConfig` for the steps themselves.

    Attributes:
        mask_ratio: share of patches that are hidden. SparK (arXiv 2301.03580) hides 0.6 from
            convolutional encoders.
        decoder_width: channels of the ViT's decoder, which is thrown away in the end.
        decoder_depth: its blocks. MAE has 8, but fine-tuned encoders are as good with one (its
            table 1a).
    """

    mask_ratio: float = 0.75
    decoder_width: int = 512
    decoder_depth: int = 2

    def __post_init__(self) -> None:
        StepConfig.__post_init__(self)  # super() does not survive slots=True
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio lies between 0 and 1; got {self.mask_ratio}")
        if self.decoder_width % _DECODER_HEAD_DIM or self.decoder_depth < 1:
            raise ValueError(
                f"decoder_width is a multiple of {_DECODER_HEAD_DIM} and decoder_depth at least 1; "
                f"got {self.decoder_width} and {self.decoder_depth}"
            )


def pretrain(
    sam: Sam,
    batches: ImageBatches,
    config: MaeConfig,
    checkpoint: Path,
    on_log: OnLog | None = None,
) -> Sam:
    """Pre-train `sam.image_encoder` in place; continues from `checkpoint` where it exists.

    Prompt encoder, mask decoder and the ViT's neck stay as they are.

    Args:
        sam: owner of the encoder.
        batches: called with the step to start from, yields (B, H, W, 3) uint8 RGB crops without
            end, H = W = `crop_px`.
        config: the recipe.
        checkpoint: file that holds encoder, decoder, optimiser and step; `init_encoder` reads it.
        on_log: called with the step and its mean losses. Predicting each patch's mean colour
            scores 1.

    Returns:
        `sam`, in inference mode.

    Raises:
        CheckpointError: a checkpoint of another run.
        ValueError: images of another shape.
    """
    learner = reconstructor(sam, config).train()

    def losses_of(images_BHW3: Tensor, rows: Rows, generator: torch.Generator) -> dict[str, Tensor]:
        pixels_B3HW = to_pixels(images_BHW3)
        patches = learner.patch_count(pixels_B3HW)
        hidden_BL = rows.of(random_mask(rows.total, patches, config.mask_ratio, generator))
        predicted_BLP = learner(pixels_B3HW, hidden_BL)
        return {"total": masked_pixel_loss(predicted_BLP, pixels_B3HW, hidden_BL)}

    run_steps(learner, losses_of, batches, config, checkpoint, on_log)
    return sam.eval()


def crop_px(config: SamConfig) -> int:
    """Side of the crops to pre-train on: one window of a ViT, else half the model's long side."""
    encoder = config.encoder
    if isinstance(encoder, VitConfig):
        return _window_grid(encoder, config.image_size) * encoder.patch_size
    return max(2, config.image_size // 2 // COMPACT_PATCH_PX) * COMPACT_PATCH_PX


def random_mask(batch: int, patches: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Choose the patches to hide, as many in every image: (batch, patches) bool."""
    hidden = min(max(round(patches * ratio), 1), patches - 1)
    noise = torch.rand(batch, patches, generator=generator, device=generator.device)
    return noise.argsort(1).argsort(1) < hidden


def masked_pixel_loss(predicted_BLP: Tensor, pixels_B3HW: Tensor, hidden_BL: Tensor) -> Tensor:
    """Mean squared error on hidden patches, whose pixels are normalised patch by patch.

    Args:
        predicted_BLP: in the layout of `to_patches`.
        pixels_B3HW: the images.
        hidden_BL: which patches count.
    """
    patch_px = int((predicted_BLP.shape[2] // 3) ** 0.5)
    wanted_BLP = to_patches(pixels_B3HW, patch_px)
    variance, mean = torch.var_mean(wanted_BLP, dim=2, keepdim=True)
    wanted_BLP = (wanted_BLP - mean) / (variance + 1e-6).sqrt()
    error_BL = (predicted_BLP.float() - wanted_BLP).square().mean(2)
    return (error_BL * hidden_BL).sum() / hidden_BL.sum()


def to_patches(pixels_B3HW: Tensor, patch_px: int) -> Tensor:
    """Cut images into patches in reading order: (B, L, P), P by channel, row and column."""
    return F.pixel_unshuffle(pixels_B3HW, patch_px).flatten(2).transpose(1, 2)


def reconstructor(sam: Sam, config: MaeConfig) -> VitReconstructor | CompactReconstructor:
    """Put a fresh decoder on the model's encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if isinstance(sam.image_encoder, VitEncoder):
            encoder_config = sam.config.encoder
            if not isinstance(encoder_config, VitConfig):
                raise ValueError(f"{sam.config.name} has a ViT but no configuration of one")
            grid = _window_grid(encoder_config, sam.config.image_size)
            vit = VitReconstructor(sam.image_encoder, grid, config)
            return vit.to(sam.device)
        return CompactReconstructor(sam.image_encoder).to(sam.device)


def _window_grid(encoder: VitConfig, image_size: int) -> int:
    return min(encoder.window_size, image_size // encoder.patch_size)


class VitReconstructor(nn.Module):
    """Encodes the visible patches of a crop of one window, predicts all patches."""

    decoder_positions_1LC: Tensor

    def __init__(self, encoder: VitEncoder, grid: int, config: MaeConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.grid = grid
        self.patch_px = encoder.patch_embed.proj.kernel_size[0]
        width, decoder_width = encoder.pos_embed.shape[-1], config.decoder_width
        if not encoder.pos_embed.any():
            with torch.no_grad():
                encoder.pos_embed.copy_(sine_positions(encoder.pos_embed.shape[1], grid, width))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.to_decoder = nn.Linear(width, decoder_width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(1, 1, decoder_width))
        positions = sine_positions(grid, grid, decoder_width).flatten(1, 2)
        self.register_buffer("decoder_positions_1LC", positions, persistent=False)
        self.decoder = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(
                    decoder_width,
                    decoder_width // _DECODER_HEAD_DIM,
                    dim_feedforward=4 * decoder_width,
                    dropout=0.0,
                    activation="gelu",
                    batch_first=True,
                    norm_first=True,
                )
                for _ in range(config.decoder_depth)
            ),
            nn.LayerNorm(decoder_width),
            nn.Linear(decoder_width, 3 * self.patch_px**2),
        )

    def patch_count(self, pixels_B3HW: Tensor) -> int:
        """Return L; raises ValueError for crops of another size than a window's."""
        side = self.grid * self.patch_px
        if tuple(pixels_B3HW.shape[-2:]) != (side, side):
            raise ValueError(
                f"this encoder is pre-trained on crops of one window, {side} x {side} px; got "
                f"{pixels_B3HW.shape[-2]} x {pixels_B3HW.shape[-1]}"
            )
        return self.grid**2

    def forward(self, pixels_B3HW: Tensor, hidden_BL: Tensor) -> Tensor:
        """Predict normalised pixels of every patch: (B, L, P)."""
        # Every image hides as many: the visible ones form a rectangle.
        visible_BT = (~hidden_BL).nonzero()[:, 1].view(len(hidden_BL), -1)
        seen_BTC = self.to_decoder(self.norm(self.encode_visible(pixels_B3HW, visible_BT)))
        tokens_BLC = self.mask_token.to(seen_BTC.dtype).expand(*hidden_BL.shape, -1)
        index = visible_BT.unsqueeze(-1).expand_as(seen_BTC)
        predicted: Tensor = self.decoder(
            tokens_BLC.scatter(1, index, seen_BTC) + self.decoder_positions_1LC
        )
        return predicted

    def encode_visible(self, pixels_B3HW: Tensor, visible_BT: Tensor) -> Tensor:
        """Run the encoder's blocks on some patches only: (B, T, C), before the neck."""
        encoder = self.encoder
        positions = resize_positions(encoder.pos_embed.detach(), self.grid)
        tokens_BLC = (encoder.patch_embed(pixels_B3HW) + positions).flatten(1, 2)
        x_BTC: Tensor = tokens_BLC.gather(
            1, visible_BT.unsqueeze(-1).expand(-1, -1, tokens_BLC.shape[-1])
        )
        for block in _blocks(encoder):
            x_BTC = x_BTC + self._attend(block, block.norm1(x_BTC), visible_BT)
            x_BTC = x_BTC + block.mlp(block.norm2(x_BTC))
        return x_BTC

    def _attend(self, block: Block, x_BTC: Tensor, visible_BT: Tensor) -> Tensor:
        """Attend as `Attention` does, with the relative positions of the tokens that are there."""
        attn: Attention = block.attn
        B, T, C = x_BTC.shape
        qkv = attn.qkv(x_BTC).view(B, T, 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
        q_BNTD, k_BNTD, v_BNTD = qkv.unbind(0)
        bias_BNTT: Tensor | float = 0.0
        for table, place_BT in (
            (attn.rel_pos_h, visible_BT // self.grid),
            (attn.rel_pos_w, visible_BT % self.grid),
        ):
            # A global block's table reaches farther than a crop shows. To learn only its middle
            # would tear it: it is used as it is.
            learnt = table if block.window_size else table.detach()
            offsets_GGD = relative_positions(_middle(learnt, 2 * self.grid - 1), self.grid)
            by_place = torch.einsum("bntd,btgd->bntg", q_BNTD, offsets_GGD[place_BT].to(q_BNTD))
            of_keys = place_BT[:, None, None, :].expand(-1, attn.heads, T, -1)
            bias_BNTT = bias_BNTT + by_place.gather(3, of_keys)
        attended = F.scaled_dot_product_attention(
            q_BNTD, k_BNTD, v_BNTD, attn_mask=torch.as_tensor(bias_BNTT)
        )
        out: Tensor = attn.proj(attended.transpose(1, 2).reshape(B, T, C))
        return out


class CompactReconstructor(nn.Module):
    """Paints the hidden patches over and predicts them from every level of the pyramid."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_colour = nn.Parameter(torch.zeros(3, 1, 1))
        probe = next(encoder.parameters()).new_zeros(
            1, 3, 2 * COMPACT_PATCH_PX, 2 * COMPACT_PATCH_PX
        )
        was_training = encoder.training
        with torch.no_grad():
            features = encoder.eval()(probe)
        encoder.train(was_training)
        self.heads = nn.ModuleList()
        for level_BCHW in _drawing_levels(features):
            width, stride = level_BCHW.shape[1], probe.shape[-1] // level_BCHW.shape[-1]
            self.heads.append(
                nn.Sequential(
                    nn.Conv2d(width, width, kernel_size=3, padding=1),
                    nn.GELU(),
                    nn.Conv2d(width, 3 * stride**2, kernel_size=1),
                    nn.PixelShuffle(stride),
                )
            )

    def patch_count(self, pixels_B3HW: Tensor) -> int:
        """Return L; raises ValueError for sides that patches do not fill."""
        height, width = pixels_B3HW.shape[-2:]
        if height % COMPACT_PATCH_PX or width % COMPACT_PATCH_PX:
            raise ValueError(
                f"crops have sides that are multiples of {COMPACT_PATCH_PX} px; got "
                f"{height} x {width}"
            )
        return int(height // COMPACT_PATCH_PX * width // COMPACT_PATCH_PX)

    def forward(self, pixels_B3HW: Tensor, hidden_BL: Tensor) -> Tensor:
        """Predict normalised pixels of every patch: (B, L, P)."""
        grid = tuple(side // COMPACT_PATCH_PX for side in pixels_B3HW.shape[-2:])
        hidden_B1HW = F.interpolate(
            hidden_BL.view(-1, 1, *grid).float(), scale_factor=float(COMPACT_PATCH_PX)
        )
        painted = torch.where(hidden_B1HW > 0, self.mask_colour, pixels_B3HW)
        levels = _drawing_levels(self.encoder(painted))
        drawn = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        return to_patches(torch.stack(drawn).sum(0), COMPACT_PATCH_PX)


def _drawing_levels(features: ImageFeatures) -> tuple[Tensor, ...]:
    """Strides 16, 8 and 4 as masks are drawn on; what tells pixels apart starts fresh."""
    fine = FineFeatures(*features.fine_BCHW)
    return features.coarse_BCHW, fine.canvas8_BCHW, fine.canvas4_BCHW


def _blocks(encoder: VitEncoder) -> Iterator[Block]:
    for block in encoder.blocks:
        if isinstance(block, Block):
            yield block


def _middle(table: Tensor, length: int) -> Tensor:
    start = (len(table) - length) // 2
    return table[start : start + length]


def resize_positions(positions_1HWC: Tensor, grid: int) -> Tensor:
    """Resize absolute positions to grid x grid tokens (bicubic, as MAE and ViTDet do)."""
    if tuple(positions_1HWC.shape[1:3]) == (grid, grid):
        return positions_1HWC
    planes = positions_1HWC.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, (grid, grid), mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).to(positions_1HWC.dtype)


def sine_positions(grid: int, span: int, width: int) -> Tensor:
    """MAE's fixed positions for a grid that stretches over `span` patches: (1, grid, grid, width).

    With a span below the grid these are the positions of a span x span grid, resized.
    """
    if width % 4:
        raise ValueError(f"positions need a width that is a multiple of 4; got {width}")
    frequency = 10_000.0 ** -(torch.arange(width // 4) / (width // 4))
    place = (torch.arange(grid) + 0.5) * span / grid - 0.5
    angle = place[:, None] * frequency
    waves = torch.cat([angle.sin(), angle.cos()], dim=1)
    by_column = waves[None, :, :].expand(grid, grid, -1)
    by_row = waves[:, None, :].expand(grid, grid, -1)
    return torch.cat([by_column, by_row], dim=2).unsqueeze(0)
