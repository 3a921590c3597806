"""Images: pixels and embeddings. Both are named by content, so browsers keep them for good."""

from __future__ import annotations

from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Path, Query, Request, Response

from engine.annotation.http.caching import PRIVATE_IMMUTABLE, is_known, not_modified
from engine.annotation.http.context import Context, Model, ServiceContext
from engine.annotation.http.errors import ApiError
from engine.annotation.http.security import Signed

__all__ = ["ModelId", "need_model", "not_ready", "router"]

router = APIRouter(prefix="/api/images", tags=["images"])

_LAST_IMAGE = 2**63 - 1
ImageId = Annotated[int, Path(ge=0, le=_LAST_IMAGE)]
ModelId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_LONG_PX = Query(alias="long", ge=64, le=8192, description="longer side of a preview, in pixels")
_STEPS_PX = (64, 128, 256, 512, 800, 1200, 1600, 2400, 3200, 4800, 8192)
_WAIT_SECONDS = 8.0
# Decoding takes a core and tens of megabytes: a few at a time, and never the threads that answer
# everything else.
_DECODING, _WAITING = 2, 64


@router.get("/{image_id}/pixels", response_class=Response)
async def pixels(
    image_id: ImageId,
    request: Request,
    context: Context,
    me: Signed,
    long_px: Annotated[int | None, _LONG_PX] = None,
) -> Response:
    """Return an image as browsers show it, upright; `long` shrinks it to at most so many pixels.

    Sizes are rounded up to one of a few, so that all browsers share what was made once.
    """
    size = None if long_px is None else next(step for step in _STEPS_PX if step >= long_px)
    etag = f'"{image_id:016x}-{size or 0}"'
    headers = {"ETag": etag, "Cache-Control": PRIVATE_IMMUTABLE}
    image = await to_thread.run_sync(context.images.find, image_id)
    if is_known(etag, request.headers):
        return not_modified(headers)
    picture = await to_thread.run_sync(
        context.shelf.picture, image, size, limiter=_limiter(request, "decoding", _DECODING)
    )
    return Response(picture.data, headers=headers, media_type=picture.media_type)


@router.get("/{image_id}/embedding", response_class=Response)
async def embedding(
    image_id: ImageId,
    request: Request,
    context: Context,
    me: Signed,
    model: Annotated[str, Query(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")],
) -> Response:
    """Return an image's embedding: safetensors with the decoder's float16 inputs.

    503 with Retry-After while it is being made.
    """
    etag = f'"{image_id:016x}-{model}"'
    headers = {"ETag": etag, "Cache-Control": PRIVATE_IMMUTABLE}
    image = await to_thread.run_sync(context.images.find, image_id)
    if is_known(etag, request.headers):
        return not_modified(headers)
    made = await to_thread.run_sync(
        need_model(context).embedding,
        model,
        image,
        _WAIT_SECONDS,
        limiter=_limiter(request, "waiting", _WAITING),
    )
    if made is None:
        raise not_ready()
    return Response(made, headers=headers, media_type="application/octet-stream")


def need_model(context: ServiceContext) -> Model:
    """Return the model.

    Raises:
        ApiError: 503, the service runs without one.
    """
    if context.model is None:
        raise ApiError(503, "no_model", "this service runs without a model; draw with the brush")
    return context.model


def not_ready() -> ApiError:
    """Return the error for an embedding that is being made."""
    return ApiError(
        503,
        "embedding_not_ready",
        "the image is being encoded; ask again in a moment",
        headers={"Retry-After": "2"},
    )


def _limiter(request: Request, name: str, tokens: int) -> CapacityLimiter:
    """Return the application's limiter of this name; made here, as it belongs to the event loop."""
    limiters: dict[str, CapacityLimiter] = request.app.state.limiters
    return limiters.setdefault(name, CapacityLimiter(tokens))
