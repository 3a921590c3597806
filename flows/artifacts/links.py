"""A link in the Prefect UI: to a campaign, a report, a model.

show_link("campaign", "http://127.0.0.1:8765/campaigns/7", "Annotate: birds", "42 photos wait")
"""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from flows.artifacts.pages import show_page
from flows.artifacts.texts import code, escaped

__all__ = ["linked", "show_link"]

_CLICKABLE = ("http", "https")
# Everything that an address may hold; what would end the link is percent-encoded.
_KEPT = "%/:?#[]@!$&'()*+,;=-._~"


def show_link(key: str, url: str, text: str, description: str = "") -> None:
    """Leave a link in the Prefect UI.

    Args:
        key: any text; it is made into a key.
        url: an address that a browser opens; of others, e.g. a file's, the text is shown, because
            a page from a server may not link to them.
        text: to click on.
        description: one line for lists, Markdown.
    """
    show_page(key, linked(url, text) + "\n", description or escaped(text))


def linked(url: str, text: str) -> str:
    """Write a link in Markdown; where a browser would not follow it, the address to copy."""
    if urlsplit(url).scheme not in _CLICKABLE:
        return f"{escaped(text)}: {code(url)}"
    return f"[{escaped(text)}](<{quote(url, safe=_KEPT)}>)"
