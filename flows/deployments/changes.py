"""What a deployment changed on the server, for people and for machines.

change = Change(kind="automation", name=..., what="updated", fields=("trigger",))
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

__all__ = ["UNKNOWN", "Change", "ChangeKind", "What", "differing", "page", "plain"]

ChangeKind = Literal["work pool", "work queue", "deployment", "notification", "automation"]
What = Literal["created", "updated", "unchanged", "removed"]

UNKNOWN = UUID(int=0)
"""The id of what a dry run did not create."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What became of one thing on the server.

    Attributes:
        kind: of thing.
        name: of the thing, as Prefect's pages call it.
        what: was done, or would be.
        id: on the server; zero for what a dry run did not create.
        fields: that differed.
        url: its page.
    """

    kind: ChangeKind
    name: str
    what: What
    id: UUID
    fields: tuple[str, ...] = ()
    url: str | None = None


def differing(wanted: Mapping[str, object], found: Mapping[str, object]) -> tuple[str, ...]:
    """Return the fields of `wanted` that are something else in `found`, both as JSON."""
    return tuple(name for name, value in wanted.items() if plain(value) != plain(found.get(name)))


def plain(value: object) -> object:
    """Return a value as it is after a trip through JSON."""
    result: object = json.loads(json.dumps(value, default=str, sort_keys=True))
    return result


def page(kind: str, object_id: UUID | str) -> str | None:
    """Return the address of a thing's page in the Prefect UI."""
    from prefect.utilities.urls import url_for

    return url_for(kind, obj_id=object_id)
