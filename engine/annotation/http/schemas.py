"""JSON values of the work itself: prompts, masks, objects, drafts, events, submissions.

    Submission.model_validate(orjson.loads(body))

Strict where JSON is: a number is a number and finite, nothing unknown is dropped in silence.
Coordinates are pixels of the original image, x right, y down; pixel i covers [i, i + 1).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

__all__ = [
    "BoxPrompt",
    "DecodeRequest",
    "Draft",
    "DraftSaved",
    "Event",
    "EventBatch",
    "EventsSaved",
    "Identifier",
    "Obj",
    "PointPrompt",
    "Prompt",
    "RleValue",
    "StrokePrompt",
    "Submission",
    "Value",
    "Verdict",
    "Verdicts",
]

_MAX_COORDINATE_PX = 1_000_000
_MAX_OBJECTS = 5_000
_MAX_PROMPTS = 2_000
_MAX_EVENTS = 20_000
_MAX_STROKE_POINTS = 20_000
_MAX_DATA_DEPTH = 8
_LAST_SAFE_INTEGER = 2**53 - 1

Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Coordinate = Annotated[
    float, Field(strict=True, ge=-_MAX_COORDINATE_PX, le=_MAX_COORDINATE_PX, allow_inf_nan=False)
]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]{0,31}$")]
Reason = Annotated[str, Field(max_length=1_000)]
Decoder = Literal["browser", "server"]


class Value(BaseModel):
    """What all JSON values here have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PointPrompt(Value):
    """A click: label 1 on the object, 0 beside it."""

    kind: Literal["point"]
    x: Coordinate
    y: Coordinate
    label: Literal[0, 1]


class BoxPrompt(Value):
    """A box around the object."""

    kind: Literal["box"]
    x0: Coordinate
    y0: Coordinate
    x1: Coordinate
    y1: Coordinate


class StrokePrompt(Value):
    """A stroke of the brush or the eraser; radius in pixels of the image."""

    kind: Literal["stroke"]
    mode: Literal["brush", "eraser"]
    radius: Annotated[float, Field(strict=True, gt=0, le=_MAX_COORDINATE_PX, allow_inf_nan=False)]
    points: Annotated[
        list[tuple[Coordinate, Coordinate]], Field(min_length=1, max_length=_MAX_STROKE_POINTS)
    ]


Prompt = Annotated[PointPrompt | BoxPrompt | StrokePrompt, Field(discriminator="kind")]


class RleValue(Value):
    """COCO's compressed run lengths: column-major, background first; size is [height, width]."""

    size: tuple[
        Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)],
        Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)],
    ]
    # No length here: a body's limit is the limit. What the text means, the domain checks.
    counts: Annotated[str, Field(pattern=r"^[0-o]*$")]


class Obj(Value):
    """One mask. `proposal`: the model put it there before anybody looked."""

    id: Identifier
    proposal: Flag
    rle: RleValue
    predicted_iou: Annotated[
        float | None, Field(strict=True, ge=-100, le=100, allow_inf_nan=False)
    ] = None
    prompts: Annotated[list[Prompt], Field(max_length=_MAX_PROMPTS)] = []
    decoder: Decoder | None = None
    accepted: Flag | None = None


class Draft(Value):
    """The unsent state of a task; `version` counts the service's copies, 0 where it has none."""

    version: Count = 0
    objects: Annotated[list[Obj], Field(max_length=_MAX_OBJECTS)]
    deleted: Annotated[list[Identifier], Field(max_length=_MAX_OBJECTS)]
    exhaustive: Flag
    current: Obj | None = None


class DraftSaved(Value):
    """The version that a draft was saved as: the next If-Match."""

    version: int


class Event(Value):
    """Something that a person did; `seq` counts from 1 within a visit of a task, its `page_id`."""

    seq: Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
    at_ms: Annotated[int, Field(strict=True, ge=0, le=_LAST_SAFE_INTEGER)]
    kind: Word
    object_id: Identifier | None = None
    data: dict[Annotated[str, Field(max_length=64)], JsonValue] = {}

    @field_validator("data")
    @classmethod
    def _is_shallow(cls, data: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if _depth(data) > _MAX_DATA_DEPTH:
            raise ValueError(f"nested deeper than {_MAX_DATA_DEPTH} levels")
        return data


class EventBatch(Value):
    """Events of one visit; sent again, they count once."""

    page_id: Identifier
    events: Annotated[list[Event], Field(max_length=_MAX_EVENTS)]


class EventsSaved(Value):
    """How many events were new, and the last number of the batch."""

    saved: int
    last_seq: int


class Submission(Value):
    """A finished task. `submission_id` is the client's: sent twice, it counts once."""

    submission_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{32,36}$")]
    objects: Annotated[list[Obj], Field(max_length=_MAX_OBJECTS)]
    deleted: Annotated[list[Identifier], Field(max_length=_MAX_OBJECTS)]
    exhaustive: Flag
    page_id: Identifier
    last_seq: Count
    events: Annotated[list[Event], Field(max_length=_MAX_EVENTS)] = []


class Verdict(Value):
    """What a reviewer says of one object; `rle` is the corrected mask of a fix."""

    object_id: Identifier
    verdict: Literal["accept", "fix", "reject"]
    rle: RleValue | None = None
    reason: Reason | None = None


class Verdicts(Value):
    """A review; `reason` is about the whole image, `incomplete` says that masks are missing."""

    submission_id: Annotated[str, Field(pattern=r"^[0-9a-fA-F-]{32,36}$")]
    verdicts: Annotated[list[Verdict], Field(max_length=_MAX_OBJECTS)]
    reason: Reason | None = None
    incomplete: Flag = False


class DecodeRequest(Value):
    """Prompts for one mask; `mask_logits`: base64 of the float16 logits of the answer before."""

    prompts: Annotated[list[PointPrompt | BoxPrompt], Field(min_length=1, max_length=200)]
    mask_logits: Annotated[str | None, Field(max_length=4 * 2**20)] = None


def _depth(value: JsonValue) -> int:
    """Return how deep lists and objects are nested, looking no further than is allowed."""
    level: list[JsonValue] = [value]
    depth = 0
    while level and depth <= _MAX_DATA_DEPTH:
        depth += 1
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return depth
