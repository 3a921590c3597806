"""Where the pages of an `up` are.

links = links_of(state, workspace.local_folder)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.annotation.admin_token import read_admin_token
from engine.annotation.http.whereabouts import join_link
from flows.up.state_file import UpState, log_folder

__all__ = ["Links", "links_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where things are.

    Attributes:
        dashboard: pages of the Prefect server.
        api: what PREFECT_API_URL is to be for other programs.
        annotation: signs in as admin; None: no service, or no admin yet.
        logs: folder.
    """

    dashboard: str | None
    api: str | None
    annotation: str | None
    logs: Path


def links_of(state: UpState, folder: Path) -> Links:
    """Return the links of what runs."""
    token = read_admin_token(folder)
    has_page = state.annotation_url is not None and token is not None
    return Links(
        dashboard=state.ui_url,
        api=state.api_url,
        annotation=join_link(state.annotation_url or "", token or "") if has_page else None,
        logs=log_folder(folder),
    )
