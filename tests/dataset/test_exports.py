"""What every export keeps: it is complete or does not look so, resumable, and equal each time."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.exports.exporting import export_release
from engine.dataset.exports.formats import FORMATS as KNOWN_FORMATS
from engine.dataset.exports.protocol import ExportOptions
from engine.dataset.ingest import ingest
from engine.dataset.inputs import expand_inputs
from engine.errors import BadInputError, WorkspaceError
from engine.images import encode_png
from engine.records import Rle
from tests.dataset.dataset_builders import NOW
from tests.dataset.export_builders import (
    FORMATS,
    LIMITS,
    Made,
    export,
    files_of,
    make_release,
    publish,
)
from tests.quality.release_builders import photo, rectangle

IMAGES, MASKS = 6, 6 + 2 + 7 + 4 + 0 + 3 + 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Workspace, Path]]:
    """A workspace to break, with a photo that has no mask yet."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        (photos / f"{seed}.png").write_bytes(encode_png(photo(seed)))
    with Workspace.open(str(tmp_path / "workspace")) as workspace:
        yield workspace, photos


def sums(folder: Path) -> str:
    return (folder / "SHA256SUMS").read_text()


def test_the_formats_are_those_of_the_tests() -> None:
    assert tuple(KNOWN_FORMATS) == FORMATS


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_says_what_it_is_and_vouches_for_every_file(
    made: Made, tmp_path: Path, name: str
) -> None:
    report = export(made, tmp_path / "out", format=name)
    files = files_of(tmp_path / "out")
    assert (report.images, report.masks, report.problems) == (IMAGES, MASKS, None)
    summary = json.loads(files.pop("export.json"))
    assert summary["release"] == made.release.name
    assert summary["images_per_split"] == {"train": 4, "val": 2}
    checksums = files.pop("SHA256SUMS")
    assert hashlib.sha256(checksums).hexdigest() == summary["checksums"]["sha256"]
    listed = dict(line.split("  ")[::-1] for line in checksums.decode().splitlines())
    assert listed == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    assert report.files == len(files) + 1
    assert report.size_bytes == sum(map(len, files.values())) + len(checksums)


@pytest.mark.parametrize("name", FORMATS)
def test_equal_releases_give_equal_bytes_whatever_the_number_of_threads(
    made: Made, tmp_path: Path, name: str
) -> None:
    export(made, tmp_path / "a", format=name, threads=1)
    export(made, tmp_path / "b", format=name, threads=7)
    assert sums(tmp_path / "a") == sums(tmp_path / "b")


