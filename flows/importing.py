"""Imports without the garbage collector.

    with quick_imports():
        from engine.dataset.catalog import Workspace

What an import makes stays, and the collector would look through all of it again and again: with
PyTorch and Iceberg that is a fifth of a command's start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_imports"]


@contextmanager
def quick_imports() -> Iterator[None]:
    """Collect nothing inside of the block, and never look again at what it made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
