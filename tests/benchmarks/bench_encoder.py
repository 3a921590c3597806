"""The image encoder against the public one: same weights, same pixels, turn by turn.

    python -m tests.benchmarks.bench_encoder --segment-anything PATH [--threads 2] [--depth 3]

Random weights: an encoder's time does not depend on them. `--depth 3` takes two windowed blocks and
a global one, a quarter of vit_b. Without a checkout our side runs alone. Peak memory is that of the
process after our side has run and before the public one is imported, weights included.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from model import SIZES
from model.image_encoder import VitConfig, VitEncoder
from tests.benchmarks.flops import encoder_flops


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("vit_b", "vit_l", "vit_h"), default="vit_b")
    parser.add_argument("--depth", type=int, help="so many blocks only; the last one is global")
    parser.add_argument("--segment-anything", type=Path, help="a checkout of the public code")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = _config(arguments.model, arguments.depth)
    ours = _drawn(VitEncoder(config, 1024, 256))
    pixels = torch.randn(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = ours(pixels).coarse_BCHW
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sides: dict[str, Callable[[], Tensor]] = {"ours": lambda: ours(pixels).coarse_BCHW}
        error = float("nan")
        if arguments.segment_anything:
            public = _public(arguments.segment_anything, config)
            public.load_state_dict(ours.state_dict())
            error = _relative_error(wanted, public(pixels))
            sides["public"] = lambda: public(pixels)
        seconds = _in_turns(sides, arguments.rounds)
    own, gigaflops = seconds["ours"], encoder_flops(config) / 1e9
    theirs = seconds.get("public", float("nan"))
    weights_mb = sum(p.numel() for p in ours.parameters()) * 4 / 2**20
    print("| encoder | threads | public s | ours s | ratio | GFLOP/s | rel. error | peak MB |")
    print("|---|---|---|---|---|---|---|---|")
    print(
        f"| {arguments.model}, {config.depth} blocks | {arguments.threads} | {theirs:.2f} "
        f"| {own:.2f} | {theirs / own:.2f}x | {gigaflops / own:.0f} | {error:.0e} "
        f"| {peak_mb:.0f}, weights {weights_mb:.0f} |"
    )


def _config(name: str, depth: int | None) -> VitConfig:
    config = SIZES[name].encoder
    if not isinstance(config, VitConfig):
        raise TypeError(f"{name} has no ViT")
    return config if depth is None else replace(config, depth=depth, global_blocks=(depth - 1,))


def _drawn(encoder: VitEncoder) -> VitEncoder:
    generator = torch.Generator().manual_seed(0)
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02, generator=generator)
    return encoder.eval()


def _public(checkout: Path, config: VitConfig) -> nn.Module:
    """Import the encoder's module alone: the package would ask for torchvision."""
    package = ModuleType("public_modeling")
    package.__path__ = [str(checkout / "segment_anything" / "modeling")]
    sys.modules[package.__name__] = package
    encoder: nn.Module = importlib.import_module("public_modeling.image_encoder").ImageEncoderViT(
        img_size=1024,
        depth=config.depth,
        embed_dim=config.width,
        num_heads=config.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        global_attn_indexes=config.global_blocks,
        window_size=config.window_size,
    )
    return encoder.eval()


def _relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max())


def _in_turns(sides: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Return the fastest time of each; on one thread that of the processor, free of neighbours."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            began = clock()
            run()
            spent[name].append(clock() - began)
    return {name: min(times) for name, times in spent.items()}


if __name__ == "__main__":
    main()
