"""What the C library does with memory that is freed."""

import ctypes
import platform

# glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK = 32 * 2**20  # glibc takes no larger one
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Have glibc keep up to 1 GiB of freed memory for the next blocks; False where the C library is another.

    A forward pass frees and asks for the same blocks of megabytes again and again. By itself glibc hands many of them
    back to the system, depending on what the process did before, and every new page is cleared first: a
    tenth of the time of drawing on the CPU (docs/benchmarks.md).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK) and library.mallopt(_TRIM_THRESHOLD, _KEPT))
