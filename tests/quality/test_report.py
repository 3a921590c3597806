from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from engine.dataset.catalog import Workspace
from engine.dataset.runs import Recipe
from engine.errors import BadInputError
from engine.images import decode_image, encode_png
from engine.quality.pictures import sample_image_ids
from engine.quality.report import write_report
from engine.records import Release, SkippedImage
from tests.quality.release_builders import (
    Results,
    id_of,
    photo,
    random_rectangles,
    rectangle,
    release_of,
    write_photos,
)

EVIL = "<script>alert('x')</script> & \"quoted\""
ADDRESS_ATTRIBUTES = {"src", "href", "srcset", "poster", "data", "action", "xlink:href"}
EMPTY_ELEMENTS = {"meta", "img", "input", "link", "br"}


class Page(HTMLParser):
    """Every element with its attributes, and the text by the element that it is in."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in EMPTY_ELEMENTS:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self._open[-1] if self._open else "", []).append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def all_text(self) -> str:
        return " ".join(t for tag, ts in self.text.items() if tag != "script" for t in ts)


@pytest.fixture
def page_source(tmp_path: Path) -> str:
    """The page of a release with masks, an empty photo, a skipped one and names to escape."""
    evil_name = "<img src=x onerror=alert(1)>.png"
    names = ["a.png", evil_name, "c.png", "d.png"]
    write_photos(tmp_path / "photos", names)
    results: Results = {
        "a.png": random_rectangles(1, 7),
        evil_name: random_rectangles(2, 3),
        "c.png": SkippedImage("c", "truncated", EVIL),
    }
    with Workspace.open(tmp_path / "data") as workspace:
        recipe = Recipe.of("model <b>", {"note": EVIL, "points_per_side": 8})
        release = release_of(workspace, tmp_path / "photos", results, recipe)
        path = write_report(workspace, release, tmp_path / "out/report.html")
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(page_source: str) -> None:
    page = Page(page_source)
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert "style" not in attributes, "the policy would refuse it"
        assert not [name for name in attributes if name.startswith("on")]
        for name in ADDRESS_ATTRIBUTES & attributes.keys():
            if name != "d":
                assert re.match(r"#|data:image/jpeg;base64,", attributes[name] or "")
    style = "".join(page.text["style"])
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in page_source.replace("http-equiv", "")


def test_the_policy_names_the_hash_of_the_style_and_of_the_script(page_source: str) -> None:
    page = Page(page_source)
    policy = page.attributes("meta")[1]["content"] or ""
    assert policy.startswith("default-src 'none'")
    for kind in ("style", "script"):
        digest = hashlib.sha256("".join(page.text[kind]).encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert len(page.attributes("script")) == 1


def test_whatever_comes_from_data_is_escaped(page_source: str) -> None:
    page = Page(page_source)
    text = page.all_text()
    assert EVIL in text, "the message of a skipped image, as text"
    assert "<img src=x onerror=alert(1)>.png" in text
    assert "model <b>" in text
    assert all(image["src"] != "x" for image in page.attributes("img"))
    assert "alert" not in "".join(page.text["script"])


def test_photos_have_texts_for_those_who_do_not_see_them(page_source: str) -> None:
    page = Page(page_source)
    assert len(page.attributes("img")) == 2
    assert all(image["alt"] for image in page.attributes("img"))
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.attributes("svg"))
    assert {a["href"] for a in page.attributes("a")} >= {"#photo-1", "#photo-2"}
    targets = {f["id"] for f in page.attributes("figure")}
    assert targets == {"photo-1", "photo-2"}
    assert page.attributes("html")[0]["lang"] == "en"


def test_without_the_script_the_masks_and_their_numbers_are_there(page_source: str) -> None:
    page = Page(page_source)
    paths = [p for p in page.attributes("path") if re.fullmatch(r"c\d+", p.get("class") or "")]
    assert len(paths) == 10
    titles = [t for t in page.text["title"] if t.startswith("IoU ")]
    expected = {
        f"IoU {m.predicted_iou:.3f} · stability 0.950 · {m.area:,} px · "
        f"box {m.bbox_xywh[0]}, {m.bbox_xywh[1]}, {m.bbox_xywh[2]} \u00d7 {m.bbox_xywh[3]}"
        for m in random_rectangles(1, 7) + random_rectangles(2, 3)
    }
    assert set(titles) == expected


def test_numbers_and_provenance_are_on_the_page(page_source: str) -> None:
    text = re.sub(r"\s+", " ", Page(page_source).all_text())
    for words in ("Release r1", "none, it is the first", "points_per_side", "truncated"):
        assert words in text
    assert "10 9 90.0% 1 10.0% 0 0.0%" in text, "masks by size"
    assert "All 2 images with masks." in text


def test_the_same_release_gives_the_same_page(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png", "b.png"])
    masks = {"a.png": random_rectangles(0, 9), "b.png": random_rectangles(1, 9)}
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        first = write_report(workspace, release, tmp_path / "1.html").read_bytes()
        assert write_report(workspace, release, tmp_path / "1.html").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_photo_that_moved_or_changed_is_a_placeholder_that_says_so(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png", "b.png"])
    masks = {"a.png": random_rectangles(0, 2), "b.png": random_rectangles(1, 2)}
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        (tmp_path / "photos/a.png").unlink()
        (tmp_path / "photos/b.png").write_bytes(encode_png(photo(50)))
        path = write_report(workspace, release, tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.attributes("img") == []
    assert len(page.attributes("figure")) == 2
    assert "there is no file" in page.all_text()
    assert "has changed since its masks were made" in page.all_text()


def test_a_release_without_masks_and_a_page_without_photos_are_pages(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        empty = release_of(workspace, tmp_path / "photos", {})
        Page(write_report(workspace, empty, tmp_path / "empty.html").read_text(encoding="utf-8"))
        full = release_of(
            workspace,
            tmp_path / "photos",
            {"a.png": [rectangle(0, 0, 9, 9)]},
            Recipe.of("other", {}),
        )
        path = write_report(workspace, full, tmp_path / "full.html", max_images=0)
        with pytest.raises(BadInputError, match="max_images"):
            write_report(workspace, full, tmp_path / "full.html", max_images=-1)
    assert Page(path.read_text(encoding="utf-8")).attributes("figure") == []


def test_the_page_shows_the_masks_of_the_newest_run_and_counts_all(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        release_of(workspace, tmp_path / "photos", {"a.png": random_rectangles(0, 5)})
        newest = random_rectangles(1, 3)
        release = release_of(
            workspace, tmp_path / "photos", {"a.png": newest}, Recipe.of("other", {})
        )
        path = write_report(workspace, release, tmp_path / "report.html")
    page = Page(path.read_text(encoding="utf-8"))
    titles = [t for t in page.text["title"] if t.startswith("IoU ")]
    assert {t.split()[1] for t in titles} == {f"{m.predicted_iou:.3f}" for m in newest}
    assert "masked by several runs, all counted" in page.all_text()


def test_a_path_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    (tmp_path / "file").write_text("x")
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", {})
        with pytest.raises(BadInputError, match="cannot be written"):
            write_report(workspace, release, tmp_path / "file/report.html")


def test_samples_are_spread_evenly_and_only_over_images_with_masks(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(9)]
    write_photos(tmp_path / "photos", names)
    masks = {name: [rectangle(0, 0, 5, 5)] for name in names[:8]}
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", masks)
        everything = sorted(id_of(workspace, name) for name in names[:8])
        assert sample_image_ids(workspace, release, 100) == everything
        assert sample_image_ids(workspace, release, 4) == everything[::2]
        with pytest.raises(BadInputError, match="max_images"):
            sample_image_ids(workspace, release, 0)


def test_a_photo_on_the_page_is_the_photo(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", {"a.png": [rectangle(0, 0, 9, 9)]})
        path = write_report(workspace, release, tmp_path / "report.html")
    source = Page(path.read_text(encoding="utf-8")).attributes("img")[0]["src"] or ""
    shown_HWC3 = decode_image(base64.b64decode(source.partition(",")[2]))
    assert np.abs(shown_HWC3.astype(int) - photo(0)).mean() < 8


def test_a_run_whose_manifest_is_lost_is_said_on_the_page(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", ["a.png"])
    with Workspace.open(tmp_path / "data") as workspace:
        release = release_of(workspace, tmp_path / "photos", {"a.png": [rectangle(0, 0, 9, 9)]})
        changed: Release = replace(release, runs=("auto-gone-0001",))
        path = write_report(workspace, changed, tmp_path / "report.html")
    assert "Its settings cannot be read" in path.read_text(encoding="utf-8")
