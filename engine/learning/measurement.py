"""What the promotion gate measures: the IoU of every mask of a fixed evaluation set.

    measured = measure(sam, [coco_masks])
    register(store, sam, origin, metrics=metrics_of(measured), now=now)

A fingerprint of the photos, the masks and the prompts says what was measured, so that figures are
compared with figures of the same thing only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import WorkspaceError
from engine.evaluation.labelled import LabelledSet, ask
from engine.evaluation.points import Listener, ModelScores, PromptConfig, score_model
from engine.objects import ObjectStore
from engine.records import ModelMetric
from model import Sam

__all__ = [
    "GATE_PROMPTS",
    "Measured",
    "fingerprint",
    "keep_scores",
    "measure",
    "metrics_of",
    "read_scores",
]

# A click, two corrections, and a box: what an annotator does, at the price of a short evaluation.
GATE_PROMPTS = PromptConfig(max_clicks=3, report_at=(1,))

# Raise it when the same photos, masks and settings come to be measured in another way.
_PROTOCOL = 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """A model on one evaluation set.

    Attributes:
        fingerprint: of the photos, the masks and the prompts.
        scores: mask by mask.
    """

    fingerprint: str
    scores: ModelScores

    def rows(self) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Yield each kind of prompt by name, with the IoU of the trusted answers, (N,)."""
        for clicks, quality in enumerate(self.scores.by_clicks, start=1):
            plural = "s" if clicks > 1 else ""
            yield f"{self.scores.data}, {clicks} click{plural}", quality.trusted_iou_N
        if self.scores.box is not None:
            yield f"{self.scores.data}, box", self.scores.box.trusted_iou_N


def measure(
    sam: Sam,
    sets: Sequence[LabelledSet],
    prompts: PromptConfig = GATE_PROMPTS,
    on_image: Listener | None = None,
) -> tuple[Measured, ...]:
    """Put prompts for the masks of every set to a model.

    Raises:
        BadInputError: a set without masks, or a mask that does not fit its image.
    """
    return tuple(
        Measured(
            fingerprint=fingerprint(labelled_set, prompts),
            scores=score_model(sam, labelled_set, prompts, on_image),
        )
        for labelled_set in sets
    )


def fingerprint(labelled_set: LabelledSet, prompts: PromptConfig) -> str:
    """Identify what a measurement is about, in 16 hex digits.

    Photos count by their names (which seed the draw of masks) and pixels, masks by their RLE.
    """
    digest = hashlib.sha256()
    settings = {"protocol": _PROTOCOL, **dataclasses.asdict(prompts)}
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for asked in ask(labelled_set, prompts.selection):
        pixels_HW3 = np.ascontiguousarray(asked.image.read())
        digest.update(f"\n{asked.index} {asked.image.path.name} {pixels_HW3.shape}\n".encode())
        digest.update(pixels_HW3.data)
        for mask in asked.masks:
            digest.update(f"\n{mask.rle.height} {mask.rle.width} {mask.rle.counts}".encode())
    return digest.hexdigest()[:16]


def metrics_of(measured: Sequence[Measured]) -> tuple[ModelMetric, ...]:
    """Return the mean IoU of every row, to be registered with the model."""
    return tuple(
        ModelMetric(row=row, fingerprint=one.fingerprint, mean_iou=float(iou_N.mean()))
        for one in measured
        for row, iou_N in one.rows()
    )


def keep_scores(store: ObjectStore, measured: Sequence[Measured]) -> str:
    """Store the IoU of every mask under the hash of the scores; return the hash."""
    sets = [
        {
            "set": one.scores.data,
            "fingerprint": one.fingerprint,
            "image": one.scores.image_N.tolist(),
            "iou": {row: iou_N.tolist() for row, iou_N in one.rows()},
        }
        for one in measured
    ]
    data = json.dumps(sets, indent=1).encode()
    sha256 = hashlib.sha256(data).hexdigest()
    store.put_if_absent(_key(sha256), data)
    return sha256


def read_scores(store: ObjectStore, sha256: str) -> dict[str, NDArray[np.float64]]:
    """Read back the IoU of every mask, by row.

    Raises:
        WorkspaceError: no such scores, or they were changed.
    """
    data = store.get(_key(sha256))
    if hashlib.sha256(data).hexdigest() != sha256:
        raise WorkspaceError(f"{_key(sha256)} was changed; restore it from a backup")
    return {row: np.array(iou) for one in json.loads(data) for row, iou in one["iou"].items()}


def _key(sha256: str) -> str:
    return f"models/scores/{sha256}.json"
