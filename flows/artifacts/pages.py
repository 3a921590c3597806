"""A page of Markdown in the Prefect UI.

show_page("automatic-run", "# 12 photos ...", "Release r3: 12 photos, 801 masks")
"""

from __future__ import annotations

import logging

from flows.artifacts.sending import artifact_key, attempt

__all__ = ["MAX_PAGE_BYTES", "show_page"]

log = logging.getLogger(__name__)

# Prefect keeps a page twice: in its run, and as the newest of its key. Lists load pages whole.
MAX_PAGE_BYTES = 200_000


def show_page(key: str, markdown: str, description: str = "") -> None:
    """Leave a page in the Prefect UI; pages of one key are its versions.

    Args:
        key: any text; it is made into a key.
        markdown: with what comes from outside escaped, see `flows.artifacts.texts.escaped`. What
            is beyond `MAX_PAGE_BYTES` is cut off.
        description: one line for lists, Markdown too.
    """
    from prefect.artifacts import create_markdown_artifact

    data = markdown.encode()
    if len(data) > MAX_PAGE_BYTES:
        log.warning("page %s has %d bytes; it is cut at %d", key, len(data), MAX_PAGE_BYTES)
        markdown = data[:MAX_PAGE_BYTES].decode(errors="ignore") + "\n\n*cut off here*\n"
    attempt(
        f"page {key}",
        lambda: create_markdown_artifact(
            markdown, key=artifact_key(key), description=description or None
        ),
    )
