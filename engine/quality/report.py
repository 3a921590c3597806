"""A release as one HTML page: photos with their masks, distributions, numbers, provenance.

    write_report(workspace, release, Path("report.html"))

The page needs nothing but itself: no network, no font, no library. It reads without JavaScript,
which only adds what hovering and the large view show. Its Content-Security-Policy lets only its own
script and style run, and everything that comes from data is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from engine.dataset.catalog import Workspace
from engine.dataset.runs import load_run
from engine.errors import BadInputError, WorkspaceError
from engine.files import write_atomically
from engine.quality.charts import bar_chart, heat_map, number
from engine.quality.gallery import MAX_SIDE_PX, Figure, palette_css, picture_figure
from engine.quality.pictures import iter_pictures, sample_image_ids
from engine.quality.statistics import (
    CENTRE_CELLS,
    Distribution,
    ReleaseStatistics,
    SkipReason,
    release_statistics,
)
from engine.records import ImageRecord, Release

__all__ = ["write_report"]

log = logging.getLogger(__name__)

_BARS = 50
_RUNS_SHOWN = 20
_MASKS_FOR_FINE_MAP = 20_000


def write_report(
    workspace: Workspace,
    release: Release,
    path: Path,
    max_images: int = 24,
    on_image: Callable[[ImageRecord], None] | None = None,
) -> Path:
    """Write the page; the same release gives the same bytes, as long as its photos stay.

    A photo that was moved or changed is shown as a placeholder that says so. Memory and size: up to
    about 230 kB per image.

    Args:
        workspace: where the release is.
        release: what to report.
        path: of the page; appears whole or not at all, and replaces an old one.
        max_images: in the gallery, evenly spread over the images that have masks; 0: none.
        on_image: called after each image, for progress.

    Returns:
        `path`.

    Raises:
        BadInputError: a path that cannot be written, or `max_images` below 0.
        WorkspaceError: the release's snapshots are gone.
        TransientError: the catalog stayed busy.
    """
    if max_images < 0:
        raise BadInputError(f"got max_images={max_images}; expected at least 0")
    statistics = release_statistics(workspace, release)
    figures: list[Figure] = []
    sample = sample_image_ids(workspace, release, max_images) if max_images else []
    for picture in iter_pictures(workspace, release, sample, MAX_SIDE_PX):
        if picture.problem is not None:
            log.warning("image %d is not shown: %s", picture.image.image_id, picture.problem)
        figures.append(picture_figure(picture, len(figures) + 1))
        if on_image is not None:
            on_image(picture.image)
    write_atomically(path, _page(workspace, release, statistics, figures).encode())
    return path


def _page(
    workspace: Workspace,
    release: Release,
    statistics: ReleaseStatistics,
    figures: list[Figure],
) -> str:
    style = "".join([_asset("report.css"), palette_css(), *(figure.css for figure in figures)])
    script = _asset("report.js")
    return Template(_asset("report.html")).substitute(
        policy=(
            "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
            f"style-src {_hash_source(style)}; script-src {_hash_source(script)}"
        ),
        style=style,
        script=script,
        release=escape(release.name),
        workspace=escape(workspace.name),
        created=f"{release.created_at:%d %B %Y, %H:%M} UTC",
        created_iso=release.created_at.isoformat(),
        tiles=_tiles(release, statistics),
        gallery_note=_gallery_note(statistics, len(figures)),
        figures="".join(figure.html for figure in figures),
        charts=_charts(statistics),
        numbers=_numbers(statistics),
        skipped=_skipped((*statistics.skipped, *statistics.unusable)),
        provenance=_provenance(workspace, release),
    )


def _asset(name: str) -> str:
    return files("engine.quality").joinpath(name).read_text(encoding="utf-8")


def _hash_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _tiles(release: Release, statistics: ReleaseStatistics) -> str:
    tiles = (
        (number(statistics.images), "images"),
        (number(statistics.masks), "masks"),
        (number(statistics.masks_per_image.median), "masks per image, median"),
        (f"{statistics.relative_size.median:.3f}", "relative mask size, median"),
        (f"{statistics.predicted_iou.median:.3f}", "predicted IoU, median"),
        (number(len(release.models)), "model" if len(release.models) == 1 else "models"),
    )
    return "".join(f"<li><b>{value}</b><span>{label}</span></li>" for value, label in tiles)


def _gallery_note(statistics: ReleaseStatistics, shown: int) -> str:
    if shown == 0:
        return "No image of this release is shown."
    if shown == statistics.images_masked:
        return f"All {number(shown)} images with masks."
    return f"{shown:,} of {number(statistics.images_masked)} images with masks, evenly spread."


def _charts(statistics: ReleaseStatistics) -> str:
    def card(title: str, note: str, chart: str) -> str:
        return f'<div class="card"><h3>{title}</h3><p>{note}</p>{chart}</div>'

    def bars(distribution: Distribution, title: str, of_what: str, *, from_zero: bool) -> str:
        return bar_chart(distribution.rebinned(_BARS, from_zero=from_zero), title, of_what)

    return "".join(
        (
            card(
                "Masks per image",
                "Over all images that a run could use.",
                bars(statistics.masks_per_image, "Masks per image", "images", from_zero=True),
            ),
            card(
                "Relative mask size",
                "√(mask area ÷ image area): 0.1 is a hundredth of the image.",
                bars(statistics.relative_size, "Relative mask size", "masks", from_zero=True),
            ),
            card(
                "Predicted IoU",
                "The model's own estimate of how well a mask fits.",
                bars(statistics.predicted_iou, "Predicted IoU", "masks", from_zero=False),
            ),
            card(
                "Stability score",
                "IoU of the mask cut at a higher and at a lower threshold.",
                bars(statistics.stability_score, "Stability score", "masks", from_zero=False),
            ),
            card(
                "Where masks are",
                "Centres of the masks' boxes over all images; the stronger, the more masks.",
                heat_map(_cells(statistics), "Density of mask centres over the image"),
            ),
        )
    )


def _cells(statistics: ReleaseStatistics) -> list[list[int]]:
    """The map of mask centres, coarser where few masks would leave it speckled."""
    cells = np.array(statistics.centres, dtype=np.int64)
    merged = 2 if statistics.masks < _MASKS_FOR_FINE_MAP else 1
    side = CENTRE_CELLS // merged
    summed: list[list[int]] = cells.reshape(side, merged, side, merged).sum(axis=(1, 3)).tolist()
    return summed


def _numbers(statistics: ReleaseStatistics) -> str:
    s, per_image = statistics, statistics.masks_per_image
    rows = [_row("Images", number(s.images))]
    for label, images in (
        ("with masks", s.images_masked),
        ("without a mask", s.images_without_masks),
        ("skipped", s.images_skipped),
        ("not yet looked at", s.images_waiting),
    ):
        rows.append(_row(label, number(images), images, s.images))
    if s.images_masked_again:
        rows.append(
            _row("masked by several runs, all counted", number(s.images_masked_again), 0, 0)
        )
    rows.append(_row("Masks", number(s.masks)))
    for label, masks in (
        ("small, below 32² px", s.masks_small),
        ("medium", s.masks_medium),
        ("large, 96² px and more", s.masks_large),
    ):
        rows.append(_row(label, number(masks), masks, s.masks))
    rows += [
        _row("Masks per image, median", number(per_image.median)),
        _row("mean", f"{per_image.mean:,.1f}", 0, 0),
        _row("most", number(per_image.maximum), 0, 0),
    ]
    return "".join(rows)


def _row(label: str, value: str, part: int | None = None, whole: int = 0) -> str:
    """A table row; with `part`, one that details the row before, and its share of `whole`."""
    share = f"{part / whole:.1%}" if part is not None and whole else ""
    kind = "" if part is None else ' class="part"'
    return f'<tr{kind}><th scope="row">{label}</th><td>{value}</td><td>{share}</td></tr>'


def _skipped(reasons: tuple[SkipReason, ...]) -> str:
    if not reasons:
        return "<p>No image was skipped.</p>"
    parts = []
    for reason in reasons:
        examples = "".join(
            f"<li><code>{escape(example.uri)}</code> {escape(example.message)}</li>"
            for example in reason.examples
        )
        more = reason.images - len(reason.examples)
        examples += f"<li>… and {number(more)} more</li>" if more else ""
        parts.append(
            f"<details><summary><b>{escape(reason.reason)}</b> {number(reason.images)} "
            f"image{'' if reason.images == 1 else 's'}</summary><ul>{examples}</ul></details>"
        )
    return "".join(parts)


def _provenance(workspace: Workspace, release: Release) -> str:
    models = ", ".join(f"<code>{escape(model)}</code>" for model in release.models) or "none"
    parent = f"<code>{escape(release.parent)}</code>" if release.parent else "none, it is the first"
    snapshots = ", ".join(
        f"{escape(table)} <code>{snapshot}</code>" for table, snapshot in release.snapshots.items()
    )
    facts = (
        ("Release", f"<code>{escape(release.name)}</code>"),
        ("Follows", parent),
        ("Models", models),
        ("Table snapshots", snapshots),
    )
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return f"<dl>{listed}</dl><h3>Runs</h3>{''.join(_runs(workspace, release))}"


def _runs(workspace: Workspace, release: Release) -> Iterator[str]:
    for run_id in release.runs[-1 : -_RUNS_SHOWN - 1 : -1]:
        yield f"<details><summary><code>{escape(run_id)}</code>"
        try:
            run = load_run(workspace.store, run_id)
        except WorkspaceError as error:
            log.warning("the settings of run %s are not shown: %s", run_id, error)
            yield f"</summary><p>Its settings cannot be read: {escape(str(error))}.</p></details>"
            continue
        images = sum(len(shard.image_ids) for shard in run.shards)
        settings = "".join(
            _setting(name, value) for name, value in json.loads(run.recipe.config_json).items()
        )
        yield (
            f" {run.created_at:%d %b %Y}, {number(images)} images</summary>"
            f"<p>Model <code>{escape(run.recipe.model_id)}</code>, "
            f"recipe <code>{run.recipe.recipe_id}</code></p>"
            f"<table><tbody>{settings}</tbody></table></details>"
        )
    if (older := len(release.runs) - _RUNS_SHOWN) > 0:
        yield f"<p>… and {number(older)} older runs.</p>"


def _setting(name: str, value: object) -> str:
    label = f'<th scope="row"><code>{escape(name)}</code></th>'
    return f'<tr class="part">{label}<td>{escape(json.dumps(value))}</td></tr>'
