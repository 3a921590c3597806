"""SQL over a release: the right rows, streamed, and nothing but the release."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from engine.dataset.catalog import Workspace
from engine.dataset.releases import load_release, scan
from engine.dataset.schemas import TABLES, TableName, arrow_schema
from engine.dataset.sql import ReleaseDatabase, open_database
from engine.errors import BadInputError, EngineError, TransientError, WorkspaceError
from engine.objects import LocalStore
from flows.cli import cli
from flows.commands.sql import COMPARED, RECIPES
from tests.dataset.dataset_builders import auto, write_images


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases; a path with all that SQL and DuckDB could stumble over."""
    folder = tmp_path_factory.mktemp("it's sql")
    write_images(folder / "photos", 30)
    auto(folder / "work space", folder / "photos", images_per_shard=8)
    write_images(folder / "photos", 9, first=30)
    auto(folder / "work space", folder / "photos")
    return folder / "work space"


@pytest.fixture
def database(root: Path) -> Iterator[ReleaseDatabase]:
    with open_database(root, threads=1) as opened:
        yield opened


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, ["sql", *arguments], input=stdin)


def answer(root: Path, statement: str, *options: str) -> list[dict[str, Any]]:
    """The rows of a statement, by the command."""
    done = run(statement, "-w", str(root), "--json", *options)
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.output)["rows"]
    return rows


def sorted_rows(table: pa.Table) -> list[str]:
    return sorted(map(str, table.to_pylist()))


@pytest.mark.parametrize("table", TABLES)
def test_every_view_holds_the_rows_of_its_table(
    root: Path, database: ReleaseDatabase, table: TableName
) -> None:
    with Workspace.open(root, create=False) as workspace:
        expected = scan(workspace, load_release(workspace, "r2"), table)
    assert expected.num_rows > 0
    found = database.query(f"from {table}").read_all()
    assert found.column_names == expected.column_names
    assert sorted_rows(found.cast(expected.schema)) == sorted_rows(expected)


def test_a_release_shows_none_of_the_later_rows_and_several_are_told_apart(root: Path) -> None:
    counts = "select (select count(*) from r1.images), (select count(*) from r2.images), count(*)"
    with open_database(root, ["r1", "r2"]) as database:
        rows = database.query(f"{counts} from images").read_all()
    assert list(rows.to_pylist()[0].values()) == [30, 39, 30]


def test_a_table_without_files_is_an_empty_view(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 2)
    releases = auto(tmp_path / "workspace", tmp_path / "photos")
    with open_database(tmp_path / "workspace") as database:
        table = database.query("from masks").read_all()
        assert table.num_rows == releases[0].masks
        nested = "select point_coords[1][1] as x, created_at from masks where area > 1e9"
        assert database.query(nested).read_all().num_rows == 0


def test_a_column_that_is_younger_than_a_file_is_empty_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def widened(table: TableName) -> pa.Schema:
        field = pa.field("note", pa.string(), metadata={"PARQUET:field_id": "777"})
        return arrow_schema(table).append(field)

    monkeypatch.setattr("engine.dataset.sql.arrow_schema", widened)
    with open_database(root) as database:
        rows = database.query("select count(*) n, count(note) notes from masks").read_all()
    assert rows.to_pylist()[0]["n"] > 0
    assert rows.to_pylist()[0]["notes"] == 0


def test_a_folder_that_looks_like_a_pattern_is_taken_literally(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 10)
    release = auto(tmp_path / "work[1]*", tmp_path / "photos")[0]
    with open_database(tmp_path / "work[1]*") as database:
        rows = database.query("select count(*) as n, max(area) as a from masks").read_all()
        filtered = database.query("select image_id from masks where area = 3").read_all()
    assert rows.to_pylist()[0]["n"] == release.masks
    assert rows.to_pylist()[0]["a"] > 3
    assert 0 < filtered.num_rows < release.masks


@pytest.mark.parametrize(
    "statement",
    [
        "select * from read_text('{file}')",
        "select * from '{file}'",
        "from read_parquet('{folder}/work space/runs/*/*.parquet')",
        "copy (select 1) to '{folder}/copy.csv'",
        "attach '{folder}/other.db'",
        "install httpfs",
        "load spatial",
        "set enable_external_access = true",
        "from read_csv('https://example.org/a.csv')",
        "from glob('{folder}/*')",
    ],
)
def test_statements_cannot_touch_other_files(
    database: ReleaseDatabase, root: Path, statement: str
) -> None:
    (root.parent / "secret.txt").write_text("secret")
    before = sorted(root.parent.iterdir())
    folder = str(root.parent).replace("'", "''")
    with pytest.raises(BadInputError):
        database.query(statement.format(file=f"{folder}/secret.txt", folder=folder)).read_all()
    assert sorted(root.parent.iterdir()) == before


