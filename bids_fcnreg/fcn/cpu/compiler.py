"""Compile the kernels with numba; see `kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: Fast-math flags: NaN and infinity are respected.
FAST_MATH = frozenset({"contract", "nsz", "arcp"})

#: Sums and products may be reordered, too.
REORDERED = FAST_MATH | {"reassoc"}


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a kernel on its first call, to run without the global interpreter lock."""
    import numba

    try:
        return numba.njit(cache=True, **_options(REORDERED))(function)
    except RuntimeError:  # no writable cache directory
        return numba.njit(**_options(REORDERED))(function)


def inlined(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function as part of the kernels that call it.

    Otherwise its machine code depends on whether the kernel comes from numba's cache: a process
    that has just compiled the kernel calls the code compiled for the function alone, which rounds
    differently.
    """
    import numba

    return numba.njit(forceinline=True, **_options(REORDERED))(function)


def inlined_in_order(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile as `inlined` does, with sums and products in the order written."""
    import numba

    return numba.njit(forceinline=True, **_options(FAST_MATH))(function)


def _options(fast_math: frozenset[str]) -> dict[str, Any]:
    return {"nogil": True, "error_model": "numpy", "fastmath": set(fast_math)}
