"""Make the C library keep memory that tensors free, for the tensors that come next.

keep_freed_memory()     # before work that allocates and frees tensors of some MB
"""

from __future__ import annotations

from functools import cache

import torch

_JUST_BELOW_LIMIT_BYTES = 31 << 20


@cache
def keep_freed_memory() -> None:
    """Let later blocks up to 31 MB be served from memory that was used before; once per process.

    The first write to a fresh page costs ten times a later one. glibc gives blocks back to the
    system when they are freed, and takes new ones from it, above thresholds that start at 128 kB
    and follow the largest block freed so far, up to 32 MB. Freeing one of that size, which is never
    written to and so costs nothing, is all it takes. Other C libraries are not disturbed by it.
    """
    torch.empty(_JUST_BELOW_LIMIT_BYTES, dtype=torch.uint8)
