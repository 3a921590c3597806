"""A run that the audit refuses, from the command line: kept, explained, and accepted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.dataset.catalog import Workspace
from engine.dataset.releases import list_releases
from tests.flows.conftest import Cli

FAST = ("--points-per-side", "4", "--pred-iou-thresh", "0.01", "--stability-score-thresh", "0.1")


def claim_larger_areas(shard: Path) -> None:
    """Change a shard as a broken writer would."""
    table, metadata = pq.read_table(shard), pq.read_metadata(shard).metadata
    position = table.schema.get_field_index("area")
    larger = pc.add(table["area"], pa.scalar(1, pa.int64()))
    table = table.set_column(position, table.schema.field(position), larger)
    shard.unlink()
    pq.write_table(table.replace_schema_metadata(metadata), shard)


def test_a_refused_run_is_explained_kept_and_published_when_a_person_accepts_it(
    cli: Cli, thirty_photos: Path, tmp_path: Path
) -> None:
    made, refused = tmp_path / "made", tmp_path / "refused"
    photos = sorted(thirty_photos.glob("photo-*.jpg"))[:3]
    cli.json("auto", *photos, "-w", made, *FAST)
    cli.json("ingest", *photos, "-w", refused)
    [run] = (made / "runs").iterdir()
    shutil.copytree(run, refused / "runs" / run.name, ignore=shutil.ignore_patterns("gate-*.json"))
    claim_larger_areas(refused / "runs" / run.name / "masks-00000.parquet")

    done = cli.run("auto", *photos, "-w", refused, *FAST)
    assert done.returncode == 4, done.stderr
    assert f"the audit refused {run.name}" in done.stderr
    assert "its mask has" in done.stderr
    assert "numbers of masks" in done.stderr, "the table of all checks"
    assert "Traceback" not in done.stderr
    with Workspace.open(refused, create=False) as workspace:
        assert list_releases(workspace) == []

    done = cli.run("releases", "publish", run.name, "--accept", "a test", "-w", refused)
    assert done.returncode == 0, done.stderr
    with Workspace.open(refused, create=False) as workspace:
        [release] = list_releases(workspace)
    assert (release.name, release.accepted, release.runs) == ("r1", "a test", (run.name,))
    again = cli.run("auto", *photos, "-w", refused, *FAST)
    assert again.returncode == 0, again.stderr
    assert "Nothing to do" in again.stdout
