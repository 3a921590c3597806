"""Pictures that really show in the Prefect UI: inside a page, so that no server has to keep them.

    show_pictures("audit-pictures", [sheet], "the 9 worst of 500 photos")

An image artifact only holds an address. A local file is none for a browser, a presigned link
expires, and the UI prints a ``data:`` address in full below its picture. In Markdown both of
Prefect's pages show ``data:`` pictures; they are small, and there are few of them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from engine.quality.small_pictures import SmallPicture
from flows.artifacts.pages import MAX_PAGE_BYTES, show_page
from flows.artifacts.texts import escaped

__all__ = ["gallery", "picture", "show_pictures"]

# Base64 takes 4 bytes for 3; the rest of a page is for its text.
_MAX_BASE64_BYTES = MAX_PAGE_BYTES * 4 // 5


def show_pictures(
    key: str, pictures: Sequence[SmallPicture], description: str = "", *, text: str = ""
) -> None:
    """Leave pictures with their captions in the Prefect UI.

    Args:
        key: any text; it is made into a key.
        pictures: at most some 120 KB in all; those that do not fit are left out, and named.
        description: one line for lists, Markdown.
        text: Markdown above them.
    """
    show_page(key, "\n\n".join(part for part in (text, gallery(pictures)) if part), description)


def gallery(pictures: Sequence[SmallPicture]) -> str:
    """Write pictures below each other, each with its caption."""
    fitting, left_out = _fitting(pictures)
    parts = [f"{picture(one)}\n\n*{escaped(one.caption, None)}*" for one in fitting]
    if left_out:
        parts.append(f"*{left_out} more would be too large for this page.*")
    return "\n\n".join(parts)


def picture(one: SmallPicture) -> str:
    """Write one picture in Markdown."""
    data = b64encode(one.data).decode()
    return f"![{escaped(one.caption)}](data:{one.media_type};base64,{data})"


def _fitting(pictures: Sequence[SmallPicture]) -> tuple[list[SmallPicture], int]:
    room = _MAX_BASE64_BYTES
    fitting: list[SmallPicture] = []
    for one in pictures:
        size = -(-len(one.data) // 3) * 4
        if size <= room:
            room -= size
            fitting.append(one)
    return fitting, len(pictures) - len(fitting)
