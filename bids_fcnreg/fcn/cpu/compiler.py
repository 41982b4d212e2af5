"""Compile the kernels with numba; see `kernels`."""

from __future__ import annotations

from collections.abc import Callable

#: Freedoms of the compiler. It may reorder sums, but must know of NaN and infinity.
FAST_MATH = frozenset({"contract", "reassoc", "nsz", "arcp"})


def compiled(function: Callable) -> Callable:
    """Compile a function on its first call, to run without holding Python's global lock."""
    import numba

    options = {"nogil": True, "error_model": "numpy", "fastmath": set(FAST_MATH)}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder for the cache can be written
        return numba.njit(**options)(function)
