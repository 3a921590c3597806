"""What SAM's mask decoder costs in torch, folded and plain, prompt by prompt.

    python -m tests.benchmarks.bench_sam_decoder
    python -m tests.benchmarks.bench_sam_decoder --model bundled --threads 2 --rounds 5

`plain` is the decoder as the paper draws it (`tests/model/plain_decoder.py`): every prompt has its
own copy of the image, and every image token is projected, as in the public code. It gets all
prompts at once, ours comes in the groups that the automatic stage makes. Random weights: no work
depends on them. Both sides take turns; times are CPU milliseconds per prompt, the best of the
rounds, so that the ratios hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model import SIZES
from model.host_memory import keep_freed_memory
from model.mask_decoder import MaskDecoder
from model.prompt_groups import prompt_groups
from model.types import EncodedPrompts, ImageFeatures
from tests.model.plain_decoder import plain_draw, plain_score


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An image and what is asked of it, in shapes of the automatic stage."""

    features: ImageFeatures
    positions_1CHW: Tensor
    prompts: EncodedPrompts

    def part(self, rows: slice | Tensor) -> Question:
        """Return some of the prompts."""
        dense = self.prompts.dense_NCHW
        some = EncodedPrompts(
            self.prompts.sparse_NTC[rows], dense if len(dense) == 1 else dense[rows]
        )
        return replace(self, prompts=some)


def main() -> None:
    """Print a row for scoring, one for drawing and one for both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["vit_b", "bundled"], default="vit_b")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.inference_mode():
        measure(arguments.model, arguments.prompts, arguments.rounds)


def measure(model: str, prompts: int, rounds: int) -> None:
    """Let both decoders answer in turns.

    The bundled model's own drawing, which has guidance maps, is not SAM's: its shapes are drawn
    here as SAM would.
    """
    config = SIZES[model]
    decoder = MaskDecoder(config.dim, heads=config.decoder_heads, mlp_dim=config.decoder_mlp_dim)
    decoder.eval().requires_grad_(False)
    question = ask(config.dim, (64, 64) if model == "vit_b" else (24, 32), prompts, model)
    keep_freed_memory()
    taken: dict[str, list[float]] = {}
    for _ in range(rounds + 1):
        for name, side in (("plain", _plain), ("folded", _folded)):
            times = side(decoder, question)
            for stage, seconds in times.items():
                taken.setdefault(f"{name} {stage}", []).append(1e3 * seconds / prompts)
    best = {name: min(times[1:]) for name, times in taken.items()}
    for stage in ("score", "draw"):
        plain, folded = best[f"plain {stage}"], best[f"folded {stage}"]
        print(row(f"{model} {stage}", plain, folded))
    totals = [sum(best[f"{side} {stage}"] for stage in ("score", "draw")) for side in SIDES]
    print(row(f"{model} both", *totals))


SIDES = ("plain", "folded")


def row(name: str, plain_ms: float, folded_ms: float) -> str:
    """Lay out one line of the table."""
    ratio = plain_ms / folded_ms
    return f"| {name} | plain {plain_ms:.2f} ms | folded {folded_ms:.2f} ms | {ratio:.1f}x |"


def ask(dim: int, grid: tuple[int, int], prompts: int, model: str) -> Question:
    """Draw features and prompts: a click and its padding; the bundled model has maps for each."""
    dense = torch.randn(1 if model == "vit_b" else prompts, dim, *grid)
    features = ImageFeatures(_channels_last(torch.randn(1, dim, *grid)))
    encoded = EncodedPrompts(torch.randn(prompts, 2, dim), _channels_last(dense))
    return Question(
        features=features,
        positions_1CHW=_channels_last(torch.randn(1, dim, *grid)),
        prompts=encoded,
    )


def _folded(decoder: MaskDecoder, question: Question) -> dict[str, float]:
    tokens = question.features.coarse_BCHW
    groups = list(prompt_groups(slice(None), len(question.prompts.sparse_NTC), tokens))

    def run(timed: Callable[[str], None]) -> None:
        for rows in groups:
            asked = question.part(rows)
            scored = decoder.score(asked.features, asked.positions_1CHW, asked.prompts)
            timed("score")
            decoder.draw(scored)
            timed("draw")

    return _timed(run)


def _plain(decoder: MaskDecoder, question: Question) -> dict[str, float]:
    def run(timed: Callable[[str], None]) -> None:
        _, tokens, image = plain_score(
            decoder, question.features, question.positions_1CHW, question.prompts
        )
        timed("score")
        plain_draw(decoder, tokens, image)
        timed("draw")

    return _timed(run)


def _timed(run: Callable[[Callable[[str], None]], None]) -> dict[str, float]:
    """Add up the processor time of stages; each ends with a call of what `run` is given."""
    taken = {"score": 0.0, "draw": 0.0}
    before = time.process_time()

    def timed(stage: str) -> None:
        nonlocal before
        now = time.process_time()
        taken[stage] += now - before
        before = now

    run(timed)
    return taken


def _channels_last(maps: Tensor) -> Tensor:
    return maps.contiguous(memory_format=torch.channels_last)


if __name__ == "__main__":
    main()
