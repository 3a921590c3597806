from __future__ import annotations

import platform
import resource

import pytest
import torch

from model.host_memory import keep_freed_memory

MB = 1 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc's thresholds")
def test_memory_that_was_freed_is_written_again_without_page_faults() -> None:
    keep_freed_memory()
    write_and_free()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        write_and_free()
    faulted_pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faulted_pages * resource.getpagesize() < 10 * 4 * 7 * MB / 4


def write_and_free() -> None:
    [torch.empty(7 * MB, dtype=torch.uint8).fill_(1) for _ in range(4)]
