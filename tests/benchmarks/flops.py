"""How many FLOPs SAM needs, 2 for each multiplication with its addition.

    python -m tests.benchmarks.flops

The encoder is counted as it runs here: windows' overhang asks no queries, and its keys and values
are a bias. The decoder is counted as published, every prompt by itself, so that a decoder that
shares and folds its products is compared with the same work as one that does not. Only products of
matrices count; norms, softmax and activations do not. `test_flops` compares with torch's counter.
"""

from __future__ import annotations

from model import SIZES
from model.image_encoder import VitConfig
from model.mask_decoder import MASK_TOKENS

_IOU_TOKENS = 1
_POINT_TOKENS = 2  # a point, and the one that says there is no box


def encoder_flops(config: VitConfig, image_size: int = 1024, out_dim: int = 256) -> int:
    """Count one image of `image_size` pixels squared."""
    side = image_size // config.patch_size
    tokens, width = side**2, config.width
    patches = tokens * 3 * config.patch_size**2 * width
    neck = tokens * (width * out_dim + 9 * out_dim**2)
    blocks = 0
    for block in range(config.depth):
        key_side = side if block in config.global_blocks else config.window_size
        scores_and_values = 2 * tokens * key_side**2 * width
        positions = 2 * tokens * key_side * width
        blocks += 12 * tokens * width**2 + scores_and_values + positions
    return 2 * (patches + blocks + neck)


def decoder_flops(
    prompts: int,
    *,
    image_tokens: int = 4096,
    dim: int = 256,
    depth: int = 2,
    mlp_dim: int = 2048,
    prompt_tokens: int = _POINT_TOKENS,
) -> int:
    """Count `prompts` prompts on one image, each with all its masks drawn."""
    T, P, C = _IOU_TOKENS + MASK_TOKENS + prompt_tokens, image_tokens, dim
    inner = C // 2
    across = (2 * T + 2 * P) * C * inner + 2 * T * P * inner
    layer = 4 * T * C**2 + 2 * T**2 * C + 2 * across + 2 * T * C * mlp_dim
    upscaling = P * C * (C // 4) * 4 + 4 * P * (C // 4) * (C // 8) * 4
    brushes = MASK_TOKENS * (2 * C**2 + C * (C // 8))
    painting = MASK_TOKENS * (C // 8) * 16 * P
    scores = 2 * C**2 + C * MASK_TOKENS
    return 2 * prompts * (depth * layer + across + upscaling + brushes + painting + scores)


def main() -> None:
    """Print the sizes of the paper."""
    print("| model | encoder TFLOP | decoder, 64 prompts, TFLOP |")
    print("|---|---|---|")
    for name in ("vit_b", "vit_l", "vit_h"):
        encoder = SIZES[name].encoder
        if isinstance(encoder, VitConfig):
            print(
                f"| {name} | {encoder_flops(encoder) / 1e12:.2f} | {decoder_flops(64) / 1e12:.2f} |"
            )


if __name__ == "__main__":
    main()
