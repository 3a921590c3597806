"""The wheel turns on a real server: from photos and people to a model, masks and a release."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient

from engine.annotation.campaigns import find_campaign
from engine.annotation.opening import open_workspace_database
from engine.annotation.records import Lease, MaskObject
from engine.annotation.tasks import lease_next
from engine.config import current_time
from engine.dataset.catalog import Workspace
from engine.dataset.ingest import load_images
from engine.dataset.releases import list_releases, list_tags
from engine.errors import PartlyDoneError
from engine.learning.decisions import read_log
from engine.masks import encode_mask
from engine.wheel.policy import (
    POLICY_FILE,
    PRESETS,
    RetrainingPolicy,
    SemiPolicy,
    StagePolicy,
    policy_text,
)
from flows.data_engine import data_engine
from tests.annotation.annotation_builders import a_person, hand_in
from tests.learning.wheel_builders import add_photos, disc_masks, with_tiny_champion
from tests.orchestration.conftest import newest_artifact

# One round of people on all photos, a training of two steps.
ONE_ROUND = replace(
    PRESETS["small"],
    manual=StagePolicy(images=14, retrainings=1, order="listed"),
    semi=SemiPolicy(images=0, retrainings=0),
    retraining=RetrainingPolicy(min_new_masks=10, steps=2),
    release=replace(PRESETS["small"].release, report=False),
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "birds") as opened:
        add_photos(opened, tmp_path / "photos", 14)
        with_tiny_champion(opened, tmp_path)
        yield opened


def people_finish(workspace: Workspace, name: str) -> int:
    """Hand in the true masks of every image of a campaign; return how many images."""
    done = 0
    with open_workspace_database(workspace) as db:
        campaign = find_campaign(db, name)
        assert campaign is not None
        person = a_person(db, f"annotator of {name}")
        while True:
            now = current_time()
            lease = lease_next(db, campaign.campaign_id, person, now=now)
            if not isinstance(lease, Lease):
                return done
            [image] = load_images(workspace, [lease.task.image.image_id])
            masks = [
                MaskObject(object_id=f"disc-{place}", rle=encode_mask(disc_HW))
                for place, disc_HW in enumerate(disc_masks(int(Path(image.uri).stem)))
            ]
            hand_in(db, lease, *masks, now=now)
            done += 1


def test_without_a_policy_it_explains_and_starts_nothing(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    outcome = data_engine(workspace.address)
    assert outcome.started == ()
    assert "maskwheel policy init" in outcome.said
    assert "Round manual-1 opens with 14 images" in outcome.said
    with open_workspace_database(workspace) as db:
        assert find_campaign(db, "manual-1") is None
    assert "manual-1" in str(newest_artifact(prefect_client, "data-engine").data)


def test_where_no_deployment_is_the_wheel_turns_in_this_process(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    (Path(workspace.address) / POLICY_FILE).write_text(policy_text(ONE_ROUND))
    opened = data_engine(workspace.address)
    assert opened.started == ("assisted-manual",)
    assert "manual-1: 0 of 14 tasks are done" in opened.said
    assert data_engine(workspace.address).started == ()
    assert people_finish(workspace, "manual-1") == 14
    explained = data_engine(workspace.address, dry_run=True)
    assert explained.started == ()
    assert "14 images of it are to be published" in explained.said
    turned = data_engine(workspace.address)
    assert turned.started == (
        "publish-annotations",
        "retrain",
        "fully-automatic",
        "audit",
        "release",
    )
    releases = list_releases(workspace)
    assert [release.kind for release in releases] == ["annotation", "run"]
    assert releases[0].masks == 28
    assert [(tag.name, tag.release) for tag in list_tags(workspace)] == [("v1", "r2")]
    assert len(read_log(workspace.store).decisions) == 2  # the tiny champion, and the candidate
    rested = data_engine(workspace.address)
    assert rested.started == ()
    assert "released as v1" in rested.said
    assert len(list_releases(workspace)) == 2


def test_what_fails_here_is_said_and_is_due_again(
    workspace: Workspace, prefect_client: SyncPrefectClient
) -> None:
    policy = replace(ONE_ROUND, retraining=replace(ONE_ROUND.retraining, recipe="magic"))
    (Path(workspace.address) / POLICY_FILE).write_text(policy_text(policy))
    data_engine(workspace.address)
    people_finish(workspace, "manual-1")
    with pytest.raises(PartlyDoneError, match=r"retrain: .*'magic'.*the same command again"):
        data_engine(workspace.address)
    assert [release.kind for release in list_releases(workspace)] == ["annotation"]
    said = data_engine(workspace.address, dry_run=True).said
    assert "No training has seen 28 masks of people in r1" in said
