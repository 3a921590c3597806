"""What the annotation service's HTTP API says, as values; and values as the JSON that it takes.

    lease = read_lease(answer)
    body = object_json(mask_object)

Masks, prompts, events and drafts are those of `engine.annotation.records`. What is here besides is
what only a client sees: addresses instead of files, ids as text. Unknown members of an answer are
ignored, so that an older client works with a newer service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.annotation.records import (
    BoxPrompt,
    DraftContent,
    Event,
    MaskObject,
    PointPrompt,
    Prompt,
    StrokePrompt,
    Verdict,
)
from engine.errors import BadInputError
from engine.records import Rle

__all__ = [
    "AcknowledgedSubmission",
    "CampaignSummary",
    "DecodedMasks",
    "Invited",
    "PublishedDecoder",
    "ReviewedObject",
    "SubmissionToReview",
    "TaskImage",
    "TaskLease",
    "draft_json",
    "event_json",
    "object_json",
    "prompt_json",
    "read_campaign",
    "read_decoder",
    "read_lease",
    "verdict_json",
]

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSummary:
    """A campaign as the list of campaigns shows it.

    Attributes:
        campaign_id: what the other calls take.
        state: ``"open"``, ``"complete"`` or ``"closed"``.
        tasks: how many tasks are in which state, and ``"total"``.
        masks: made so far.
    """

    campaign_id: str
    name: str
    stage: str
    model: str
    model_id: str
    state: str
    images: int
    tasks: Mapping[str, int]
    masks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskImage:
    """The image of a task.

    Attributes:
        pixels, preview, embedding: paths on the service.
    """

    image_id: int
    width: int
    height: int
    pixels: str
    preview: str
    embedding: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedObject:
    """A mask that somebody handed in, as its reviewer sees it."""

    mask: MaskObject
    made: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionToReview:
    """What somebody handed in."""

    annotator: str
    exhaustive: bool
    objects: tuple[ReviewedObject, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLease:
    """A task that is this client's until the lease runs out; a heartbeat prolongs it.

    Attributes:
        task_id: opaque.
        lease_id: shown with every call about the task.
        seconds: how long a heartbeat keeps it.
        campaign: its name.
        model_id: of the model whose decoder answers.
        image: what to annotate.
        proposals: masks that the model had made before.
        draft: what was saved and not handed in.
        draft_version: of `draft`; 0: there is none.
        rejected: reasons by object id, where a reviewer sent the task back.
        returned: whether a reviewer did.
        decoder: path of the decoder's description.
        submission: what to review; None: the task is to be annotated.
    """

    task_id: str
    lease_id: str
    seconds: int
    campaign: str
    model_id: str
    image: TaskImage
    proposals: tuple[MaskObject, ...]
    draft: DraftContent | None
    draft_version: int
    rejected: Mapping[str, str]
    returned: bool
    decoder: str
    submission: SubmissionToReview | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DecodedMasks:
    """What the service's decoder answers to prompts: one mask for several prompts, then three.

    Attributes:
        iou_4: float32, predicted.
        logits_4hw: float32, at a quarter of the model's padded input.

    Raises:
        BadInputError: other shapes.
    """

    iou_4: NDArray[np.float32]
    logits_4hw: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.iou_4.shape != (4,) or self.logits_4hw.ndim != 3 or len(self.logits_4hw) != 4:
            raise BadInputError(
                "a decoder answers with 4 scores and 4 masks; got scores of shape "
                f"{self.iou_4.shape} and masks of shape {self.logits_4hw.shape}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedDecoder:
    """What the service says of the decoder that browsers run.

    Attributes:
        image_size: long side of the model's input in pixels.
        pad_multiple: the input's sides are padded to a multiple of this.
        files: their names.
        text: the description itself, as it is kept beside the files.
    """

    image_size: int
    pad_multiple: int
    files: tuple[str, ...]
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Invited:
    """Somebody who was let in; the token is shown only now."""

    annotator_id: str
    name: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgedSubmission:
    """The service has it, and keeps it whatever happens to the service."""

    submission_id: str
    task_id: str
    objects: int
    state: str


def read_campaign(value: Json) -> CampaignSummary:
    """Read an item of ``GET /api/campaigns``."""
    return CampaignSummary(
        campaign_id=value["id"],
        name=value["name"],
        stage=value["stage"],
        model=value["model"],
        model_id=value["model_id"],
        state=value["state"],
        images=value["images"],
        tasks=dict(value["tasks"]),
        masks=value["masks"],
    )


def read_decoder(text: bytes) -> PublishedDecoder:
    """Read the answer of ``GET /api/models/{id}/decoder``."""
    value = json.loads(text)
    return PublishedDecoder(
        image_size=int(value["image_size"]),
        pad_multiple=int(value["pad_multiple"]),
        files=tuple(file["name"] for file in value["files"].values() if file is not None),
        text=text,
    )


def read_lease(value: Json) -> TaskLease:
    """Read the answer of ``next`` and ``next-review`` where there is a task."""
    task, image = value["task"], value["task"]["image"]
    draft, returned = task.get("draft"), task.get("returned")
    verdicts = (returned or {}).get("verdicts", [])
    return TaskLease(
        task_id=str(task["id"]),
        lease_id=value["lease_id"],
        seconds=int(value["seconds"]),
        campaign=task["campaign"]["name"],
        model_id=task["campaign"]["model_id"],
        image=TaskImage(
            image_id=int(image["id"]),
            width=image["width"],
            height=image["height"],
            pixels=image["pixels"],
            preview=image["preview"],
            embedding=image["embedding"],
        ),
        proposals=tuple(_object(item) for item in task["proposals"]),
        draft=None if draft is None else _draft(draft),
        draft_version=0 if draft is None else int(draft["version"]),
        rejected={
            verdict["object_id"]: verdict.get("reason") or ""
            for verdict in verdicts
            if verdict["verdict"] == "reject"
        },
        returned=returned is not None,
        decoder=task["decoder"],
        submission=_to_review(value["submission"]) if value.get("submission") else None,
    )


def _to_review(value: Json) -> SubmissionToReview:
    return SubmissionToReview(
        annotator=value["annotator"],
        exhaustive=value["exhaustive"],
        objects=tuple(
            ReviewedObject(mask=_object(item), made=item["made"]) for item in value["objects"]
        ),
    )


def _object(value: Json) -> MaskObject:
    (height, width), counts = value["rle"]["size"], value["rle"]["counts"]
    return MaskObject(
        object_id=value["id"],
        rle=Rle(height, width, counts),
        proposal=value["proposal"],
        predicted_iou=value.get("predicted_iou"),
        prompts=tuple(_prompt(item) for item in value.get("prompts", [])),
        decoder=value.get("decoder"),
        accepted=value.get("accepted"),
    )


def _prompt(value: Json) -> Prompt:
    if value["kind"] == "point":
        return PointPrompt(value["x"], value["y"], value["label"])
    if value["kind"] == "box":
        return BoxPrompt(value["x0"], value["y0"], value["x1"], value["y1"])
    points = tuple((float(x), float(y)) for x, y in value["points"])
    return StrokePrompt(value["mode"], value["radius"], points)


def _draft(value: Json) -> DraftContent:
    current = value.get("current")
    return DraftContent(
        objects=tuple(_object(item) for item in value["objects"]),
        deleted=tuple(value["deleted"]),
        exhaustive=value["exhaustive"],
        current=None if current is None else _object(current),
    )


def prompt_json(prompt: Prompt) -> dict[str, object]:
    """Write a click, a box or a stroke."""
    match prompt:
        case PointPrompt(x, y, label):
            return {"kind": "point", "x": x, "y": y, "label": label}
        case BoxPrompt(x0, y0, x1, y1):
            return {"kind": "box", "x0": x0, "y0": y0, "x1": x1, "y1": y1}
        case StrokePrompt(mode, radius, points):
            return {"kind": "stroke", "mode": mode, "radius": radius, "points": points}


def rle_json(rle: Rle) -> dict[str, object]:
    """Write a mask."""
    return {"size": [rle.height, rle.width], "counts": rle.counts}


def object_json(item: MaskObject) -> dict[str, object]:
    """Write an object."""
    return {
        "id": item.object_id,
        "proposal": item.proposal,
        "rle": rle_json(item.rle),
        "predicted_iou": item.predicted_iou,
        "prompts": [prompt_json(prompt) for prompt in item.prompts],
        "decoder": item.decoder,
        "accepted": item.accepted,
    }


def draft_json(content: DraftContent, version: int) -> dict[str, object]:
    """Write a draft."""
    return {
        "version": version,
        "objects": [object_json(item) for item in content.objects],
        "deleted": list(content.deleted),
        "exhaustive": content.exhaustive,
        "current": None if content.current is None else object_json(content.current),
    }


def event_json(event: Event) -> dict[str, object]:
    """Write an event."""
    return {
        "seq": event.seq,
        "at_ms": event.at_ms,
        "kind": event.kind,
        "object_id": event.object_id,
        "data": json.loads(event.data),
    }


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """Write what a reviewer says of an object."""
    return {
        "object_id": verdict.object_id,
        "verdict": verdict.kind,
        "rle": None if verdict.rle is None else rle_json(verdict.rle),
        "reason": verdict.reason or None,
    }
