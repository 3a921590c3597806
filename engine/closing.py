"""What holds files or connections, and lets go of them at the end of a `with` block.

class Reader(Closing):
def close(self) -> None: ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """Something to close; use it as a context manager, or call `close`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; once more does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
