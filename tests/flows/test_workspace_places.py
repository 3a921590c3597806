"""Commands on a workspace in a bucket, with the catalog in SQLite or PostgreSQL."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.doctor import _catalog, _workspace
from flows.commands.doctor import command as doctor
from flows.commands.ingest import command as ingest
from flows.commands.options import workspace_address
from tests.dataset.dataset_builders import write_images
from tests.flows.conftest import Cli
from tests.servers import S3Server

FAST = ("--points-per-side", "4", "--pred-iou-thresh", "0.01", "--stability-score-thresh", "0.1")


@pytest.fixture
def bucket(s3_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MASKWHEEL_LOCAL_FOLDER", str(tmp_path / "local"))
    monkeypatch.delenv("MASKWHEEL_WORKSPACE", raising=False)
    return f"{s3_address}/birds"


def test_photos_are_ingested_into_a_bucket_from_the_command_line(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "photos", 3)
    monkeypatch.setenv("MASKWHEEL_WORKSPACE", bucket)
    assert workspace_address(None) == bucket
    for new in (3, 0):
        done = CliRunner().invoke(ingest, [str(tmp_path / "photos"), "--json"])
        assert done.exception is None, done.output
        answer = json.loads(done.stdout)
        assert (answer["workspace"], answer["new"]) == (bucket, new)


def test_the_doctor_finds_nothing_to_rebuild_in_a_healthy_workspace(
    bucket: str, tmp_path: Path
) -> None:
    write_images(tmp_path / "photos", 1)
    CliRunner().invoke(ingest, [str(tmp_path / "photos"), "-w", bucket], catch_exceptions=False)
    done = CliRunner().invoke(doctor, ["--rebuild-catalog", "-w", bucket], catch_exceptions=False)
    assert "no table is lost, nothing was changed" in done.output


def test_the_doctor_tries_the_bucket(bucket: str) -> None:
    assert _workspace(bucket) == f"{bucket} will be made, can be reached, takes conditional writes"


def test_the_doctor_tries_the_database_and_leaves_nothing_in_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setenv("MASKWHEEL_DATABASE_URL", postgres_url)
    assert _catalog().endswith("on PostgreSQL")
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("select count(*) from iceberg_tables").fetchone() == (0,)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("with_postgres", [False, True])
def test_a_bucket_does_what_a_folder_does(
    cli: Cli,
    bucket: str,
    moto_server: S3Server,
    thirty_photos: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    with_postgres: bool,
) -> None:
    environment = {
        **moto_server.environment(),
        "MASKWHEEL_LOCAL_FOLDER": str(tmp_path / "local"),
        "MASKWHEEL_WORKSPACE": bucket,
    }
    if with_postgres:
        environment["MASKWHEEL_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    outcome = cli.json("auto", thirty_photos, *FAST, "--overlays", **environment)
    assert (outcome["release"], outcome["images_masked"]) == ("r1", 30)
    assert outcome["workspace"] == bucket
    assert list(Path(outcome["overlays"]).glob("*"))
    assert cli.json("auto", thirty_photos, *FAST, **environment)["images_masked"] == 0
    report = cli.json("report", **environment)
    with urllib.request.urlopen(report["link"], timeout=30) as page:  # noqa: S310  (loopback)
        assert page.read() == Path(report["report"]).read_bytes()
    # Nothing of the data set is on this machine.
    local = [path for path in (tmp_path / "local").rglob("*") if path.is_file()]
    assert {path.suffix for path in local} <= {".db", ".db-shm", ".db-wal", ".html", ".png", ".jpg"}
