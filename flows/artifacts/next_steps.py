"""What a person may do after a run: commands to copy, with the workspace in them.

next_steps("data/birds", {"report": "a page with a gallery"})
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from flows.artifacts.texts import code

__all__ = ["command", "next_steps"]


def next_steps(workspace: str, steps: Mapping[str, str]) -> str:
    """Write commands and what they are for as the end of a page, in Markdown.

    Args:
        workspace: address; without one there is nothing to write.
        steps: what follows ``maskwheel``, and what it is for.
    """
    if not workspace or not steps:
        return ""
    lines = [f"- {command(text, workspace)}: {why}" for text, why in steps.items()]
    return "\n".join(["## Next", "", *lines])


def command(text: str, workspace: str) -> str:
    """Write a command for a workspace in Markdown, as a shell takes it."""
    return code(f"maskwheel {text} -w {shlex.quote(workspace)}")
