"""Is the service well? For monitors and load balancers."""

from __future__ import annotations

import logging
import shutil
from typing import Literal

from fastapi import APIRouter, Response

from engine.annotation.campaigns import list_campaigns
from engine.annotation.http.answers import Health
from engine.annotation.http.context import Context, ServiceContext
from engine.errors import EngineError

__all__ = ["router"]

log = logging.getLogger(__name__)

router = APIRouter(prefix="/api", tags=["health"])

_LOW_BYTES = 500 * 2**20


@router.get("/health")
def health(response: Response, context: Context) -> Health:
    """Say whether the database answers, the encoder lives and the disk has room.

    503 if it cannot work. No session: monitors have none, and it says nothing about anybody.
    """
    database = _database_answers(context)
    encoder = context.model.alive if context.model is not None else None
    free_bytes = _free_bytes(context)
    status: Literal["ok", "degraded", "failed"] = "ok"
    if encoder is False or (free_bytes is not None and free_bytes < _LOW_BYTES):
        status = "degraded"
    if not database:
        status = "failed"
        response.status_code = 503
    return Health(status=status, database=database, encoder=encoder, free_bytes=free_bytes)


def _database_answers(context: ServiceContext) -> bool:
    try:
        list_campaigns(context.database)
    except EngineError as error:
        log.warning("the database does not answer: %s", error)
        return False
    return True


def _free_bytes(context: ServiceContext) -> int | None:
    try:
        return shutil.disk_usage(context.work_folder).free
    except OSError as error:
        log.warning("the disk of %s does not answer: %s", context.work_folder, error)
        return None
