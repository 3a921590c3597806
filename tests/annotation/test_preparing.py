"""Nobody gets an image before it is ready; what was made once is not made again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.annotation import preparing
from engine.annotation.campaigns import campaign_images, campaign_state
from engine.annotation.database import Database
from engine.annotation.embeddings import embedding_key, read_embedding
from engine.annotation.opening import (
    Arranged,
    CampaignRequest,
    OpenedCampaign,
    open_chosen,
    open_workspace_database,
)
from engine.annotation.pending import give_out, pending_images
from engine.annotation.preparing import (
    Chunk,
    Prepared,
    chunks_to_prepare,
    plan_round,
    prepare_images,
    summarised,
)
from engine.annotation.proposal_sources import noted_proposer, noting_proposer
from engine.annotation.proposals import proposals_of, set_proposals
from engine.annotation.records import Campaign, CampaignImage, NothingToDo, Stage
from engine.annotation.tasks import lease_next, upcoming
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import ingest
from engine.dataset.inputs import expand_inputs
from engine.errors import BadInputError
from engine.images import ImageLimits
from engine.learning.registry import built_in_version
from engine.records import ModelVersion
from model import Sam, build_sam
from tests.annotation.annotation_builders import NOW, a_lease, a_mask, a_person, an_object, nothing
from tests.annotation.simulated_photos import write_photos

PHOTOS = 5


@pytest.fixture(scope="module")
def sam() -> Sam:
    return build_sam("bundled")


@dataclass(frozen=True)
class Place:
    """A workspace with five photos, and its annotation database."""

    workspace: Workspace
    db: Database
    photos: Path

    def opened(self, name: str = "first", stage: Stage = "manual", count: int = PHOTOS) -> Campaign:
        found = self.maybe_opened(name, stage, count)
        assert found is not None
        return found.campaign

    def maybe_opened(self, name: str, stage: Stage, count: int) -> OpenedCampaign | None:
        rows = self.workspace.table("images").scan().to_arrow().sort_by("uri").to_pylist()

        def choose(version: ModelVersion) -> Arranged:
            fields = ("image_id", "width", "height", "uri")
            images = [CampaignImage(**{name: row[name] for name in fields}) for row in rows]
            return noting_proposer(Arranged(tuple(images[:count]), "{}"), "auto")

        request = CampaignRequest(name=name, stage=stage)
        return open_chosen(self.workspace, self.db, request, choose, NOW)

    def prepared(self, campaign: Campaign, chunk: Chunk, sam: Sam) -> Prepared:
        return prepare_images(
            self.workspace.store,
            self.db,
            campaign,
            chunk,
            sam,
            "auto" if campaign.stage == "semi" else None,
            limits=ImageLimits(),
            now=NOW,
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    write_photos(tmp_path / "photos", PHOTOS)
    photos = tmp_path / "photos" / "images"
    with Workspace.open(tmp_path / "workspace") as workspace:
        ingest(workspace, expand_inputs([str(photos)]), ImageLimits(), NOW)
        with open_workspace_database(workspace) as db:
            yield Place(workspace, db, photos)


def test_pending_images_are_given_to_nobody_and_keep_the_campaign_open(place: Place) -> None:
    campaign = place.opened()
    ada = a_person(place.db)
    assert len(pending_images(place.db, campaign.campaign_id)) == PHOTOS
    found = lease_next(place.db, campaign.campaign_id, ada, now=NOW)
    assert isinstance(found, NothingToDo)
    assert found.reason == "all-leased"
    assert "preparing" in found.message
    assert upcoming(place.db, campaign.campaign_id, ada, 3, now=NOW) == ()
    state = campaign_state(place.db, campaign.campaign_id, now=NOW)
    assert (state.state, state.tasks.open, state.tasks.total) == ("open", PHOTOS, PHOTOS)


def test_images_are_given_out_as_they_become_ready_in_the_order_of_the_campaign(
    place: Place,
) -> None:
    campaign = place.opened()
    ids = [image.image_id for image in campaign_images(place.db, campaign.campaign_id)]
    assert give_out(place.db, campaign.campaign_id, ids[1:3], now=NOW) == 2
    assert give_out(place.db, campaign.campaign_id, ids[1:3], now=NOW) == 0
    ada = a_person(place.db)
    assert a_lease(place.db, campaign, ada).task.image.image_id == ids[1]
    assert pending_images(place.db, campaign.campaign_id) == (ids[0], *ids[3:])
    assert give_out(place.db, campaign.campaign_id, now=NOW) == 3
    assert pending_images(place.db, campaign.campaign_id) == ()


def test_a_manual_campaign_is_encoded_as_far_ahead_as_is_asked_for(place: Place, sam: Sam) -> None:
    campaign = place.opened()
    chunks = chunks_to_prepare(place.db, campaign, embed_ahead=3, size=2)
    assert [(chunk.first, len(chunk.image_ids), chunk.embed) for chunk in chunks] == [
        (1, 2, True),
        (3, 1, True),
    ]
    made = [place.prepared(campaign, chunk, sam) for chunk in chunks]
    assert [(part.images, part.embedded) for part in made] == [(2, 2), (1, 1)]
    model_id = built_in_version().model_id
    for image in campaign_images(place.db, campaign.campaign_id)[:3]:
        data = place.workspace.store.get(embedding_key(model_id, image.image_id))
        assert read_embedding(data).model_id == model_id
    assert len(pending_images(place.db, campaign.campaign_id)) == 2
    assert chunks_to_prepare(place.db, campaign, embed_ahead=3, size=2) == ()


def test_a_semi_automatic_campaign_has_proposals_before_anybody_gets_an_image(
    place: Place, sam: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = place.opened(stage="semi", count=2)
    (chunk,) = chunks_to_prepare(place.db, campaign, embed_ahead=1)
    ada = a_person(place.db)
    give = give_out

    def watched(*args: object, **kwargs: object) -> int:
        assert nothing(place.db, campaign, ada) == "all-leased"
        records = place.workspace.store.list(f"annotation/{campaign.campaign_id}/prefill/")
        assert len(list(records)) == 2
        return give(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(preparing, "give_out", watched)
    made = place.prepared(campaign, chunk, sam)
    found = [proposals_of(place.db, campaign.campaign_id, one) for one in chunk.image_ids]
    assert made.proposals == sum(map(len, found)) > 0
    assert len(a_lease(place.db, campaign, ada).task.proposals) == len(found[0])


def test_what_was_made_before_a_kill_is_not_made_again(place: Place, sam: Sam) -> None:
    campaign = place.opened(stage="semi", count=1)
    (chunk,) = chunks_to_prepare(place.db, campaign, embed_ahead=1)
    first = place.prepared(campaign, chunk, sam)
    # As if it had been killed right before the images were given out.
    again = place.prepared(campaign, chunk, sam)
    assert (first.embedded, again.embedded) == (1, 0)
    assert first.proposals > 0
    assert again.proposals == 0


def test_an_image_that_cannot_be_read_is_said_and_people_get_it_to_skip_it(
    place: Place, sam: Sam
) -> None:
    (place.photos / "001.png").write_bytes(b"something else")
    campaign = place.opened(count=2)
    (chunk,) = chunks_to_prepare(place.db, campaign, embed_ahead=2)
    made = place.prepared(campaign, chunk, sam)
    assert (made.images, made.embedded) == (2, 1)
    assert [Path(image.uri).name for image in made.skipped] == ["001.png"]
    assert pending_images(place.db, campaign.campaign_id) == ()
    found = summarised(OpenedCampaign(campaign=campaign, is_new=True, images_added=2), [made], None)
    assert (found.images, found.embedded, len(found.skipped)) == (2, 1, 1)


def test_a_campaign_of_the_name_goes_on_as_it_was_chosen(place: Place) -> None:
    first = place.opened("round", "semi", 2)
    again = place.maybe_opened("round", "semi", 4)
    assert again is not None
    assert not again.is_new
    assert (again.campaign.campaign_id, again.campaign.images) == (first.campaign_id, 2)
    with pytest.raises(BadInputError, match="was opened with stage 'semi'"):
        place.maybe_opened("round", "manual", 4)
    assert place.maybe_opened("another", "semi", 0) is None


def test_the_plan_of_a_campaign_that_is_there_names_its_own_model_and_proposer(
    place: Place,
) -> None:
    request = CampaignRequest(name="round", stage="semi")
    plan = plan_round(place.workspace, place.db, request)
    assert (plan.is_open, plan.proposer, plan.candidates) == (False, None, PHOTOS)
    campaign = place.opened("round", "semi", 2)
    assert noted_proposer(campaign) == "auto"
    plan = plan_round(place.workspace, place.db, request)
    assert (plan.is_open, plan.proposer) == (True, "auto")
    assert plan.model_id == built_in_version().model_id


def test_proposals_can_be_set_while_an_image_is_pending_and_not_after_somebody_got_it(
    place: Place,
) -> None:
    campaign = place.opened(count=1)
    (image,) = campaign_images(place.db, campaign.campaign_id)
    mask = an_object("p", a_mask(height=image.height, width=image.width), proposal=True)
    assert set_proposals(place.db, campaign.campaign_id, image.image_id, [mask])
    give_out(place.db, campaign.campaign_id, now=NOW)
    a_lease(place.db, campaign, a_person(place.db))
    assert not set_proposals(place.db, campaign.campaign_id, image.image_id, [])