def test_variables_of_the_program_are_no_tables(database: ReleaseDatabase) -> None:
    secrets = pa.table({"a": [1]})
    with pytest.raises(BadInputError, match="secrets"):
        database.query("from secrets")
    assert secrets.num_rows == 1


def test_other_files_are_open_when_asked_for(root: Path, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("image_id,name\n1,a\n")
    question = f"select name from read_csv('{tmp_path}/names.csv')"  # noqa: S608
    assert answer(root, question, "--allow-files") == [{"name": "a"}]
    refused = run(question, "-w", str(root))
    assert isinstance(refused.exception, BadInputError)
    assert "--allow-files" in str(refused.exception)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("selec 1", "syntax error"),
        ("select colour from masks", "colour"),
        ("", "no rows"),
        ("-- nothing", "no rows"),
        ("select cast('x' || area as integer) from masks", "Could not convert"),
    ],
)
def test_a_wrong_statement_is_refused_in_the_words_of_duckdb(
    database: ReleaseDatabase, statement: str, message: str
) -> None:
    with pytest.raises(BadInputError, match=message):
        database.query(statement).read_all()
    assert database.query("select 1 as one").read_all().to_pylist() == [{"one": 1}]


def test_a_value_that_fails_late_is_refused_while_reading(database: ReleaseDatabase) -> None:
    late = "select case when range > 300000 then cast('x' || range as int) end from range(500000)"
    rows = database.query(late)
    with pytest.raises(BadInputError, match="x300001"):
        rows.read_all()


def test_the_last_statement_is_the_answer_and_a_table_of_ones_own_may_be_made(
    database: ReleaseDatabase,
) -> None:
    database.query("create table big as select * from masks where area > 3").read_all()
    rows = database.query("create view w as from big; select min(area) as a from w").read_all()
    assert rows["a"].to_pylist() == [6]


def test_a_missing_shard_is_a_damaged_workspace(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 10)
    auto(tmp_path / "workspace", tmp_path / "photos", images_per_shard=50)
    for shard in tmp_path.glob("workspace/runs/*/masks-*.parquet"):
        shard.unlink()
    with pytest.raises(WorkspaceError, match=r"masks-00000.parquet cannot be read"):
        open_database(tmp_path / "workspace")


class _LostConnection(LocalStore):
    """A store that finds everything and reads nothing."""

    def open(self, key: str) -> BinaryIO:
        raise TransientError(f"no answer for {key}")

    def uri(self, key: str) -> str:
        return f"lost://{key}"


@pytest.mark.parametrize(
    ("damage", "error"),
    [("gone", WorkspaceError), ("cut", WorkspaceError), ("lost", TransientError)],
)
def test_what_fails_in_the_storage_is_no_fault_of_the_statement(
    tmp_path: Path, damage: str, error: type[EngineError]
) -> None:
    root = tmp_path / "read [through] the store"
    write_images(tmp_path / "photos", 10)
    release = auto(root, tmp_path / "photos", images_per_shard=50)[0]
    store: LocalStore = LocalStore(root) if damage != "lost" else _LostConnection(root)
    (shard,) = root.glob("runs/*/masks-*.parquet")
    with Workspace.open(root) as workspace, ReleaseDatabase(store, threads=1) as database:
        database.add(workspace, release)
        if damage == "gone":
            shard.unlink()
        elif damage == "cut":
            shard.write_bytes(shard.read_bytes()[:200])
        for statement in ("from masks", "select avg(area) from masks"):
            with pytest.raises(error):
                database.query(statement).read_all()


def test_a_workspace_without_release_is_refused(tmp_path: Path) -> None:
    Workspace.open(tmp_path / "workspace").close()
    with pytest.raises(BadInputError, match="no release"):
        open_database(tmp_path / "workspace")


