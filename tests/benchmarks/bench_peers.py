"""Ours beside its peers: the same weights, image and settings, in one run.

    python -m tests.benchmarks.bench_peers --segment-anything PATH --segment-anything-fast PATH
    python -m tests.benchmarks.bench_peers --checkpoint sam_vit_b.pth --image photo.jpg ...
    python -m tests.benchmarks.bench_peers --points-per-side 8 --rounds 2    # a quick look

Every side runs in a process of its own (see `peers`), rounds are interleaved, and the table has the
medians. PATHs are checkouts of the public code, whose masks ours are held against one by one.

Floats are added in another order than in the public code, so a pixel on the edge may flip here and
there; `--sides ours public float64` tells who is nearer to the public code in float64.

Without a checkpoint the weights are random and plausible (see `plausible_weights`): 82 % of the
prompts keep a mask after the predicted-IoU filter and three quarters of those masks are stable,
about as with real SAM on photos. Without an image it is a painted scene.

transformers differs from the public code in details, so its masks overlap rather than agree: it
rescales pixels to 0..1 before normalising, asks for stability above the threshold where the public
code asks for at least it, suppresses only across all crops, and has no removal of small regions.
segment-anything-fast, where it asks for several batches at once as its generator does, keeps all
four masks of a prompt, also the one for unambiguous prompts: it finds more.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from engine.automatic import AutomaticConfig
from engine.images import decode_image
from engine.masks import decode_mask, mask_iou
from model import SIZES, SamConfig, load_sam, save_sam
from tests.benchmarks.peers import (
    REST,
    SIDES,
    Answer,
    FoundMask,
    Job,
    painted,
    read_answer,
    shared_settings,
)
from tests.benchmarks.plausible_weights import plausible_sam

REFERENCES = ("float64", "public", "ours")  # the first at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How one side's masks compare with another's.

    Attributes:
        masks: number of each side's masks.
        same_place: masks equal in run-lengths and box to the other side's at the same place.
        same_anywhere: masks whose run-lengths the other side has too.
        covered: masks with an IoU of 0.9 or more with one of the other side's.
        flipped_pixels: in which masks differ from the most similar ones of the other side, added
            up.
        score_difference: largest difference of predicted IoU or stability at the same place.
    """

    masks: tuple[int, int]
    same_place: int
    same_anywhere: int
    covered: int
    flipped_pixels: int
    score_difference: float

    def __str__(self) -> str:
        own, other = self.masks
        if own == other == self.same_place:
            return f"all {own} identical and in the same order, scores within {self.tolerance}"
        return (
            f"{self.same_anywhere} of {own} identical, {self.same_place} at the same place, the "
            f"others differ in {self.flipped_pixels} pixels; "
            f"{self.covered} of {own} found at IoU 0.9 among {other}"
        )

    @property
    def tolerance(self) -> str:
        """The largest difference of scores, in words."""
        return f"{self.score_difference:.0e}"


def agreement(found: Sequence[FoundMask], wanted: Sequence[FoundMask]) -> Agreement:
    """Hold one side's masks against another's."""
    pairs = list(zip(found, wanted, strict=False))
    same_place = sum(a.rle == b.rle and a.bbox_xywh == b.bbox_xywh for a, b in pairs)
    known = {m.rle.counts for m in wanted}
    iou_FW = mask_iou([m.rle for m in found], [m.rle for m in wanted])
    alike = [wanted[i] for i in iou_FW.argmax(axis=1)] if wanted else []
    flipped = sum(
        int(np.count_nonzero(decode_mask(a.rle) ^ decode_mask(b.rle)))
        for a, b in zip(found, alike, strict=False)
        if a.rle != b.rle
    )
    scores = [
        abs(x - y)
        for a, b in pairs
        for x, y in (
            (a.predicted_iou, b.predicted_iou),
            (a.stability_score, b.stability_score),
        )
        if x is not None and y is not None
    ]
    return Agreement(
        masks=(len(found), len(wanted)),
        same_place=same_place,
        same_anywhere=sum(m.rle.counts in known for m in found),
        covered=int((iou_FW.max(axis=1, initial=0) >= 0.9).sum()),
        flipped_pixels=flipped,
        score_difference=max(scores, default=0.0),
    )


