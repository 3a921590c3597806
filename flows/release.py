"""A release made ready for others, as a flow: verified, tagged, reported, exported.

>>> release("birds", tag="v1.0", export=["coco", "webdataset:s3://share/birds-v1"])

Publishing makes releases; this flow reads one again, byte by byte, before it gives it a name to
cite. Every step may be repeated: a tag never moves, an export goes on where it stopped.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from prefect import flow, task

from engine.config import current_time, load_settings
from engine.dataset.catalog import Workspace
from engine.dataset.exports.exporting import export_release
from engine.dataset.exports.formats import FORMATS
from engine.dataset.exports.protocol import ExportOptions
from engine.dataset.exports.report import ExportReport
from engine.dataset.release_verify import VerifyReport
from engine.dataset.releases import LATEST, load_release, tag_release
from engine.errors import BadInputError, WorkspaceError
from engine.quality.report_keeping import keep_report
from engine.records import Release
from flows.artifacts.links import show_link
from flows.artifacts.tables import show_table
from flows.artifacts.texts import Cell, escaped
from flows.limits import image_limits
from flows.naming import describe_run
from flows.progress import listener
from flows.retrying import RETRIED
from flows.verifying import verify

__all__ = ["ReleaseOutcome", "release"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseOutcome:
    """What was made of a release.

    Attributes:
        release: its name.
        tag: that it was given; None: none.
        files: that were read and found whole.
        report: link to its page; None: none was asked for.
        exports: addresses, in the order in which they were asked for.
    """

    release: str
    tag: str | None
    files: int
    report: str | None
    exports: tuple[str, ...]


@flow(name="release", flow_run_name="release")
def release(
    workspace: str,
    release: str | None = None,
    tag: str | None = None,
    note: str = "",
    report: bool = True,
    export: list[str] | None = None,
    max_images: int = 24,
) -> ReleaseOutcome:
    """Verify a release, give it a name to cite, write its report, and export it.

    Args:
        workspace: folder of the data set, or ``s3://bucket/prefix``.
        release: a name or a tag; by default the newest.
        tag: a name to cite it by, e.g. ``v1.0``; it never moves.
        note: why it got the tag.
        report: write its page: gallery, distributions, provenance.
        export: ``coco``, ``sa1b``, ``webdataset``, ``huggingface``, ``yolo``, ``png``; into the
            workspace's folder ``exports``, or to an address: ``coco:s3://share/birds``.
        max_images: in the page's gallery.

    Raises:
        BadInputError: no such release, a tag that another one has, or an unknown format.
        WorkspaceError: the release is damaged; it gets no tag then.
    """
    wanted = [read_export(text) for text in export or ()]
    chosen = find(release or LATEST, workspace)
    checked = verify(chosen, workspace)
    show_verified(checked)
    if tag is not None:
        give_tag(chosen.name, tag, note, workspace)
    page = write_page(chosen, max_images, workspace) if report else None
    exports = [write_export(chosen, *one, workspace) for one in wanted]
    outcome = ReleaseOutcome(
        release=chosen.name,
        tag=tag,
        files=checked.files,
        report=page,
        exports=tuple(one.address for one in exports),
    )
    show(chosen, outcome, exports)
    return outcome


def read_export(text: str) -> tuple[str, str | None]:
    """Read ``coco`` or ``coco:address``: the format and where to, if that is said.

    Raises:
        BadInputError: an unknown format.
    """
    name, _, address = text.partition(":")
    if name not in FORMATS:
        raise BadInputError(
            f"got the export {text!r}; expected FORMAT or FORMAT:ADDRESS, with a format among "
            f"{', '.join(FORMATS)}"
        )
    return name, address or None


@task(task_run_name="find {release}", **RETRIED)
def find(release: str, workspace: str) -> Release:
    """Find the release."""
    with Workspace.open(workspace, create=False) as opened:
        chosen = load_release(opened, release)
    describe_run(
        f"release {chosen.name}", workspace=workspace, stage="release", release=chosen.name
    )
    return chosen


@task(task_run_name="tag {name} as {tag}", **RETRIED)
def give_tag(name: str, tag: str, note: str, workspace: str) -> None:
    """Give the release its tag; again: nothing changes."""
    with Workspace.open(workspace, create=False) as opened:
        tag_release(opened, tag, name, current_time(), note)
    logger.info("%s can be cited as %s", name, tag)


@task(task_run_name="report {release.name}", **RETRIED)
def write_page(release: Release, max_images: int, workspace: str) -> str:
    """Write the release's page and keep it in the workspace."""
    listener().stage("writing the report", max_images)
    with Workspace.open(workspace, create=False) as opened:
        return keep_report(
            opened,
            release,
            max_images=max_images,
            on_image=lambda image: listener().image(image.uri, 0),
        )


@task(task_run_name="export {release.name} as {name}", **RETRIED)
def write_export(release: Release, name: str, address: str | None, workspace: str) -> ExportReport:
    """Write the release in another format; goes on with an export that was interrupted."""
    with Workspace.open(workspace, create=False) as opened:
        return export_release(
            opened,
            release,
            ExportOptions(format=name),
            address or f"{opened.address}/exports/{release.name}-{name}",
            limits=image_limits(),
            now=current_time(),
            threads=load_settings().read_threads,
            on_image=listener().image,
            on_start=lambda total: listener().stage(f"exporting as {name}", total),
        )


def show_verified(checked: VerifyReport) -> None:
    """Say whether the release is whole.

    Raises:
        WorkspaceError: it is not.
    """
    if checked.passed:
        logger.info("%s is whole: %d masks read again", checked.release, checked.masks)
        return
    rows: list[dict[str, Cell]] = [
        {"problem": p.kind, "file": p.file, "row": p.row, "what": p.message}
        for p in checked.problems
    ]
    show_table("release-problems", rows, f"{escaped(checked.release)} is damaged")
    raise WorkspaceError(
        f"release {checked.release} has {checked.problem_count} problems, the first: "
        f"{checked.problems[0].message}; `maskwheel releases verify` lists more. It gets no tag "
        "and is not exported; restore the files from a backup"
    )


def show(chosen: Release, outcome: ReleaseOutcome, exports: list[ExportReport]) -> None:
    """Leave the release, its page and its exports in the Prefect UI."""
    what: dict[str, Cell] = {
        "release": chosen.name,
        "tag": outcome.tag,
        "images": chosen.images,
        "masks": chosen.masks,
        "files read again": outcome.files,
    }
    for one in exports:
        left_out = one.images_left_out + one.masks_left_out
        what[f"export as {one.format}"] = one.address + (
            f" ({left_out} left out, see {one.problems})" if left_out else ""
        )
    show_table("release", [{"what": name, "": value} for name, value in what.items()])
    if outcome.report is not None:
        show_link("release-report", outcome.report, f"Report of {chosen.name}")
