"""Prompts, objects and drafts as JSON text: what the database keeps, and the page speaks.

    text = draft_to_json(content); draft_from_json(text) == content

Field names are the page's (``web/src/lib/types.ts``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import orjson

from engine.annotation.records import (
    BoxPrompt,
    DraftContent,
    MaskObject,
    PointPrompt,
    Prompt,
    StrokePrompt,
)
from engine.errors import BadInputError
from engine.records import Rle

__all__ = ["draft_from_json", "draft_to_json", "prompts_from_json", "prompts_to_json"]

_Fields = dict[str, Any]


def prompts_to_json(prompts: Sequence[Prompt]) -> str:
    """Return prompts as a JSON list.

    Raises:
        BadInputError: a number that is not finite.
    """
    return _to_json([_prompt_fields(prompt) for prompt in prompts])


def prompts_from_json(text: str) -> tuple[Prompt, ...]:
    """Return what `prompts_to_json` was given."""
    return tuple(_prompt(fields) for fields in orjson.loads(text))


def draft_to_json(content: DraftContent) -> str:
    """Return a draft as a JSON object.

    Raises:
        BadInputError: a number that is not finite, or a text that is none.
    """
    return _to_json(
        {
            "objects": [_object_fields(item) for item in content.objects],
            "deleted": content.deleted,
            "exhaustive": content.exhaustive,
            "current": None if content.current is None else _object_fields(content.current),
        }
    )


def draft_from_json(text: str) -> DraftContent:
    """Return what `draft_to_json` was given."""
    fields = orjson.loads(text)
    current = fields["current"]
    return DraftContent(
        objects=tuple(_object(item) for item in fields["objects"]),
        deleted=tuple(fields["deleted"]),
        exhaustive=fields["exhaustive"],
        current=None if current is None else _object(current),
    )


def _to_json(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise BadInputError(f"got a text that is none: {error}") from error


def _finite(*numbers: float) -> None:
    # JSON has no NaN: it would come back as nothing at all.
    if not all(map(math.isfinite, numbers)):
        raise BadInputError(f"got the numbers {numbers[:8]}; expected finite ones")


def _prompt_fields(prompt: Prompt) -> _Fields:
    match prompt:
        case PointPrompt(x=x, y=y, label=label):
            _finite(x, y)
            return {"kind": "point", "x": x, "y": y, "label": label}
        case BoxPrompt(x0=x0, y0=y0, x1=x1, y1=y1):
            _finite(x0, y0, x1, y1)
            return {"kind": "box", "x0": x0, "y0": y0, "x1": x1, "y1": y1}
        case StrokePrompt(mode=mode, radius=radius, points=points):
            _finite(radius, *(number for point in points for number in point))
            return {"kind": "stroke", "mode": mode, "radius": radius, "points": points}


def _prompt(fields: _Fields) -> Prompt:
    match fields["kind"]:
        case "point":
            return PointPrompt(fields["x"], fields["y"], fields["label"])
        case "box":
            return BoxPrompt(fields["x0"], fields["y0"], fields["x1"], fields["y1"])
        case _:
            points = tuple((x, y) for x, y in fields["points"])
            return StrokePrompt(fields["mode"], fields["radius"], points)


def _object_fields(item: MaskObject) -> _Fields:
    _finite(item.predicted_iou or 0.0)
    return {
        "id": item.object_id,
        "proposal": item.proposal,
        "rle": {"size": [item.rle.height, item.rle.width], "counts": item.rle.counts},
        "predicted_iou": item.predicted_iou,
        "prompts": [_prompt_fields(prompt) for prompt in item.prompts],
        "decoder": item.decoder,
        "accepted": item.accepted,
    }


def _object(fields: _Fields) -> MaskObject:
    height, width = fields["rle"]["size"]
    return MaskObject(
        object_id=fields["id"],
        rle=Rle(height, width, fields["rle"]["counts"]),
        proposal=fields["proposal"],
        predicted_iou=fields["predicted_iou"],
        prompts=tuple(_prompt(prompt) for prompt in fields["prompts"]),
        decoder=fields["decoder"],
        accepted=fields["accepted"],
    )
