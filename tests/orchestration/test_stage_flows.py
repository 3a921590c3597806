"""The stages with people, as flows on a real Prefect server: from photos to a release of masks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from engine.annotation.campaigns import campaign_images, list_campaigns
from engine.annotation.database import Database
from engine.annotation.decoder_files import find_decoder_files
from engine.annotation.embeddings import embedding_key
from engine.annotation.http.whereabouts import announced
from engine.annotation.opening import open_workspace_database
from engine.annotation.pending import pending_images
from engine.annotation.proposal_sources import noted_proposer
from engine.annotation.proposals import proposals_of
from engine.annotation.records import Campaign, Lease
from engine.annotation.tasks import lease_next
from engine.dataset.audit_reports import GateReport
from engine.dataset.catalog import Workspace
from engine.dataset.publishing import Staged
from engine.dataset.releases import latest_release, list_releases
from engine.errors import BadInputError, RefusedError
from engine.learning.proposer_registry import list_proposers
from engine.quality.gate import audit
from engine.records import Rle
from flows.assisted_manual import assisted_manual
from flows.ingest import ingest
from flows.publish_annotations import publish_annotations
from flows.semi_automatic import semi_automatic
from tests.annotation.annotation_builders import NOW, a_mask, a_person, an_object, hand_in
from tests.annotation.simulated_photos import HEIGHT, WIDTH, write_photos
from tests.orchestration.conftest import wait_for
from tests.prefect_server import PrefectServer

pytestmark = pytest.mark.usefixtures("prefect_client")

SEMI = """
import json, sys
from flows.semi_automatic import semi_automatic
semi_automatic(**json.loads(sys.argv[1]))
"""


@pytest.fixture
def photos(tmp_path: Path) -> str:
    write_photos(tmp_path / "photos", 6)
    return str(tmp_path / "photos" / "images")


@pytest.fixture
def workspace(tmp_path: Path, photos: str) -> str:
    """Return the address of a workspace with six photos."""
    address = str(tmp_path / "workspace")
    ingest([photos], address)
    return address


@contextmanager
def opened(address: str) -> Iterator[tuple[Workspace, Database]]:
    with (
        Workspace.open(address, create=False) as workspace,
        open_workspace_database(workspace) as db,
    ):
        yield workspace, db


def annotate(address: str, name: str) -> int:
    """Hand in three boxes for each image of a campaign that a person gets; return how many."""
    count = 0
    with opened(address) as (_, db):
        campaign = next(one for one in list_campaigns(db) if one.name == name)
        person = a_person(db, f"annotator of {name}")
        while isinstance(lease := lease_next(db, campaign.campaign_id, person, now=NOW), Lease):
            masks = [an_object(f"{count}-{place}", box(place)) for place in range(3)]
            hand_in(db, lease, *masks, deleted=[one.object_id for one in lease.task.proposals])
            count += 1
    return count


def box(place: int) -> Rle:
    x = 10 + 40 * place
    return a_mask(x, 30, x + 25, 60, height=HEIGHT, width=WIDTH)


def tables(client: SyncPrefectClient, key: str) -> list[dict[str, object]]:
    """Return the rows of the newest table of a key."""
    answer = client.request(
        "POST",
        "/artifacts/latest/filter",
        json={"artifacts": {"key": {"any_": [key]}}},
    )
    found = answer.json()
    rows: list[dict[str, object]] = json.loads(found[0]["data"]) if found else []
    return rows


def test_photos_are_ingested_once_and_what_cannot_be_used_is_said(
    tmp_path: Path, photos: str, prefect_client: SyncPrefectClient
) -> None:
    (Path(photos) / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 this is no photo")
    address = str(tmp_path / "workspace")
    first, again = ingest([photos], address), ingest([photos], address)
    assert (first.images, first.new, len(first.skipped)) == (6, 6, 1)
    assert (again.images, again.new) == (6, 0)
    assert [row["photo"] for row in tables(prefect_client, "ingest-skipped")] == [
        str(Path(photos) / "broken.jpg")
    ]


def test_a_manual_campaign_is_chosen_prepared_opened_and_linked_to(
    workspace: str, prefect_client: SyncPrefectClient
) -> None:
    with opened(workspace) as (data, _), announced(data.local_folder, "http://127.0.0.1:8765"):
        first = assisted_manual(
            workspace, campaign="manual-1", images=4, order="random", embed_ahead=2
        )
    assert (first.stage, first.images, first.opened, first.embedded) == ("manual", 4, True, 2)
    assert first.url == f"http://127.0.0.1:8765/annotate/{first.campaign_id}"
    with opened(workspace) as (data, db):
        (campaign,) = list_campaigns(db)
        images = campaign_images(db, campaign.campaign_id)
        encoded = [
            data.store.exists(embedding_key(campaign.model_id, image.image_id)) for image in images
        ]
        assert encoded == [True, True, False, False]
        assert find_decoder_files(data.local_folder, campaign.model_id) is not None
        assert pending_images(db, campaign.campaign_id) == ()
    runs = prefect_client.read_flow_runs(
        flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["open manual-1"]))
    )
    assert "campaign:manual-1" in runs[0].tags


def test_a_campaign_of_the_name_goes_on_and_the_next_one_has_other_images_until_none_is_left(
    workspace: str,
) -> None:
    first = assisted_manual(workspace, campaign="manual-1", images=4, order="random", embed_ahead=0)
    again = assisted_manual(workspace, campaign="manual-1", images=6, order="random", embed_ahead=0)
    assert (again.campaign_id, again.images, again.opened) == (first.campaign_id, 4, False)
    second = assisted_manual(workspace, campaign="manual-2", images=4, order="random")
    assert second.images == 2
    third = assisted_manual(workspace, campaign="manual-3", images=4, order="random")
    assert (third.campaign_id, third.images) == (None, 0)
    with opened(workspace) as (_, db):
        found = [
            {image.image_id for image in campaign_images(db, campaign.campaign_id)}
            for campaign in list_campaigns(db)
        ]
    assert len(found) == 2
    assert not found[0] & found[1]


def test_a_workspace_without_images_is_refused(tmp_path: Path) -> None:
    address = str(tmp_path / "empty")
    with Workspace.open(address):
        pass
    with pytest.raises(BadInputError, match="has no images yet"):
        assisted_manual(address)


def test_what_people_accepted_is_published_once(
    workspace: str, prefect_client: SyncPrefectClient
) -> None:
    assisted_manual(workspace, campaign="manual-1", images=2, order="random", embed_ahead=0)
    assert annotate(workspace, "manual-1") == 2
    assert publish_annotations(workspace, "manual-1", note="first round") == "r1"
    assert publish_annotations(workspace, "manual-1") is None
    with opened(workspace) as (data, _):
        release = latest_release(data)
    assert release is not None
    assert (release.kind, release.masks, release.note) == ("annotation", 6, "first round")
    rows = {row["release"]: row[""] for row in tables(prefect_client, "release")}
    assert rows["release"] == "r1"


def test_what_an_audit_refuses_stays_until_a_person_accepts_it(
    workspace: str, prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assisted_manual(workspace, campaign="manual-1", images=2, order="random", embed_ahead=0)
    annotate(workspace, "manual-1")

    def refuse(opened: Workspace, staged: Staged) -> GateReport:
        first, *rest = audit(opened, staged).checks
        return replace(audit(opened, staged), checks=(replace(first, passed=False), *rest))

    monkeypatch.setattr("flows.publish_annotations.audit", refuse)
    with pytest.raises(RefusedError):
        publish_annotations(workspace, "manual-1")
    assert [row["passed"] for row in tables(prefect_client, "audit")].count("NO") == 1
    assert publish_annotations(workspace, "manual-1", accepted="looked at it") == "r1"
    with opened(workspace) as (data, _):
        (release,) = list_releases(data)
    assert (release.masks, release.accepted) == (6, "looked at it")


def test_a_semi_automatic_campaign_is_prefilled_by_a_proposer_that_is_trained_once(
    workspace: str,
) -> None:
    with pytest.raises(BadInputError, match="has no release"):
        semi_automatic(workspace, campaign="semi-1", images=1, order="random")
    with opened(workspace) as (_, db):
        assert not list_campaigns(db)
    assisted_manual(workspace, campaign="manual-1", images=3, order="random", embed_ahead=0)
    annotate(workspace, "manual-1")
    publish_annotations(workspace, "manual-1")
    semi = semi_automatic(workspace, campaign="semi-1", images=1, order="random", proposer_steps=1)
    assert (semi.stage, semi.images, semi.embedded) == ("semi", 1, 1)
    with opened(workspace) as (data, db):
        (proposer,) = list_proposers(data.store)
        campaign = next(one for one in list_campaigns(db) if one.name == "semi-1")
        assert noted_proposer(campaign) == proposer.name
        records = list(data.store.list(f"annotation/{campaign.campaign_id}/prefill/"))
        assert len(records) == 1
    again = semi_automatic(workspace, campaign="semi-1", images=1, proposer_steps=1)
    assert (again.campaign_id, again.opened, again.prepared) == (semi.campaign_id, False, 0)
    with opened(workspace) as (data, _):
        assert len(list_proposers(data.store)) == 1
        assert len(list_releases(data)) == 1


@pytest.mark.slow
def test_a_killed_prefilling_goes_on_where_it_was_and_shows_nobody_an_image_without_proposals(
    tmp_path: Path, prefect_server: PrefectServer
) -> None:
    write_photos(tmp_path / "photos", 40)
    address = str(tmp_path / "workspace")
    ingest([str(tmp_path / "photos" / "images")], address)
    asked: dict[str, Any] = {"workspace": address, "campaign": "semi-1", "proposer": "auto"}
    asked["order"] = "random"
    process = subprocess.Popen([sys.executable, "-c", SEMI, json.dumps(asked)])
    try:
        campaign = wait_for(lambda: _being_prefilled(address, records=34), "proposals", 500)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait(30)
    with opened(address) as (data, db):
        made = _records(data, campaign)
        assert len(made) < 40
        ready = {image.image_id for image in campaign_images(db, campaign.campaign_id)}
        ready -= set(pending_images(db, campaign.campaign_id))
        assert ready, "people begin while the rest is prepared"
        assert ready <= {int(Path(key).stem) for key in made}
    finished = semi_automatic(**asked)
    assert (finished.campaign_id, finished.images) == (campaign.campaign_id, 40)
    with opened(address) as (data, db):
        after = _records(data, campaign)
        assert len(after) == 40
        assert {key: after[key] for key in made} == made, "what was made was made again"
        assert pending_images(db, campaign.campaign_id) == ()
        assert len(list_campaigns(db)) == 1
        proposed = [
            len(proposals_of(db, campaign.campaign_id, image.image_id))
            for image in campaign_images(db, campaign.campaign_id)
        ]
    assert sum(proposed) > 0


def _being_prefilled(address: str, records: int) -> Campaign | None:
    with opened(address) as (data, db):
        for campaign in list_campaigns(db):
            if len(_records(data, campaign)) >= records:
                return campaign
    return None


def _records(data: Workspace, campaign: Campaign) -> dict[str, object]:
    """Return when the record of each image's proposals was written, by key."""
    found = data.store.objects(f"annotation/{campaign.campaign_id}/prefill/")
    return {item.key: item.modified_at for item in found}
