"""What a service does for campaigns by itself: decoders and embeddings, ahead of people.

    with Upkeep(db, workspace.store, models):
        ...                                       # serve

Campaigns are opened, enlarged and closed by other processes while the service runs, so it looks at
the database now and then. A look costs a query for each open campaign.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path, PurePosixPath
from typing import Protocol

from sqlalchemy import and_, select

from engine.annotation.campaigns import image_of_row, list_campaigns
from engine.annotation.database import Database
from engine.annotation.embeddings import embedding_key
from engine.annotation.records import Campaign, CampaignImage
from engine.annotation.tables import CampaignImageRow, TaskRow
from engine.closing import Closing
from engine.errors import EngineError
from engine.objects import ObjectStore

__all__ = ["Preparer", "Upkeep"]

log = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
_AHEAD = 1000


class Preparer(Protocol):
    """What prepares: a `ModelService`."""

    def decoder_folder(self, model_id: str) -> Path:
        """Export the model's decoder if it was not."""
        ...

    def prepare_ahead(self, model_id: str, images: tuple[CampaignImage, ...]) -> int:
        """Make embeddings when nothing is more urgent; return how many are taken on."""
        ...

    def forget_ahead(self, model_id: str, images: tuple[CampaignImage, ...]) -> None:
        """Make them no more, unless somebody waits for them."""
        ...


class Upkeep(Closing):
    """Looks after the campaigns of a database; close it, or use it as a context manager."""

    def __init__(
        self,
        db: Database,
        store: ObjectStore,
        models: Preparer,
        *,
        every_seconds: float = _LOOK_SECONDS,
        ahead: int = _AHEAD,
    ) -> None:
        """Look from now on, in a thread of its own.

        Args:
            db: whose campaigns.
            store: with the embeddings that are there.
            models: of the campaigns.
            every_seconds: between looks.
            ahead: how many images of a campaign that people are to get next are made ready.
        """
        self._db, self._store, self._models = db, store, models
        self._every_seconds, self._ahead = every_seconds, ahead
        self._taken_on: dict[str, dict[int, CampaignImage]] = {}
        self._campaigns: dict[str, Campaign] = {}
        self._complained: set[str] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="upkeep", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more; waits for a look that is under way."""
        self._closing.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._look()
            except EngineError as error:  # a database that is away: the next look may find it
                log.warning("the campaigns could not be looked after: %s", error)
            self._closing.wait(self._every_seconds)

    def _look(self) -> None:
        open_now = {
            one.campaign_id: one for one in list_campaigns(self._db) if one.closed_at is None
        }
        for campaign_id in set(self._campaigns) - set(open_now):
            self._forget(self._campaigns.pop(campaign_id))
        for campaign in open_now.values():
            if self._closing.is_set():
                return
            self._campaigns[campaign.campaign_id] = campaign
            if self._has_decoder(campaign):
                self._encode_ahead(campaign)

    def _has_decoder(self, campaign: Campaign) -> bool:
        try:
            self._models.decoder_folder(campaign.model_id)
        except EngineError as error:
            # The others can be worked on; this one's page says what is missing.
            if campaign.campaign_id not in self._complained:
                log.warning("campaign %s: its model cannot be used: %s", campaign.name, error)
            self._complained.add(campaign.campaign_id)
            return False
        self._complained.discard(campaign.campaign_id)
        return True

    def _encode_ahead(self, campaign: Campaign) -> None:
        taken_on = self._taken_on.get(campaign.campaign_id)
        if taken_on is None:
            taken_on = self._taken_on[campaign.campaign_id] = {}
            made = self._made(campaign.model_id)
        else:
            made = set()  # since then, all that are new to this service
        waiting = _next_images(self._db, campaign.campaign_id, self._ahead)
        taken_on |= {image.image_id: image for image in waiting if image.image_id in made}
        new = tuple(image for image in waiting if image.image_id not in taken_on)
        if new:
            count = self._models.prepare_ahead(campaign.model_id, new)
            taken_on |= {image.image_id: image for image in new[:count]}

    def _made(self, model_id: str) -> set[int]:
        """Return the images that have an embedding of a model."""
        folder = str(PurePosixPath(embedding_key(model_id, 0)).parent)
        stems = (PurePosixPath(key).stem for key in self._store.list(f"{folder}/"))
        return {int(stem) for stem in stems if stem.isdecimal()}

    def _forget(self, campaign: Campaign) -> None:
        taken_on = self._taken_on.pop(campaign.campaign_id, {})
        needed = {
            image_id
            for other in self._campaigns.values()
            if other.model_id == campaign.model_id
            for image_id in self._taken_on.get(other.campaign_id, ())
        }
        images = (image for image in taken_on.values() if image.image_id not in needed)
        self._models.forget_ahead(campaign.model_id, tuple(images))


def _next_images(db: Database, campaign_id: str, limit: int) -> tuple[CampaignImage, ...]:
    """Return the images that people get next, in their order."""
    query = (
        select(CampaignImageRow)
        .join(
            TaskRow,
            and_(
                CampaignImageRow.campaign_id == TaskRow.campaign_id,
                CampaignImageRow.image_id == TaskRow.image_id,
            ),
        )
        .where(
            TaskRow.campaign_id == campaign_id,
            TaskRow.slot == 0,
            TaskRow.state.in_(("open", "returned")),
        )
        .order_by(TaskRow.position)
        .limit(limit)
    )
    with db.reading() as session:
        return tuple(image_of_row(row) for row in session.scalars(query))