def run_side(side: str, job: Job, folder: Path) -> Answer | str:
    """Answer the job in a new process; why not, where it fails."""
    job_file, answer_file = folder / "job.json", folder / f"{side}.json"
    job_file.write_text(json.dumps(asdict(job)))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.benchmarks.peers"),
            *(side, str(job_file), str(answer_file)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    return read_answer(answer_file)


def compare(
    job: Job, sides: Sequence[str], rounds: int, folder: Path
) -> tuple[dict[str, list[Answer]], dict[str, str]]:
    """Run all sides in turn, round after round; return answers, and reasons where there is none."""
    answers: dict[str, list[Answer]] = {side: [] for side in sides}
    reasons: dict[str, str] = {}
    for i in range(rounds):
        for side in sides:
            if side in reasons:
                continue
            given = run_side(side, job, folder)
            if isinstance(given, str):
                reasons[side] = given
                print(f"round {i + 1}: {side} did not run: {given}", file=sys.stderr, flush=True)
            else:
                answers[side].append(given)
                print(f"round {i + 1}: {side} {given.wall:.1f} s", file=sys.stderr, flush=True)
    return {side: given for side, given in answers.items() if given}, reasons


def table(answers: Mapping[str, Sequence[Answer]]) -> str:
    """Return the medians as a table for RESULTS.md."""
    reference = next(side for side in (*REFERENCES, *answers) if side in answers)
    lines = [
        "| side | wall, s | processor, s | encode / decode / rest, s | peak, GB "
        f"| masks beside those of {reference} |",
        "|---|---|---|---|---|---|",
    ]
    for side, given in answers.items():
        parts = " / ".join(
            f"{median(a.stages[stage].wall for a in given):.1f}"
            for stage in ("encode", "decode", REST)
        )
        beside = "" if side == reference else agreement(given[0].masks, answers[reference][0].masks)
        lines.append(
            f"| {side} | {median(a.wall for a in given):.1f} "
            f"| {median(a.processor for a in given):.1f} | {parts} "
            f"| {median(a.peak_bytes for a in given) / 1e9:.2f} | {beside} |"
        )
    return "\n".join(lines)


def ratios(answers: Mapping[str, Sequence[Answer]]) -> list[str]:
    """Say how many times ours each peer takes."""
    own = answers.get("ours", ())
    said = []
    for side, given in answers.items():
        if side == "ours" or not own:
            continue
        rounds = list(zip(given, own, strict=False))
        wall, processor, memory = (
            median(getattr(a, what) / getattr(b, what) for a, b in rounds)
            for what in ("wall", "processor", "peak_bytes")
        )
        said.append(
            f"{side} takes {wall:.2f} times our wall time, {processor:.2f} times our processor "
            f"time and {memory:.2f} times our memory"
        )
    return said


def make_job(arguments: argparse.Namespace, folder: Path) -> Job:
    """Write weights and image, and say on standard output what they are."""
    image_HWC3 = the_image(arguments)
    np.save(folder / "image.npy", image_HWC3)
    weights = folder / "weights.safetensors"
    if arguments.checkpoint is None:
        sam, rates = plausible_sam(sizes(arguments.model), image_HWC3)
        origin = (
            f"random plausible weights: of {64} prompts {rates.prompts:.0%} keep a mask, "
            f"{rates.masks:.0%} of all masks; {rates.stable:.0%} of those are stable"
        )
    else:
        sam, origin = load_sam(arguments.checkpoint, device="cpu"), arguments.checkpoint.name
    save_sam(sam, weights)
    config = AutomaticConfig(
        points_per_side=arguments.points_per_side,
        crop_n_layers=arguments.crop_n_layers,
        crop_n_points_downscale_factor=arguments.crop_n_points_downscale_factor,
        min_mask_region_area=arguments.min_mask_region_area,
    )
    height, width = image_HWC3.shape[:2]
    print(
        f"{sam.config.name}, {width}x{height}, {arguments.points_per_side}^2 points, "
        f"{arguments.crop_n_layers} crop layers; {origin}\n"
        f"torch {torch.__version__}, {arguments.threads} threads, {platform.machine()}; "
        f"{arguments.rounds} rounds"
    )
    checkouts = {"public": arguments.segment_anything, "fast": arguments.segment_anything_fast}
    return Job(
        weights=str(weights),
        image=str(folder / "image.npy"),
        settings=shared_settings(config),
        threads=arguments.threads,
        checkouts={side: str(path) for side, path in checkouts.items() if path is not None},
    )


def the_image(arguments: argparse.Namespace) -> NDArray[np.uint8]:
    """Read the photo, or paint a scene of the size asked for."""
    if arguments.image is not None:
        return decode_image(arguments.image.read_bytes())
    return painted(arguments.height, arguments.width)


def sizes(name: str) -> SamConfig:
    """Return a named size of SAM's own."""
    if name not in ("vit_b", "vit_l", "vit_h"):
        raise SystemExit(f"--model {name}: the peers have vit_b, vit_l and vit_h")
    return SIZES[name]


def main() -> None:
    """Print a table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_b")
    parser.add_argument("--checkpoint", type=Path, help="real weights, instead of random ones")
    parser.add_argument("--image", type=Path, help="a photo, instead of a painted scene")
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--width", type=int, default=2250)
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--crop-n-layers", type=int, default=0)
    parser.add_argument("--crop-n-points-downscale-factor", type=int, default=1)
    parser.add_argument("--min-mask-region-area", type=int, default=0)
    parser.add_argument("--segment-anything", type=Path, help="a checkout of the public code")
    parser.add_argument("--segment-anything-fast", type=Path, help="a checkout")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), help="default: all at hand")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        job = make_job(arguments, Path(name))
        at_hand = [side for side in SIDES if side in (*job.checkouts, "ours", "transformers")]
        answers, reasons = compare(job, arguments.sides or at_hand, arguments.rounds, Path(name))
    print(table(answers))
    if "ours" in answers and "public" in answers:
        agreed = agreement(answers["ours"][0].masks, answers["public"][0].masks)
        print(f"ours beside public: {agreed}")
    for line in ratios(answers):
        print(line)
    for side, reason in reasons.items():
        print(f"{side} did not run: {reason}")


if __name__ == "__main__":
    main()
