from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.dataset import ingest as ingest_module
from engine.dataset.catalog import Workspace, commit_history
from engine.dataset.ingest import ListedImage, expand_inputs, ingest, load_images
from engine.errors import BadInputError, WorkspaceError
from engine.images import ImageLimits
from engine.objects import open_store
from tests.dataset.dataset_builders import LIMITS, NOW, write_images


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "work") as workspace:
        yield workspace


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_images(folder, 3)
    return folder


def names(*inputs: Path | str) -> list[str]:
    return [Path(image.uri).name for image in expand_inputs([str(i) for i in inputs])]


def rows_of(workspace: Workspace) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = workspace.table("images").scan().to_arrow().to_pylist()
    return rows


class TestExpandInputs:
    def test_a_folder_gives_its_images_sorted_with_subfolders(self, photos: Path) -> None:
        write_images(photos / "b", 1, first=7)
        write_images(photos / "a", 1, first=8)
        (photos / "UPPER.JPG").write_bytes(b"x")
        (photos / "notes.txt").write_text("nowhere.png")
        found = [Path(i.uri).relative_to(photos).as_posix() for i in expand_inputs([str(photos)])]
        assert found == [
            "0000.png",
            "0001.png",
            "0002.png",
            "UPPER.JPG",
            "a/0008.png",
            "b/0007.png",
        ]

    def test_hidden_files_hidden_folders_and_workspaces_are_left_out(self, photos: Path) -> None:
        write_images(photos / ".thumbnails", 1)
        (photos / "._0000.png").write_bytes(b"x")
        Workspace.open(photos / "maskwheel-data").close()
        write_images(photos / "maskwheel-data" / "overlays", 1)
        assert names(photos) == ["0000.png", "0001.png", "0002.png"]

    def test_linked_folders_are_followed_once(self, photos: Path, tmp_path: Path) -> None:
        write_images(tmp_path / "elsewhere", 1, first=5)
        (photos / "link").symlink_to(tmp_path / "elsewhere")
        (photos / "loop").symlink_to(photos)
        assert names(photos) == ["0000.png", "0001.png", "0002.png", "0005.png"]

    def test_a_file_counts_whatever_its_suffix(self, photos: Path) -> None:
        (photos / "scan.dat").write_bytes(b"x")
        assert names(photos / "scan.dat") == ["scan.dat"]

    def test_globs_match_files_and_folders_once(self, photos: Path) -> None:
        write_images(photos / "deep" / "er", 1, first=9)
        assert names(photos / "*2.png") == ["0002.png"]
        assert sorted(names(photos / "**")) == ["0000.png", "0001.png", "0002.png", "0009.png"]

    def test_a_file_whose_name_looks_like_a_glob_is_that_file(self, photos: Path) -> None:
        (photos / "a[1].png").write_bytes(b"x")
        assert names(photos / "a[1].png") == ["a[1].png"]

    def test_inputs_keep_their_order_and_each_address_counts_once(self, photos: Path) -> None:
        assert names(photos / "0002.png", photos) == ["0002.png", "0000.png", "0001.png"]

    def test_relative_paths_become_absolute(
        self, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos.parent)
        assert [i.uri for i in expand_inputs(["photos/0000.png"])] == [str(photos / "0000.png")]

    def test_file_addresses_are_paths(self, photos: Path) -> None:
        spaced = photos / "a b%41.png"
        spaced.write_bytes(b"x")
        for address in (spaced.as_uri(), f"file://{spaced}"):
            assert [image.uri for image in expand_inputs([address])] == [str(spaced)]

    def test_a_text_list_names_paths_and_addresses(self, photos: Path) -> None:
        listed = photos / "list.txt"
        listed.write_text(
            f"\ufeff0001.png\n\n# a comment\n  {photos}/0000.png\nhttps://example.org/a.png?b#c\n"
        )
        assert [image.uri for image in expand_inputs([str(listed)])] == [
            str(photos / "0001.png"),
            str(photos / "0000.png"),
            "https://example.org/a.png?b#c",
        ]

    def test_a_csv_list_carries_license_and_split(self, photos: Path) -> None:
        listed = photos / "list.csv"
        listed.write_text('split,uri,other\ntrain,"0001.png",x\n,../photos/0002.png,y\n,,\n')
        assert expand_inputs([str(listed)]) == [
            ListedImage(str(photos / "0001.png"), None, "train"),
            ListedImage(str(photos / "0002.png"), None, None),
        ]

    def test_a_parquet_list_carries_license_and_split(self, photos: Path) -> None:
        table = pa.table({"uri": ["0001.png", None], "license": ["CC0", None], "n": [1, 2]})
        pq.write_table(table, photos / "list.parquet")
        assert expand_inputs([str(photos / "list.parquet")]) == [
            ListedImage(str(photos / "0001.png"), "CC0", None)
        ]

    @pytest.mark.parametrize(
        ("name", "content", "complaint"),
        [
            ("l.csv", b"path,split\na.png,train\n", r"columns \['path', 'split'\]; expected 'uri'"),
            ("l.csv", b"", "expected 'uri'"),
            ("l.csv", b"uri\n", "names no images"),
            ("l.txt", b"# only a comment\n", "names no images"),
            ("l.txt", b"\xff\xfe\x00", "cannot be read"),
            ("l.parquet", b"PAR1", "cannot be read"),
        ],
    )
    def test_a_list_that_cannot_be_used_is_named(
        self, tmp_path: Path, name: str, content: bytes, complaint: str
    ) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInputError, match=complaint):
            expand_inputs([str(tmp_path / name)])

    def test_what_does_not_exist_or_matches_nothing_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(BadInputError, match="does not exist; expected an image"):
            expand_inputs([str(tmp_path / "absent.png")])
        with pytest.raises(BadInputError, match=r"the pattern .* has no images"):
            expand_inputs([str(tmp_path / "*.png")])
        with pytest.raises(BadInputError, match=r"the folder .* has no images"):
            expand_inputs([str(tmp_path / "empty")])
        with pytest.raises(BadInputError, match="got no input"):
            expand_inputs([])


