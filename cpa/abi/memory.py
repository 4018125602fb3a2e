"""How the C library's allocator treats large bodies."""

import ctypes
from functools import cache
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
MMAP_FROM: Final = 8 << 20
"""As in worker.c: bodies below come from the heap, because fresh mappings cost a page fault per 4 KB."""
TRIM_ABOVE: Final = 16 << 20
"""Free heap that is kept: a body of 1 MB, its encoded form and the answer come again without new pages."""


@cache
def keep_freed_memory() -> None:
    """Let this process keep some memory that it freed; once, and only where the C library is glibc.

    A plugin call with a body of 1 MB takes a quarter of the time then (`make bench`, plugins: calls).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_FROM)
        mallopt(_M_TRIM_THRESHOLD, TRIM_ABOVE)
        mallopt(_M_TOP_PAD, 1 << 20)
