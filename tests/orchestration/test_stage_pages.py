"""The pages that the stages leave in the Prefect UI, on a real server."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient

from engine.evaluation.bootstrap import Estimate
from engine.images import encode_png
from engine.learning.training_log import LogEntry
from engine.quality.agreement import AgreementReport, AgreementRow, WorstPair
from engine.quality.audit_records import AuditCheck, AuditRecord, AuditSettings
from engine.records import (
    ComparedRow,
    ModelMetric,
    ModelOrigin,
    ModelVersion,
    PromotionDecision,
)
from engine.wheel.decision import decide
from engine.wheel.policy_values import PRESETS
from engine.wheel.state import CampaignLook, WheelState
from flows.artifacts.audits import show_release_audit
from flows.artifacts.campaigns import show_campaign
from flows.artifacts.decisions import show_decision
from flows.artifacts.links import linked
from flows.artifacts.training import show_promotion, show_training
from tests.orchestration.conftest import newest_artifact
from tests.quality.release_builders import rectangle

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HOSTILE = "<b>*x*</b>|[a](http://e)"
SAFE = r"\<b\>\*x\*\</b\>\|\[a\](http\://e)"


def page(client: SyncPrefectClient, key: str) -> str:
    """The newest page of a key."""
    return str(newest_artifact(client, key).data)


def a_decision(**changes: object) -> PromotionDecision:
    row = ComparedRow(
        row="held out of r5, 1 click",
        fingerprint="f",
        images=120,
        masks=980,
        candidate=0.617,
        champion=0.585,
        low=0.022,
        high=0.042,
    )
    values: dict[str, object] = {
        "number": 4,
        "outcome": "promoted",
        "candidate": "m3",
        "candidate_sha256": "0",
        "previous_champion": "m2",
        "champion": "m3",
        "champion_sha256": "0",
        "rows": (row,),
        "margin": 0.005,
        "tolerance": 0.01,
        "decided_by": "retrain",
        "note": HOSTILE,
        "decided_at": NOW,
    }
    return PromotionDecision(**{**values, **changes})  # type: ignore[arg-type]


def test_a_training_shows_its_curve_and_where_the_model_comes_from(
    prefect_client: SyncPrefectClient,
) -> None:
    version = ModelVersion(
        name="m3",
        model_id="compact-1",
        sha256="0",
        size_bytes=9_700_000,
        config_json="{}",
        origin=ModelOrigin(kind="trained", parent="m2", trained_on=("r5",), recipe="finetune"),
        metrics=(ModelMetric(row="held out of r5, 1 click", fingerprint="f", mean_iou=0.617),),
        created_at=NOW,
    )
    entries = [LogEntry(step, "train", {"total": 1 / step, "miou": 0.5}) for step in (10, 20, 30)]

    @flow
    def show() -> None:
        show_training(version, entries, workspace="/data/my birds", reason=HOSTILE)

    show()
    text = page(prefect_client, "training")
    assert text.startswith("# Model m3\n")
    assert "](data:image/png;base64," in text
    assert "| steps | 30 |" in text
    assert "| held out of r5, 1 click | 61.7 |" in text
    assert SAFE in text
    assert "`maskwheel models show m3 -w '/data/my birds'`" in text


@pytest.mark.parametrize(
    ("changes", "heading", "can_go_back"),
    [
        ({}, "m3 is the champion now", True),
        (
            {"outcome": "refused", "champion": "m2", "reasons": ("worse by 3 points",)},
            "m3 was refused",
            False,
        ),
    ],
)
def test_a_promotion_shows_candidate_against_champion(
    prefect_client: SyncPrefectClient, changes: dict[str, object], heading: str, can_go_back: bool
) -> None:
    @flow
    def show() -> None:
        show_promotion(a_decision(**changes), workspace="/data/birds")

    show()
    text = page(prefect_client, "promotion")
    assert text.startswith(f"# {heading}\n")
    assert "| held out of r5, 1 click | 120 | 980 | 61.7 | 58.5 | +3.2 | +2.2 to +4.2 |" in text
    assert SAFE in text
    assert ("models rollback" in text) == can_go_back
    assert ("- worse by 3 points" in text) != can_go_back


def test_an_audit_shows_what_was_asked_and_the_worst_pairs(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(encode_png(np.zeros((60, 80, 3), dtype=np.uint8)))
    share = Estimate(mean=0.81, low=0.78, high=0.83)
    row = AgreementRow(
        source="automatic",
        model_id="compact-1",
        stage="all",
        images=40,
        made=800,
        human=300,
        pairs=210,
        mean_iou=share,
        above_90=None,
        above_75=share,
        found=share,
    )
    pair = WorstPair(
        image_id=1,
        uri=str(photo),
        source="automatic",
        model_id="compact-1",
        iou=0.51,
        made=rectangle(5, 5, 20, 20).rle,
        human=rectangle(10, 5, 20, 20).rle,
    )
    record = AuditRecord(
        release="r6",
        settings=AuditSettings(),
        outcome="failed",
        figure=0.81,
        bar=0.85,
        reason="mean IoU with people's masks is 0.81",
        model="compact-1",
        checks=(AuditCheck(name="mean IoU", passed=False, figure=0.81, bar=0.85, detail=HOSTILE),),
        agreement=AgreementReport(images=40, rows=(row,), worst=(pair,)),
        audited_at=NOW,
    )

    @flow
    def show() -> None:
        show_release_audit(record, workspace="/data/birds")

    show()
    text = page(prefect_client, "release-audit")
    assert text.startswith("# Release r6: failed\n")
    assert f"| mean IoU | NO | 0.81 | 0.85 | {SAFE} |" in text
    assert "| 0.81 (0.78 to 0.83) | - |" in text
    assert "](data:image/jpeg;base64," in text
    assert "*a.png (IoU 0.51)*" in text
    assert "maskwheel run retrain -p release=r6" in text


def test_the_data_engine_explains_what_is_due_and_how_far_the_wheel_is(
    prefect_client: SyncPrefectClient,
) -> None:
    policy = PRESETS["small"]
    over = CampaignLook(
        campaign_id="c1",
        name="manual-1",
        stage="manual",
        state="complete",
        tasks=30,
        done=30,
        due=28,
    )
    state = WheelState(
        workspace="/data/birds", workspace_id="abc", images=995, candidates=700, campaigns=(over,)
    )
    decision = decide(policy, state)
    [action] = decision.actions

    @flow
    def show() -> None:
        outcomes = {action.key: linked("http://127.0.0.1:4200/runs/x", "started")}
        show_decision(decision, state, policy, outcomes)

    show()
    text = page(prefect_client, "data-engine")
    assert text.startswith("# Due: publish-annotations\n")
    assert text.count("28 images of it are to be published") == 1
    assert "  - [started](<http://127.0.0.1:4200/runs/x>)" in text
    assert "| manual-1 | 30 | over: 0 photos published, 28 to be published |" in text
    assert "| semi-1 | " in text
    assert '    "images": 995,' in text


def test_a_data_engine_that_waits_says_for_what(prefect_client: SyncPrefectClient) -> None:
    state = WheelState(workspace="/data/birds", workspace_id="abc")
    policy = PRESETS["paper"]

    @flow
    def show() -> None:
        show_decision(decide(policy, state), state, policy, dry_run=True)

    show()
    text = page(prefect_client, "data-engine")
    assert text.startswith("# Nothing is due\n")
    assert "There are no photos yet; `maskwheel ingest PHOTOS` adds some." in text
    assert "This was a dry run" in text


@pytest.mark.parametrize("url", ["http://127.0.0.1:8765/annotate/birds-1", None])
def test_a_campaign_leads_people_to_its_page(
    prefect_client: SyncPrefectClient, url: str | None
) -> None:
    @flow
    def show() -> None:
        show_campaign(
            HOSTILE, url, stage="semi", images=40, ready=32, proposals=512, workspace="/w"
        )

    show()
    text = page(prefect_client, "campaign")
    assert text.startswith(f"# Campaign {SAFE} opened\n")
    assert (f"(<{url}>)" in text) == (url is not None)
    assert ("maskwheel annotate --serve -w /w" in text) == (url is None)
    assert "| ready for people | 32 |" in text