class TestIngest:
    def test_every_usable_image_becomes_a_row(self, workspace: Workspace, photos: Path) -> None:
        listed = [ListedImage(str(p), "CC0", "train") for p in sorted(photos.iterdir())]
        result = ingest(workspace, listed, LIMITS, NOW)
        assert (result.new, result.duplicates, result.skipped) == (3, 0, ())
        assert list(result.image_ids) == sorted(result.image_ids)
        rows = rows_of(workspace)
        assert sorted(str(row["uri"]) for row in rows) == [image.uri for image in listed]
        assert {(r["width"], r["height"], r["format"], r["license"], r["split"]) for r in rows} == {
            (32, 24, "png", "CC0", "train")
        }
        assert {row["ingested_at"] for row in rows} == {NOW}
        assert all(row["image_id"] == int(str(row["sha256"])[:16], 16) >> 1 for row in rows)

    def test_again_it_adds_nothing_and_finds_the_same(
        self, workspace: Workspace, photos: Path
    ) -> None:
        listed = expand_inputs([str(photos)])
        first = ingest(workspace, listed, LIMITS, NOW)
        before = rows_of(workspace)
        again = ingest(workspace, listed, LIMITS, NOW + timedelta(days=1))
        assert (again.image_ids, again.new) == (first.image_ids, 0)
        assert rows_of(workspace) == before

    def test_only_new_images_are_added(self, workspace: Workspace, photos: Path) -> None:
        ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
        write_images(photos, 2, first=3)
        result = ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
        assert (len(result.image_ids), result.new) == (5, 2)
        assert len(rows_of(workspace)) == 5

    def test_the_first_of_equal_images_counts(self, workspace: Workspace, photos: Path) -> None:
        (photos / "zz copy.png").write_bytes((photos / "0001.png").read_bytes())
        result = ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
        assert (len(result.image_ids), result.new, result.duplicates) == (3, 3, 1)
        assert not any("copy" in str(row["uri"]) for row in rows_of(workspace))

    def test_bad_images_are_reported_and_stop_nothing(
        self, workspace: Workspace, photos: Path
    ) -> None:
        (photos / "0000b.png").write_bytes(b"no image at all")
        listed = [
            *expand_inputs([str(photos)]),
            ListedImage(str(photos / "gone.png")),
            ListedImage("gopher://old/a.png"),
        ]
        result = ingest(workspace, listed, LIMITS, NOW)
        assert result.new == 3
        assert [(Path(s.uri).name, s.reason) for s in result.skipped] == [
            ("0000b.png", "not-an-image"),
            ("gone.png", "not-found"),
            ("a.png", "unsupported-address"),
        ]
        assert all(skipped.message for skipped in result.skipped)

    def test_limits_apply(self, workspace: Workspace, photos: Path) -> None:
        limits = ImageLimits(max_pixels=10, max_bytes=10**6)
        result = ingest(workspace, expand_inputs([str(photos)]), limits, NOW)
        assert (result.image_ids, len(result.skipped)) == ((), 3)
        assert commit_history(workspace.table("images")) == []

    def test_images_come_from_buckets_and_what_cannot_be_reached_is_skipped(
        self, workspace: Workspace, photos: Path, s3_address: str
    ) -> None:
        store = open_store(s3_address)
        for path in sorted(photos.iterdir()):
            store.put_if_absent(f"in/{path.name}", path.read_bytes())
        store.put_if_absent("in/copy.png", (photos / "0001.png").read_bytes())
        listed = [*expand_inputs([f"{s3_address}/in/"]), ListedImage(f"{s3_address}/gone.png")]
        result = ingest(workspace, listed, LIMITS, NOW)
        assert (result.new, result.duplicates) == (3, 1)
        assert [(s.uri, s.reason) for s in result.skipped] == [
            (f"{s3_address}/gone.png", "not-found")
        ]
        assert {str(row["uri"]) for row in rows_of(workspace)} == {
            f"{s3_address}/in/{name}" for name in ("0000.png", "0001.png", "0002.png")
        }

    def test_progress_is_told_in_order(self, workspace: Workspace, photos: Path) -> None:
        told: list[str] = []
        listed = expand_inputs([str(photos)])
        ingest(workspace, listed, LIMITS, NOW, told.append)
        assert told == [image.uri for image in listed]

    def test_images_are_committed_in_chunks(
        self, workspace: Workspace, photos: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ingest_module, "_IMAGES_PER_COMMIT", 2)
        write_images(photos, 4, first=3)
        ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
        history = commit_history(workspace.table("images"))
        assert [commit.rows for commit in history] == [2, 4, 6, 7]

    def test_images_that_another_process_adds_meanwhile_are_not_doubled(
        self, workspace: Workspace, photos: Path
    ) -> None:
        listed = expand_inputs([str(photos)])

        def rival(uri: str) -> None:
            if uri == listed[-1].uri:
                ingest(workspace, listed[:2], LIMITS, NOW)

        result = ingest(workspace, listed, LIMITS, NOW, rival)
        assert (len(result.image_ids), result.new) == (3, 1)
        assert len(rows_of(workspace)) == 3


def test_rows_lie_by_id_so_that_statistics_find_them(workspace: Workspace, photos: Path) -> None:
    write_images(photos, 20, first=3)
    ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
    ids = workspace.table("images").scan().to_arrow()["image_id"].to_pylist()
    assert ids == sorted(ids)
    assert len(ids) == 23


def test_images_load_in_the_order_that_is_asked(workspace: Workspace, photos: Path) -> None:
    result = ingest(workspace, expand_inputs([str(photos)]), LIMITS, NOW)
    wanted = list(result.image_ids)[::-1]
    images = load_images(workspace, wanted)
    assert [image.image_id for image in images] == wanted
    assert all(Path(image.uri).is_absolute() for image in images)
    assert images[0].ingested_at == NOW
    with pytest.raises(WorkspaceError, match="lacks 1 of 2 images"):
        load_images(workspace, [wanted[0], 12345])
    assert load_images(workspace, []) == []
