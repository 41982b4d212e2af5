"""Reuse the memory of large tensors, or return it to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress

#: Parameters of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let this process keep freed memory for its next allocations.

    By default glibc maps memory for each large array and unmaps it afterwards; clearing and
    mapping every page again took nearly half of the processor time of a registration. Has no
    effect with another C library.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Return what `keep_freed_memory` has kept to the system, before larger tensors are made.

    Tensors do not fit into the gaps that smaller ones have left.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
