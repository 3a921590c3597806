"""`maskwheel auto` as a user runs it: real processes, a real Prefect server, the bundled model."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from pycocotools import mask as coco

from engine.dataset.catalog import Workspace
from engine.dataset.releases import list_releases, scan
from tests.flows.conftest import Cli
from tests.same_data_set import CLOCK, assert_same_data_set, shard_hashes, tables

FAST = ("--points-per-side", "4", "--pred-iou-thresh", "0.01", "--stability-score-thresh", "0.1")
KILLS = 6


def auto(photos: Path, workspace: Path) -> tuple[str | Path, ...]:
    return ("auto", photos, "-w", workspace, *FAST, "--images-per-shard", "4")


@pytest.fixture(scope="module")
def undisturbed(
    cli: Cli, thirty_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    workspace = tmp_path_factory.mktemp("undisturbed") / "workspace"
    began = time.monotonic()
    outcome = cli.json(*auto(thirty_photos, workspace), SOURCE_DATE_EPOCH=CLOCK)
    assert outcome["images_masked"] == 30
    assert outcome["masks"] > 30
    assert [(s["uri"].split("/")[-1], s["reason"]) for s in outcome["skipped"]] == [
        ("cut-short.jpg", "truncated")
    ]
    return workspace, time.monotonic() - began


def test_a_second_run_over_the_same_photos_does_nothing_and_says_so(
    cli: Cli, thirty_photos: Path, undisturbed: tuple[Path, float]
) -> None:
    workspace, _ = undisturbed
    before = shard_hashes(workspace)
    done = cli.run(*auto(thirty_photos, workspace))
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
    assert shard_hashes(workspace) == before


def test_without_a_server_nobody_is_told_and_the_data_set_is_the_same(
    cli: Cli, thirty_photos: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    workspace, home = tmp_path / "workspace", tmp_path / "prefect"
    unwatched = {k: v for k, v in cli.environment.items() if not k.startswith("PREFECT")}
    alone = Cli({**unwatched, "PREFECT_HOME": str(home), "SOURCE_DATE_EPOCH": CLOCK})
    outcome = alone.json(*auto(thirty_photos, workspace))
    assert (outcome["images_masked"], len(outcome["skipped"])) == (30, 1)
    assert_same_data_set(workspace, undisturbed[0])
    assert not home.exists(), "Prefect would have made a database there"


def test_killed_at_random_instants_and_run_again_it_equals_an_undisturbed_run(
    cli: Cli, thirty_photos: Path, undisturbed: tuple[Path, float], tmp_path: Path
) -> None:
    reference, seconds = undisturbed
    random_source = random.Random(4)  # noqa: S311 - instants, not secrets
    killed = finished = 0
    while killed < KILLS:
        workspace = tmp_path / f"workspace-{finished}"
        process = cli.start(*auto(thirty_photos, workspace), SOURCE_DATE_EPOCH=CLOCK)
        try:
            _, errors = process.communicate(timeout=seconds * random_source.uniform(0.3, 0.9))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        else:  # resumed runs are shorter: check the result, begin another, kill earlier
            assert process.returncode == 0, errors
            assert_same_data_set(workspace, reference)
            finished += 1
            seconds *= 0.8
    outcome = cli.json(*auto(thirty_photos, workspace), SOURCE_DATE_EPOCH=CLOCK)
    assert outcome["release"] == "r1"
    assert_same_data_set(workspace, reference)


def test_new_photos_only_are_added(cli: Cli, thirty_photos: Path, tmp_path: Path) -> None:
    workspace, photos = tmp_path / "workspace", sorted(thirty_photos.glob("photo-*.jpg"))
    options = ("-w", workspace, *FAST)
    first = cli.json("auto", *photos[:3], *options)
    second = cli.json("auto", *photos[:5], *options)
    assert (first["images_masked"], first["release"]) == (3, "r1")
    assert (second["images_masked"], second["images_listed"], second["release"]) == (2, 5, "r2")
    with Workspace.open(workspace, create=False) as opened:
        releases = list_releases(opened)
        assert [r.images for r in releases] == [3, 5]
        assert releases[1].parent == "r1"
        masked = scan(opened, releases[1], "image_runs")["image_id"].to_pylist()
    assert len(masked) == len(set(masked)) == 5


def test_without_photos_it_masks_all_that_the_workspace_knows(
    cli: Cli, thirty_photos: Path, tmp_path: Path
) -> None:
    workspace, photos = tmp_path / "workspace", sorted(thirty_photos.glob("photo-*.jpg"))
    assert cli.json("auto", photos[0], "-w", workspace, *FAST)["images_masked"] == 1
    cli.json("ingest", *photos[:4], "-w", workspace)
    code = (
        "import sys; from flows.fully_automatic import fully_automatic\n"
        "settings = dict(points_per_side=4, pred_iou_thresh=0.01, stability_score_thresh=0.1)\n"
        "print(fully_automatic(workspace=sys.argv[1], settings=settings).images_masked)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, workspace],
        env=cli.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "3"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_duckdb_pandas_and_pycocotools_read_the_shards(undisturbed: tuple[Path, float]) -> None:
    pattern = str(undisturbed[0] / "runs" / "*" / "masks-*.parquet")
    counted = duckdb.sql(
        f"SELECT image_id, count(*) AS masks FROM '{pattern}' GROUP BY image_id"  # noqa: S608
    ).fetchall()
    frame = pd.concat(pd.read_parquet(path) for path in undisturbed[0].glob("runs/*/*.parquet"))
    assert sum(masks for _, masks in counted) == len(frame) > 0
    for row in frame.itertuples():
        rle = {"size": [row.size_h, row.size_w], "counts": str(row.counts).encode()}
        mask = coco.decode(rle)
        assert mask.shape == (row.size_h, row.size_w)
        assert mask.sum() == row.area
        ys, xs = np.nonzero(mask)
        box = (xs.min(), ys.min(), xs.max() - xs.min(), ys.max() - ys.min())
        assert box == (row.bbox_x, row.bbox_y, row.bbox_w, row.bbox_h)


def test_rows_carry_their_provenance(undisturbed: tuple[Path, float]) -> None:
    found = tables(undisturbed[0])
    masks = found["masks"]
    assert pc.unique(masks["stage"]).to_pylist() == ["auto"]
    assert len(pc.unique(masks["model_id"])) == 1
    assert masks["model_id"][0].as_py().startswith("bundled-")
    assert set(masks["image_id"].to_pylist()) <= set(found["images"]["image_id"].to_pylist())
    assert len(set(masks["mask_id"].to_pylist())) == masks.num_rows


def test_a_photo_that_changed_after_ingest_is_recorded_and_stops_nothing(
    cli: Cli, thirty_photos: Path, tmp_path: Path
) -> None:
    folder, workspace = tmp_path / "photos", tmp_path / "workspace"
    folder.mkdir()
    for i in range(3):
        data = (thirty_photos / f"photo-{i:02d}.jpg").read_bytes()
        (folder / f"{i}.jpg").write_bytes(data)
    cli.json("ingest", folder, "-w", workspace)
    changed = (thirty_photos / "photo-09.jpg").read_bytes()
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{folder}/{i}.jpg\n" for i in range(3)))
    (folder / "1.jpg").write_bytes(changed)
    outcome = cli.json("auto", listed, "-w", workspace, *FAST)
    assert (
        outcome["images_masked"] == 3
    )  # the changed file is a new image, the old one is not asked for


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("auto", "nowhere/"), 3, "nowhere"),
        (("auto", "{photos}", "--model", "vit_x"), 3, "unknown model 'vit_x'"),
        (("auto", "{photos}", "--model", "missing.pth"), 3, "no such file"),
        (("auto", "{photos}", "--pred-iou-thresh", "7"), 3, "pred_iou_thresh must be from 0 to 2"),
        (("auto",), 2, "Missing argument"),
        (("auto", "{photos}", "--points-per-side", "many"), 2, "not a valid integer"),
        (("report", "-w", "{empty}"), 3, "maskwheel auto"),
        (("releases", "show", "r9", "-w", "{workspace}"), 3, "r9"),
    ],
)
def test_bad_input_gets_one_clear_line_and_its_exit_code(
    cli: Cli,
    thirty_photos: Path,
    undisturbed: tuple[Path, float],
    tmp_path: Path,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    empty = tmp_path / "empty"
    Workspace.open(empty).close()
    filled = [
        a.format(photos=thirty_photos, empty=empty, workspace=undisturbed[0]) for a in arguments
    ]
    if filled[0] == "auto" and len(filled) > 1:
        filled += ["-w", str(tmp_path / "workspace")]
    done = cli.run(*filled)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_overlays_and_the_report_are_written(
    cli: Cli, undisturbed: tuple[Path, float], thirty_photos: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    photos = [*sorted(thirty_photos.glob("photo-*.jpg"))[:2], thirty_photos / "cut-short.jpg"]
    outcome = cli.json("auto", *photos, "-w", workspace, *FAST, "--overlays")
    assert len(list(Path(outcome["overlays"]).glob("*.jpg"))) == 2
    page = Path(cli.json("report", "-w", workspace)["report"])
    text = page.read_text()
    assert "r1" in text
    assert "cut-short.jpg" in text
    assert "truncated" in text
    assert text.count("<svg") > 2


def test_doctor_finds_everything_in_order(cli: Cli, tmp_path: Path) -> None:
    checks = cli.json("doctor", "-w", tmp_path / "workspace")["checks"]
    assert {check["name"] for check in checks} >= {"torch", "bundled model", "catalog", "prefect"}
    assert all(check["works"] for check in checks), checks
