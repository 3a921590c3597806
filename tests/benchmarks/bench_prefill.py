"""Are proposals right, and does the order of images help? On held-out photos with human masks.

.venv/bin/python -m tests.benchmarks.bench_prefill --data ../shared/data --photos 40
.venv/bin/python -m tests.benchmarks.bench_prefill --data ../shared/data --proposer p.safetensors

Photos: BSDS val, evenly spaced, which several people labelled whole, so that a mask of none of them
is a wrong one. A proposal is right at an IoU of .75 or .90 with anybody's mask; recall counts the
masks that two or more people drew, at .75.

The order is held against what it is to find: photos on which the model's answer to one click (on
masks that two or more people drew) is poor. Columns: Spearman's rank correlation of a strategy's
places with the photos' true mean IoU, and that IoU in the first and the last quarter of the order.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from engine.annotation.box_masks import DetectorBoxes
from engine.annotation.coverage import GridPrompts, ImageSignals, measure_image
from engine.annotation.ordering import OrderingConfig, Strategy, arranged
from engine.annotation.prefill import (
    AutomaticMasks,
    Candidate,
    PrefillConfig,
    ProposalSource,
    select_proposals,
)
from engine.annotation.steadiness import mirrored_agreement
from engine.dataset.labelled_sets import CocoMasks, LabelledImage
from engine.evaluation.labelled import Selection, chosen_images
from engine.evaluation.points import PromptConfig, score_model
from engine.learning.bundled import validation_sources
from engine.learning.proposer_file import read_proposer
from engine.masks import mask_iou
from model import Sam, build_sam, load_sam

STRICTNESS = (0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
AGREEMENT = 0.9
ALL_SIGNALS = ("uncertain", "uncovered", "disagreement", "diverse")
ONE_CLICK = PromptConfig(max_clicks=1, report_at=(1,), selection=Selection(masks_per_image=20))


@dataclass(frozen=True, eq=False)
class Photo:
    """Candidates of one photo: IoU with everybody's masks, and with the mirrored answer."""

    candidates: tuple[Candidate, ...]
    agreement_N: NDArray[np.float64]
    iou_NG: NDArray[np.float64]
    agreed_G: NDArray[np.bool_]


def looked_at(sam: Sam, image: LabelledImage, source: ProposalSource) -> Photo:
    pixels = image.read()
    found = tuple(source.candidates(sam, pixels))
    people = [mask for mask in image.masks if mask.area > 0]
    return Photo(
        found,
        mirrored_agreement(sam, pixels, found),
        mask_iou([one.rle for one in found], [mask.rle for mask in people]),
        np.array([mask.votes >= 2 for mask in people]),
    )


def figures(photos: Sequence[Photo], config: PrefillConfig) -> tuple[float, ...]:
    """Return proposals a photo, share right at .75 and at .90, recall."""
    right: list[float] = []
    recalled: list[bool] = []
    for photo in photos:
        steady = np.flatnonzero(photo.agreement_N >= config.min_agreement)
        place = {id(photo.candidates[i]): i for i in steady.tolist()}
        chosen = select_proposals([photo.candidates[i] for i in steady.tolist()], config)
        rows = photo.iou_NG[[place[id(one)] for one in chosen]]
        right += rows.max(axis=1).tolist() if len(rows) else []
        found_G = np.any(rows >= 0.75, axis=0)
        recalled += found_G[photo.agreed_G].tolist()
    best = np.array(right)
    if not len(best):
        return 0.0, float("nan"), float("nan"), 0.0
    count = len(best) / len(photos)
    return count, (best >= 0.75).mean(), (best >= 0.9).mean(), float(np.mean(recalled))


def proposals_table(sam: Sam, images: Sequence[LabelledImage], source: ProposalSource) -> None:
    photos = []
    for number, image in enumerate(images, start=1):
        photos.append(looked_at(sam, image, source))
        print(f"{number} of {len(images)}", file=sys.stderr, flush=True)
    print(f"\n{source.name}, {len(photos)} photos")
    print("| strictness | min_iou | agreement | a photo | right at .75 | at .90 | recall |")
    print("|---|---|---|---|---|---|---|")
    for strictness in STRICTNESS:
        config = PrefillConfig.for_model(sam, strictness, done=1.0)
        for agreement in (0.0, AGREEMENT):
            count, good, exact, recall = figures(photos, replace(config, min_agreement=agreement))
            print(
                f"| {strictness} | {config.min_iou:.3f} | {agreement} | {count:.1f} | {good:.0%} | "
                f"{exact:.0%} | {recall:.0%} |"
            )


def order_table(sam: Sam, images: Sequence[LabelledImage]) -> None:
    signals: list[ImageSignals] = []
    truth: list[float] = []
    for number, image in enumerate(images, start=1):
        agreed = tuple(mask for mask in image.masks if mask.votes >= 2)
        if agreed:
            one = CocoMasks("photo", (replace(image, masks=agreed),))
            quality = score_model(sam, one, ONE_CLICK).by_clicks[0]
            truth.append(float(quality.trusted_iou_N.mean()))
            signals.append(measure_image(sam, image.read(), ALL_SIGNALS, GridPrompts()))
        print(f"{number} of {len(images)}", file=sys.stderr, flush=True)
    true_I = np.array(truth)
    print(f"\n{len(truth)} photos, mean IoU after one click {true_I.mean():.3f}")
    print("| strategy | rank correlation | first quarter | last quarter |")
    print("|---|---|---|---|")
    quarter = max(1, len(truth) // 4)
    strategies: tuple[Strategy, ...] = get_args(Strategy)
    for strategy in strategies[1:]:
        order_I, _ = arranged(signals, OrderingConfig(strategy=strategy))
        place_I = np.argsort(order_I)
        rho = float(spearmanr(place_I, true_I).statistic)
        first, last = true_I[order_I[:quarter]].mean(), true_I[order_I[-quarter:]].mean()
        print(f"| {strategy} | {rho:+.2f} | {first:.3f} | {last:.3f} |")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--model", type=Path, help="checkpoint; default: the bundled model")
    parser.add_argument("--proposer", type=Path, help="measure its boxes instead of the grid")
    parser.add_argument("--tables", nargs="+", default=["proposals", "order"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sam = load_sam(arguments.model) if arguments.model else build_sam("bundled")
    labelled = validation_sources(arguments.data)[0]
    images = [labelled[i] for i in chosen_images(labelled, arguments.photos)]
    if "proposals" in arguments.tables:
        least = PrefillConfig.for_model(sam, STRICTNESS[0], done=1.0)
        source: ProposalSource = AutomaticMasks.of(sam, least)
        if arguments.proposer:
            source = DetectorBoxes(read_proposer(arguments.proposer, sam))
        proposals_table(sam, images, source)
    if "order" in arguments.tables:
        order_table(sam, images)


if __name__ == "__main__":
    main()