@pytest.mark.parametrize("what", RECIPES)
def test_every_recipe_gives_rows_of_what_it_promises(root: Path, what: str) -> None:
    rows = answer(root, RECIPES[what])
    assert rows, what
    with Workspace.open(root, create=False) as workspace:
        release = load_release(workspace, "r2")
        masks = scan(workspace, release, "masks").to_pylist()
        statuses = scan(workspace, release, "image_runs").to_pylist()
    masked = {mask["image_id"] for mask in masks}
    skipped = [status for status in statuses if status["status"] == "skipped"]
    largest = sorted((mask["area"] for mask in masks), reverse=True)[:10]
    checks: dict[str, Callable[[], bool]] = {
        "masks per image": lambda: (
            sum(r["masks"] * r["images"] for r in rows) == len(masks)
            and sum(r["images"] for r in rows) == release.images
        ),
        "the ten largest masks": lambda: [r["area"] for r in rows] == largest,
        "histogram of the predicted IoU": lambda: sum(r["masks"] for r in rows) == len(masks),
        "runs beside each other": lambda: (
            {r["run_id"] for r in rows} == set(release.runs)
            and sum(r["masks"] for r in rows) == len(masks)
        ),
        "images without masks": lambda: len(rows) == release.images - len(masked),
        "what a run skipped, and why": lambda: (
            len(rows) == len(skipped) and {r["reason"] for r in rows} == {"truncated"}
        ),
        "masks by stage and annotator": lambda: (
            [(r["stage"], r["masks"]) for r in rows] == [("auto", len(masks))]
        ),
        "small masks that touch the image's border": lambda: all(r["area"] < 400 for r in rows),
    }
    assert checks[what]()


def test_the_recipe_that_compares_two_releases(root: Path) -> None:
    rows = answer(root, COMPARED, "--release", "r1", "--release", "r2")
    assert rows[0]["only_in_r1"] == 0
    assert rows[0]["only_in_r2"] != 0


def test_the_help_shows_every_recipe() -> None:
    shown = run("--help").output
    for statement in (*RECIPES.values(), COMPARED):
        assert all(line.strip() in shown for line in statement.splitlines())


def test_a_table_for_people_is_cut_and_says_so(root: Path) -> None:
    done = run("select image_id, counts, repeat('x', 90) as wide from masks", "-w", str(root))
    assert done.exit_code == 0
    assert "…" in done.stdout
    short = run("from range(500)", "-w", str(root), "--max-rows", "3")
    assert short.stdout.split() == ["range", "0", "1", "2"]
    assert "the first 3 rows" in short.stderr
    whole = run("from range(3)", "-w", str(root), "--max-rows", "3")
    assert whole.stderr == ""
    assert run("select '[red]' as a", "-w", str(root)).stdout.split() == ["a", "[red]"]


def test_csv_and_json_hold_every_kind_of_value(root: Path) -> None:
    question = (
        "select sum(area) as total, null as nothing, 'a,\"b' as text, [1.5, 'nan'::double] as l, "
        "timestamptz '2026-01-02 03:04:05+00' as t, 1.25::decimal(8, 2) as d, {'k': 1} as s, "
        "true as yes from masks"
    )
    row = answer(root, question)[0]
    total = row.pop("total")
    assert isinstance(total, int)
    assert row == {
        "nothing": None,
        "text": 'a,"b',
        "l": [1.5, None],
        "t": "2026-01-02T03:04:05+00:00",
        "d": 1.25,
        "s": {"k": 1},
        "yes": True,
    }
    printed = run(question, "-w", str(root), "--csv").stdout
    (header, values) = csv.reader(io.StringIO(printed))
    assert header == ["total", *row]
    assert values[:4] == [str(total), "", 'a,"b', "[1.5, null]"]
    assert values[4:] == ["2026-01-02T03:04:05+00:00", "1.25", '{"k": 1}', "True"]


def test_parquet_holds_all_rows_and_appears_whole(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.parquet"
    done = run("from range(25000)", "-w", str(root), "--parquet", str(target))
    assert done.exit_code == 0
    assert done.output == f"25000 rows: {target}\n"
    assert pq.read_table(target)["range"].to_pylist() == list(range(25000))
    late = "select case when range > 300000 then cast('x' || range as int) end r from range(400000)"
    failed = run(late, "-w", str(root), "--parquet", str(tmp_path / "late.parquet"))
    assert isinstance(failed.exception, BadInputError)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_columns_of_one_name_are_refused_where_one_would_be_lost(root: Path) -> None:
    for form in (["--json"], ["--parquet", str(root.parent / "twice.parquet")]):
        done = run("select 1 as a, 2 as a", "-w", str(root), *form)
        assert isinstance(done.exception, BadInputError)
        assert "called a" in str(done.exception)
    assert run("select 1 as a, 2 as a", "-w", str(root), "--csv").stdout == "a,a\n1,2\n"


def test_the_statement_may_come_from_standard_input(root: Path) -> None:
    done = run("-", "-w", str(root), "--csv", stdin="select count(*) as n\nfrom images")
    assert done.stdout == "n\n39\n"


def test_two_forms_at_once_are_a_usage_error(root: Path) -> None:
    assert run("select 1", "-w", str(root), "--json", "--csv").exit_code == 2
