"""A release's report as a page that stays in the workspace, with a link to share.

keep_report(workspace, release)              # file:///data/birds/reports/r3-0f9a1c....html
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from engine.dataset.catalog import Workspace
from engine.objects import ObjectStore
from engine.quality.report import write_report
from engine.records import ImageRecord, Release

__all__ = ["keep_page", "keep_report"]

_LINK_SECONDS = 7 * 24 * 3600  # where S3's signatures end


def keep_report(
    workspace: Workspace,
    release: Release,
    *,
    max_images: int = 24,
    on_image: Callable[[ImageRecord], None] | None = None,
) -> str:
    """Write a release's page, keep it in the workspace, and return a link to it.

    The same release has the same page. A link into a bucket is for everybody, for a week. Arguments
    and errors as `write_report`.
    """
    with TemporaryDirectory(prefix="maskwheel-") as folder:
        path = Path(folder) / f"{release.name}.html"
        write_report(workspace, release, path, max_images=max_images, on_image=on_image)
        return keep_page(workspace.store, release.name, path)


def keep_page(store: ObjectStore, release: str, page: Path) -> str:
    """Put a page into the store under its content's name and return a link to it."""
    digest = hashlib.sha256(page.read_bytes()).hexdigest()[:12]
    key = f"reports/{release}-{digest}.html"
    store.put_file_if_absent(key, page)
    return store.link(key, seconds=_LINK_SECONDS)
