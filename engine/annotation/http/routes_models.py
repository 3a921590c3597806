"""The decoder: its files for browsers, and its answers for browsers that are too slow."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from engine.annotation import records
from engine.annotation.http.bodies import JsonRoute
from engine.annotation.http.caching import (
    PRIVATE_IMMUTABLE,
    REVALIDATE,
    is_known,
    not_modified,
)
from engine.annotation.http.context import Context
from engine.annotation.http.errors import ApiError
from engine.annotation.http.routes_images import ModelId, need_model, not_ready
from engine.annotation.http.routes_tasks import Key, TaskId
from engine.annotation.http.schemas import BoxPrompt, DecodeRequest, PointPrompt
from engine.annotation.http.security import Signed
from engine.annotation.tasks import task

__all__ = ["router"]

router = APIRouter(prefix="/api", tags=["decoder"], route_class=JsonRoute)

_DECODES = 2  # as many as cores are good for; further clicks wait their turn
FileName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,40}$")]


@router.get("/models/{model_id}/decoder", response_class=Response)
def description(model_id: ModelId, request: Request, context: Context, me: Signed) -> Response:
    """Describe a model's decoder: its files with their sha256, its inputs, its sizes."""
    data = (need_model(context).decoder_folder(model_id) / "decoder.json").read_bytes()
    headers = {"ETag": _etag(data), "Cache-Control": REVALIDATE}
    if is_known(headers["ETag"], request.headers):
        return not_modified(headers)
    return Response(data, headers=headers, media_type="application/json")


@router.get("/models/{model_id}/{name}.onnx", response_class=Response)
def model_file(
    model_id: ModelId, name: FileName, request: Request, context: Context, me: Signed
) -> Response:
    """Return one ONNX file of a model's decoder."""
    # Compared with what is there: no path is made of what was asked.
    folder = need_model(context).decoder_folder(model_id)
    found = {path.name: path for path in folder.glob("*.onnx")}.get(f"{name}.onnx")
    if found is None:
        raise ApiError(404, "not_found", "the model's decoder has no such file")
    etag = f'"{model_id}-{name}-{found.stat().st_size}"'
    headers = {"ETag": etag, "Cache-Control": PRIVATE_IMMUTABLE}
    if is_known(etag, request.headers):
        return not_modified(headers)
    return Response(found.read_bytes(), headers=headers, media_type="application/octet-stream")


@router.post("/tasks/{task_id}/decode", response_class=Response)
async def decode(
    task_id: TaskId, key: Key, body: DecodeRequest, request: Request, context: Context
) -> Response:
    """Answer prompts with the service's decoder: safetensors, ``iou`` (4), ``logits`` (4, h, w)."""
    model = need_model(context)
    found = await run_in_threadpool(task, context.database, task_id, key.annotator_id)
    answer = await to_thread.run_sync(
        model.decode,
        found.campaign.model_id,
        found.image,
        [_prompt(prompt) for prompt in body.prompts],
        _logits(body.mask_logits),
        limiter=_decoding(request),
    )
    if answer is None:
        raise not_ready()
    return Response(answer, media_type="application/octet-stream")


def _prompt(prompt: PointPrompt | BoxPrompt) -> records.PointPrompt | records.BoxPrompt:
    if isinstance(prompt, PointPrompt):
        return records.PointPrompt(prompt.x, prompt.y, prompt.label)
    return records.BoxPrompt(prompt.x0, prompt.y0, prompt.x1, prompt.y1)


def _logits(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ApiError(422, "invalid", f"mask_logits is not base64: {error}") from error
    return data


def _decoding(request: Request) -> CapacityLimiter:
    limiters: dict[str, CapacityLimiter] = request.app.state.limiters
    return limiters.setdefault("decoding prompts", CapacityLimiter(_DECODES))


def _etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:32]}"'
