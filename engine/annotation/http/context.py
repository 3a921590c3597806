"""What the handlers stand on: the database, the images, the model; made once per service.

context = make_context(database, settings, model=None, public_url="http://127.0.0.1:8765")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import Depends, Request

from engine.annotation.database import Database
from engine.annotation.http.image_index import ImageIndex
from engine.annotation.http.image_shelf import ImageShelf
from engine.annotation.http.limits import BodyLimits, RateLimiter
from engine.annotation.http.origins import OriginRules
from engine.annotation.records import BoxPrompt, CampaignImage, PointPrompt
from engine.announcements import Announce

__all__ = ["Context", "Model", "Rates", "ServiceContext"]


class Model(Protocol):
    """What the service needs of the model versions that its campaigns use.

    All of it is called from worker threads. Unknown model ids raise UnknownModelError.
    """

    @property
    def alive(self) -> bool:
        """Whether embeddings are still being made."""
        ...

    def embedding(self, model_id: str, image: CampaignImage, wait_seconds: float) -> bytes | None:
        """Return an image's embedding; None when it is not ready in time, but on its way.

        Raises:
            ImageError: the image cannot be used.
        """
        ...

    def prepare_ahead(self, model_id: str, images: Sequence[CampaignImage]) -> int:
        """Make embeddings when nothing is more urgent; returns at once how many are taken on."""
        ...

    def decoder_folder(self, model_id: str) -> Path:
        """Return the folder with ``decoder.json`` and the .onnx files."""
        ...

    def decode(
        self,
        model_id: str,
        image: CampaignImage,
        prompts: Sequence[PointPrompt | BoxPrompt],
        mask_logits: bytes | None,
    ) -> bytes | None:
        """Answer prompts: safetensors with ``iou`` (4) and ``logits`` (4, h, w), float16.

        None when the embedding is not ready.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """How often one may ask.

    Attributes:
        session: requests of one session. A page in a hurry sends some ten in a second.
        sign_in: failed attempts of one address. Tokens have 256 bits, so that guessing is hopeless
            anyway; this keeps the noise down.
    """

    session: RateLimiter = field(default_factory=lambda: RateLimiter(per_second=50, burst=300))
    sign_in: RateLimiter = field(default_factory=lambda: RateLimiter(per_second=0.5, burst=100))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """Everything that handlers use; closed by whoever made it.

    Attributes:
        database: of campaigns, tasks and people.
        images: which images there are.
        shelf: their pixels.
        model: None: pixels and work only; prompts are not answered.
        rules: hosts and origins.
        clock: UTC now.
        page_folder: the built page.
        secure: whether browsers reach the service by https.
        public_url: what links begin with.
        limits: of bodies.
        rates: of requests.
        work_folder: whose disk must not run full.
        workspace: address of the data set that the images are of.
        announce: told of campaigns that are complete.
        on_close: called after the last request.
    """

    database: Database
    images: ImageIndex
    shelf: ImageShelf
    model: Model | None
    rules: OriginRules
    clock: Callable[[], datetime]
    page_folder: Path
    public_url: str
    work_folder: Path
    secure: bool = False
    limits: BodyLimits = field(default_factory=BodyLimits)
    rates: Rates = field(default_factory=Rates)
    lease_seconds: int = 120
    workspace: str = ""
    announce: Announce | None = None
    on_close: Callable[[], None] = lambda: None


async def _context(request: Request) -> ServiceContext:
    context: ServiceContext = request.app.state.context
    return context


Context = Annotated[ServiceContext, Depends(_context)]
