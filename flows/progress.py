"""How a flow tells whoever started it in this process what it is doing.

A flow's parameters are recorded by Prefect and must stay plain values, so a progress bar cannot be
one of them; it listens here instead. Prefect copies the context into the threads of its tasks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """Somebody who watches a flow."""

    def stage(self, title: str, total: int | None) -> None:
        """Hear that a stage of `total` images begins; None where the number is not known."""
        ...

    def image(self, uri: str, masks: int) -> None:
        """Hear that an image is done."""
        ...

    def images(self, count: int, masks: int) -> None:
        """Hear that many images are done, in another process."""
        ...


class Nobody:
    """A listener for when nobody listens."""

    def stage(self, title: str, total: int | None) -> None:
        """Ignore it."""

    def image(self, uri: str, masks: int) -> None:
        """Ignore it."""

    def images(self, count: int, masks: int) -> None:
        """Ignore it."""


_current: ContextVar[Listener] = ContextVar("listener", default=Nobody())  # noqa: B039 - stateless


def listener() -> Listener:
    """Return who listens in this context."""
    return _current.get()


@contextmanager
def listening(to_whom: Listener) -> Iterator[None]:
    """Let somebody watch the flows that run inside the block."""
    token = _current.set(to_whom)
    try:
        yield
    finally:
        _current.reset(token)