@pytest.mark.parametrize("name", FORMATS)
def test_an_interrupted_export_is_incomplete_and_goes_on_where_it_was(
    made: Made, tmp_path: Path, name: str
) -> None:
    export(made, tmp_path / "whole", format=name, images_per_part=2)
    out = tmp_path / "out"
    done: list[str] = []

    def stop(uri: str, masks: int) -> None:
        done.append(uri)
        if len(done) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(made, out, format=name, images_per_part=2, on_image=stop)
    assert not (out / "export.json").exists()
    assert (out / ".export/train/000000.json").exists()
    seen: list[str] = []
    export(made, out, format=name, images_per_part=2, on_image=lambda uri, n: seen.append(uri))
    assert [uri for uri in seen if not uri] == ["", ""], "a finished part is made again"
    assert sums(out) == sums(tmp_path / "whole")
    assert not (out / ".export").exists() or not list((out / ".export").rglob("*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["webdataset", "coco"])
def test_a_killed_export_goes_on(made: Made, tmp_path: Path, name: str) -> None:
    export(made, tmp_path / "whole", format=name, images_per_part=2)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.dataset.export_kill", made.address]
    command += [made.release.name, name, str(out), "5"]
    killed = subprocess.run(command, check=False, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "export.json").exists()
    export(made, out, format=name, images_per_part=2)
    assert sums(out) == sums(tmp_path / "whole")


def test_a_complete_export_is_found_and_left_alone(made: Made, tmp_path: Path) -> None:
    first = export(made, tmp_path / "out", format="sa1b")
    before = files_of(tmp_path / "out")
    again = export(made, tmp_path / "out", format="sa1b")
    assert again == replace(first, found_complete=True)
    assert files_of(tmp_path / "out") == before


def test_nothing_is_written_where_something_else_is(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInputError, match=r"mine\.txt is in the way"):
        export(made, tmp_path, format="coco")
    assert files_of(tmp_path) == {"mine.txt": b"mine"}
    export(made, tmp_path / "out", format="sa1b")
    with pytest.raises(BadInputError, match="another export, with another options"):
        export(made, tmp_path / "out", format="sa1b", where="area > 3")


def test_a_file_that_somebody_changed_during_the_export_is_noticed(
    made: Made, tmp_path: Path
) -> None:
    def stop(uri: str, masks: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(made, tmp_path, format="yolo", on_image=stop, threads=1)
    written = next((tmp_path / "labels").rglob("*.txt"))
    written.write_text("0 0 0 0 0 0 0\n")
    with pytest.raises(WorkspaceError, match="holds something else"):
        export(made, tmp_path, format="yolo")


@pytest.mark.parametrize("name", FORMATS)
def test_images_that_cannot_be_read_are_left_out_and_listed(
    own: tuple[Workspace, Path], tmp_path: Path, name: str
) -> None:
    workspace, photos = own
    found = ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
    release = publish(workspace, {i: [rectangle(3, 4, 10, 12)] for i in found.image_ids}, "m")
    (photos / "0.png").unlink()
    (photos / "1.png").write_bytes(encode_png(photo(9)))
    out = tmp_path / "out"
    options = ExportOptions(format=name)
    report = export_release(workspace, release, options, str(out), limits=LIMITS, now=NOW)
    assert (report.images, report.masks, report.images_left_out) == (1, 1, 2)
    assert report.problems == f"{out}/problems.jsonl"
    problems = [json.loads(line) for line in (out / "problems.jsonl").read_text().splitlines()]
    assert {Path(p["uri"]).name: p["reason"] for p in problems} == {
        "0.png": "not-found",
        "1.png": "changed",
    }
    assert "problems.jsonl" in sums(out)
    later = export_release(
        workspace, release, options, str(out), limits=LIMITS, now=NOW + timedelta(days=1)
    )
    assert later == replace(report, found_complete=True)


@pytest.mark.parametrize("name", ["yolo", "png"])
def test_a_damaged_mask_is_left_out_and_listed(
    own: tuple[Workspace, Path], tmp_path: Path, name: str
) -> None:
    workspace, photos = own
    found = ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
    good = rectangle(3, 4, 10, 12)
    bad = replace(good, rle=Rle(60, 80, "cut"))
    release = publish(workspace, {found.image_ids[0]: [good, bad]}, "m")
    out = tmp_path / "out"
    options = ExportOptions(format=name)
    report = export_release(workspace, release, options, str(out), limits=LIMITS, now=NOW)
    assert (report.images, report.masks, report.masks_left_out) == (1, 1, 1)
    assert json.loads((out / "problems.jsonl").read_text())["mask_id"] is not None


def test_a_condition_and_splits_choose_what_is_exported(made: Made, tmp_path: Path) -> None:
    report = export(made, tmp_path / "out", format="sa1b", splits=("val",), where="area > 300")
    wanted = sum(
        record.area > 300 for name in ("turned.jpg", "later.png") for record in made.masks[name]
    )
    assert (report.images, report.masks) == (2, wanted)
    assert {path.split("/")[0] for path in files_of(tmp_path / "out")} == {
        *("val", "SHA256SUMS", "export.json")
    }


def test_images_that_no_run_has_looked_at_are_not_in_an_export(made: Made, tmp_path: Path) -> None:
    export(made, tmp_path, format="webdataset", images="none", images_per_part=1)
    ids = {made.ids[name] for name in made.masks}
    assert "never_masked.png" in made.ids
    assert "empty.png" in made.masks
    assert json.loads((tmp_path / "export.json").read_text())["images"] == len(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "pascal"}, "expected one of"),
        ({"format": "coco", "splits": ("test",)}, "nothing to export"),
        ({"format": "coco", "where": "areas > 3"}, "got the condition"),
        ({"format": "coco", "where": "area >"}, "got the condition"),
        ({"format": "yolo", "tolerance_px": -1.0}, "tolerance"),
    ],
)
def test_options_that_cannot_be_used_say_why(
    made: Made, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        export(made, tmp_path / "out", **options)


def test_without_images_nothing_is_read_and_addresses_stand_instead(
    own: tuple[Workspace, Path], tmp_path: Path
) -> None:
    workspace, photos = own
    found = ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
    release = publish(workspace, {found.image_ids[0]: [rectangle(3, 4, 10, 12)]}, "m")
    shutil.rmtree(photos)
    options = ExportOptions(format="coco", images="none")
    report = export_release(
        workspace, release, options, str(tmp_path / "o"), limits=LIMITS, now=NOW
    )
    assert report.problems is None
    (image,) = json.loads((tmp_path / "o/instances_all.json").read_text())["images"]
    assert Path(image["file_name"]).parent == photos
