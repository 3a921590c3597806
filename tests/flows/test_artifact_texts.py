"""What is written into pages and tables of the Prefect UI: readable, and safe whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engine.quality.small_pictures import SmallPicture
from engine.records import ShardOutcome
from flows.artifacts.automatic import worker_rows
from flows.artifacts.links import linked
from flows.artifacts.next_steps import command
from flows.artifacts.pages import MAX_PAGE_BYTES
from flows.artifacts.pictures import gallery
from flows.artifacts.sending import artifact_key
from flows.artifacts.texts import (
    Cell,
    code,
    duration,
    escaped,
    in_cell,
    markdown_table,
    plain,
    prose,
    readable,
)
from flows.naming import counted, photos_named, run_tags, workspace_name


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (1_234_567, "1,234,567"),
        (12_345.678, "12,346"),
        (12.345, "12.3"),
        (0.8734, "0.873"),
        (0.00012345, "0.000123"),
        (3.0, "3"),
        (float("nan"), "-"),
        (float("inf"), "-"),
        (datetime(2026, 3, 1, 14, 5, 59, tzinfo=UTC), "2026-03-01 14:05 UTC"),
    ],
)
def test_values_are_written_for_people(value: Cell, shown: str) -> None:
    assert readable(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (8.44, "8.4 s"),
        (59.4, "59 s"),
        (200, "3 min 20 s"),
        (18_720, "5 h 12 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_times_are_written_in_the_units_that_people_use(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("<img src=x onerror=alert(1)>.jpg", r"\<img src=x onerror=alert(1)\>.jpg"),
        ("a|b.jpg", r"a\|b.jpg"),
        ("[x](http://evil)", r"\[x\](http\://evil)"),
        ("*bold* `code` _it_", r"\*bold\* \`code\` \_it\_"),
        ("two\nlines\tand\x00nul", "two lines and nul"),
        ("right\u202eto left", "right to left"),
        ("&lt;script&gt;", r"\&lt;script\&gt;"),
        ("lone \udce4 surrogate", "lone ? surrogate"),
        ("www.evil.example", r"www\.evil.example"),
    ],
)
def test_nothing_in_a_name_is_markdown(hostile: str, shown: str) -> None:
    assert escaped(hostile) == shown


def test_long_text_is_cut_with_a_sign_of_it() -> None:
    assert plain("x" * 1000) == "x" * 299 + "…"
    assert len(plain("x" * 1000, None)) == 1000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("maskwheel report", "`maskwheel report`"),
        ("a`b", "``a`b``"),
        ("``", "``` `` ```"),
        ("", "`  `"),
    ],
)
def test_code_shows_what_it_holds_backticks_too(text: str, shown: str) -> None:
    assert code(text) == shown


def test_prose_keeps_its_code_and_nothing_else() -> None:
    assert prose("Run `maskwheel *x*`, then <b>.") == r"Run `maskwheel *x*`, then \<b\>."
    assert prose("one ` alone") == r"one \` alone"


def test_a_cell_is_no_tag_and_no_link_and_reads_the_same() -> None:
    cell = in_cell("<b>[a](http://x)")
    assert cell.replace("\u2060", "") == "<b>[a](http://x)"
    assert "<b" not in cell
    assert "](" not in cell


def test_a_table_keeps_its_columns_whatever_the_cells_hold() -> None:
    table = markdown_table([{"photo": "a|b\nc", "masks": 1204}, {"photo": "d", "masks": None}])
    assert table.splitlines() == [
        "| photo | masks |",
        "| --- | --- |",
        r"| a\|b c | 1,204 |",
        "| d | - |",
    ]
    assert markdown_table([{"masks": 3}]).splitlines()[1] == "| ---: |"
    assert markdown_table([]) == ""


def test_a_link_keeps_its_address_and_nothing_ends_it_early() -> None:
    assert linked("http://h:1/c?x=(a)&b=1#f", "Go [on]") == (
        r"[Go \[on\]](<http://h:1/c?x=(a)&b=1#f>)"
    )
    assert linked("https://h/a>b c", "x") == "[x](<https://h/a%3Eb%20c>)"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "/data/report.html", "s3://b/report.html"])
def test_what_a_browser_cannot_or_may_not_open_is_shown_to_copy(url: str) -> None:
    assert linked(url, "Report") == f"Report: `{url}`"


def test_a_command_is_as_a_shell_takes_it() -> None:
    assert command("report", "/my data") == "`maskwheel report -w '/my data'`"


def test_keys_are_what_prefect_takes() -> None:
    assert artifact_key("annotation", "Birds & Bees_2") == "annotation-birds-bees-2"
    assert artifact_key("ünïcödé?!") == "n-c-d"
    assert artifact_key("???") == "artifact"


def test_pictures_beyond_what_a_page_holds_are_left_out_and_counted() -> None:
    small = SmallPicture(data=b"x" * 30_000, caption="<i>small</i>")
    large = SmallPicture(data=b"x" * MAX_PAGE_BYTES, caption="large")
    page = gallery([small, large, small])
    assert page.count("data:image/jpeg;base64,") == 2
    assert r"*\<i\>small\</i\>*" in page
    assert "1 more would be too large" in page
    assert len(page) < MAX_PAGE_BYTES


def test_a_worker_is_as_fast_as_the_shards_that_it_wrote() -> None:
    def shard(index: int, worker: str, seconds: float, *, wrote: bool = True) -> ShardOutcome:
        return ShardOutcome(
            index=index,
            images=10,
            masks=100,
            skipped=1,
            seconds=seconds,
            worker=worker,
            wrote=wrote,
        )

    rows = worker_rows(
        [
            shard(0, "b/2", 5),
            shard(1, "a/1", 4),
            shard(2, "a/1", 6),
            shard(3, "c/3", 1, wrote=False),
        ]
    )
    assert [row["worker"] for row in rows] == ["a/1", "b/2"]
    assert [row["photos"] for row in rows] == [20, 10]
    assert [row["photos per second"] for row in rows] == [2.0, 2.0]
    assert rows[0]["busy"] == "10 s"


def test_runs_are_named_and_tagged_by_what_they_are_about() -> None:
    assert photos_named(None) == "all photos"
    assert photos_named(["/data/holiday/"]) == "holiday"
    assert photos_named(["s3://b/p/a.jpg", "b.jpg", "c.jpg"]) == "a.jpg and 2 more"
    assert workspace_name("s3://team/data/birds/") == "birds"
    assert workspace_name("s3://team") == "team"
    assert counted(1, "photo") == "1 photo"
    assert counted(1204, "mask") == "1,204 masks"
    assert run_tags(workspace="/w/birds", model="/m/tiny.pth", release=None) == (
        "workspace:birds",
        "model:tiny.pth",
    )
