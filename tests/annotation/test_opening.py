"""From photos to campaigns: opened, continued, extended, or refused with what to do instead."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from engine.annotation.annotators import invite, open_session, revoke
from engine.annotation.campaigns import campaign_images, close_campaign
from engine.annotation.database import Database
from engine.annotation.opening import (
    Arranged,
    CampaignRequest,
    OpenedCampaign,
    admin_invitation,
    open_or_continue,
    open_workspace_database,
)
from engine.annotation.records import CampaignImage
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import ingest
from engine.dataset.inputs import ListedImage, expand_inputs
from engine.errors import BadInputError
from engine.images import ImageLimits, encode_png
from engine.learning.registry import built_in_version
from engine.records import ModelVersion
from tests.annotation.service import scene

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def db(workspace: Workspace) -> Iterator[Database]:
    with open_workspace_database(workspace) as database:
        yield database


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in (2, 0, 1):
        (folder / f"{number}.png").write_bytes(encode_png(scene(number)))
    (folder / "twice.png").write_bytes(encode_png(scene(1)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no photo")
    return folder


def opened(
    workspace: Workspace, db: Database, photos: Sequence[str | Path], **request: Any
) -> OpenedCampaign:
    listed = expand_inputs([str(photo) for photo in photos]) if photos else []
    return open_or_continue(workspace, db, CampaignRequest(**request), listed, ImageLimits(), NOW)


def test_photos_become_a_campaign_in_the_order_of_their_names(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    found = opened(workspace, db, [photos], instructions="All birds.")
    assert found.is_new
    assert (found.images_added, found.duplicates) == (3, 1)
    assert [Path(image.uri).name for image in found.skipped] == ["broken.jpg"]
    campaign = found.campaign
    assert (campaign.name, campaign.stage, campaign.model) == ("manual", "manual", "bundled")
    assert campaign.model_id == built_in_version().model_id
    assert campaign.instructions == "All birds."
    images = campaign_images(db, campaign.campaign_id)
    assert [Path(image.uri).name for image in images] == ["0.png", "1.png", "2.png"]
    assert {(image.width, image.height) for image in images} == {(160, 120)}


def test_the_same_call_goes_on_and_new_photos_are_added(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    first = opened(workspace, db, [photos], name="birds", review=True)
    again = opened(workspace, db, [photos], name="birds", review=True)
    assert (again.is_new, again.images_added) == (False, 0)
    assert again.campaign == first.campaign
    (photos / "late.png").write_bytes(encode_png(scene(9)))
    more = opened(workspace, db, [photos], name="birds")
    assert (more.images_added, more.campaign.images) == (1, 4)
    assert opened(workspace, db, [], name="birds").campaign.images == 4


def test_an_order_is_asked_about_new_images_only_and_recorded(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    asked: list[int] = []

    def backwards(images: Sequence[CampaignImage], version: ModelVersion) -> Arranged:
        asked.append(len(images))
        return Arranged(tuple(reversed(images)), f'{{"by":"{version.name}"}}')

    listed = expand_inputs([str(photos)])

    def call() -> OpenedCampaign:
        request, limits = CampaignRequest(seed=7), ImageLimits()
        return open_or_continue(workspace, db, request, listed, limits, NOW, order=backwards)

    campaign = call().campaign
    call()
    assert asked == [3]
    assert (campaign.ordering, campaign.seed) == ('{"by":"bundled"}', 7)
    images = campaign_images(db, campaign.campaign_id)
    assert [Path(image.uri).name for image in images] == ["2.png", "1.png", "0.png"]


def test_a_campaign_without_photos_gets_all_of_the_workspace(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    with pytest.raises(BadInputError, match="has no images yet"):
        opened(workspace, db, [], name="all")
    ingest(workspace, expand_inputs([str(photos)]), ImageLimits(), NOW)
    assert opened(workspace, db, [], name="all").images_added == 3


@pytest.mark.parametrize(
    ("request_again", "complaint"),
    [
        ({"stage": "semi"}, "with stage 'manual', and 'semi'"),
        ({"review": True}, "with review False"),
        ({"annotators_per_image": 2}, "with annotators per image 1"),
        ({"model": "m7"}, "unknown model 'm7'"),
    ],
)
def test_a_campaign_that_is_another_is_not_continued(
    workspace: Workspace,
    db: Database,
    photos: Path,
    request_again: dict[str, Any],
    complaint: str,
) -> None:
    opened(workspace, db, [photos], name="birds")
    with pytest.raises(BadInputError, match=complaint):
        opened(workspace, db, [photos], name="birds", **request_again)


def test_a_closed_campaign_takes_no_photos(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    campaign = opened(workspace, db, [photos], name="birds").campaign
    close_campaign(db, campaign.campaign_id, now=NOW)
    with pytest.raises(BadInputError, match="campaigns reopen"):
        opened(workspace, db, [photos], name="birds")


def test_photos_that_are_all_unusable_open_nothing(
    workspace: Workspace, db: Database, photos: Path
) -> None:
    broken = ListedImage(str(photos / "broken.jpg"))
    missing = ListedImage(str(photos / "gone.jpg"))
    with pytest.raises(BadInputError, match="none of the 2 photos can be used"):
        open_or_continue(workspace, db, CampaignRequest(), [broken, missing], ImageLimits(), NOW)


def test_the_admin_keeps_one_link_until_it_is_of_no_use(workspace: Workspace, db: Database) -> None:
    token = admin_invitation(workspace, db, NOW)
    assert admin_invitation(workspace, db, NOW) == token
    assert open_session(db, token, now=NOW).annotator.role == "admin"
    (file,) = workspace.local_folder.glob("*token*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.unlink()
    another = admin_invitation(workspace, db, NOW)
    assert another != token
    file.write_text("something else")
    assert admin_invitation(workspace, db, NOW) not in (token, another, "something else")


def test_an_admin_who_was_revoked_is_replaced(workspace: Workspace, db: Database) -> None:
    admin_invitation(workspace, db, NOW)
    invite(db, "other", "admin", now=NOW)
    revoke(db, "admin", now=NOW)
    token = admin_invitation(workspace, db, NOW)
    assert open_session(db, token, now=NOW).annotator.role == "admin"
