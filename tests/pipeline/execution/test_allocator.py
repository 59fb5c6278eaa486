"""Freed memory stays with the process, where the C library is told so."""

import os
import platform
import subprocess
import sys

import pytest

FREED_AGAIN_AND_AGAIN = """
import resource, torch
from pipeline.execution.allocator import keep_freed_memory
assert {told} is False or keep_freed_memory()
def round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(5_000_000).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
round()
print(round())
"""


def new_pages(told: bool) -> int:
    # By itself glibc changes its mind with what happens to be freed first; this has it hand back every block.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", FREED_AGAIN_AND_AGAIN.format(told=told)]
    return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc alone")
def test_blocks_that_come_again_bring_no_new_pages() -> None:
    assert new_pages(told=True) < 100 < 20 * 4000 < new_pages(told=False)


def test_another_c_library_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.execution.allocator import keep_freed_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
