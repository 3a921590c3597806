"""Everything that `maskwheel status` says of a workspace.

status = read_status("birds", now)
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from engine.dataset.workspace_record import claim_workspace, is_workspace
from engine.errors import TransientError
from engine.objects import absolute_address
from flows.runtime import may_have_server
from flows.up.data_overview import DataOverview, data_overview
from flows.up.links import Links, links_of
from flows.up.prefect_server import is_healthy
from flows.up.state_file import UpState, is_up, read_state

if TYPE_CHECKING:
    from flows.up.server_overview import ServerOverview

__all__ = ["Status", "read_status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What could be found out.

    Attributes:
        workspace: its address.
        up: what runs on this machine; None: nothing.
        links: to it.
        data: how far the workspace is; None: there is none yet.
        server: what a Prefect server knows; None: none answers.
        problem: why something is missing.
    """

    workspace: str
    up: UpState | None
    links: Links | None
    data: DataOverview | None
    server: ServerOverview | None
    problem: str | None


def read_status(address: str, now: datetime) -> Status:
    """Find out what runs for a workspace, how far it is, and what comes next."""
    up, links = _up(address)
    data = data_overview(address, now)
    workspace = data.workspace if data is not None else absolute_address(address)
    api_url = (up.api_url if up is not None else None) or _configured_server()
    server, problem = _server(api_url, workspace, now)
    return Status(
        workspace=workspace, up=up, links=links, data=data, server=server, problem=problem
    )


def _up(address: str) -> tuple[UpState | None, Links | None]:
    if not is_workspace(address):
        return None, None
    folder = claim_workspace(address, create=False).local_folder
    state = read_state(folder) if is_up(folder) else None
    return state, None if state is None else links_of(state, folder)


def _configured_server() -> str | None:
    if not may_have_server():
        return None
    from prefect.settings import get_current_settings  # takes a second to import

    return get_current_settings().api.url


def _server(
    api_url: str | None, workspace: str, now: datetime
) -> tuple[ServerOverview | None, str | None]:
    if api_url is None:
        return None, "no Prefect server is known: `maskwheel up` starts one"
    if not is_healthy(api_url):
        return None, f"the Prefect server at {api_url} does not answer"
    from flows.up.server_overview import server_overview

    try:
        return server_overview(api_url, workspace, now), None
    except TransientError as error:
        return None, str(error)
