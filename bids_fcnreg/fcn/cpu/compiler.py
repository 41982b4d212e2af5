"""Compile the kernels with numba; see `kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: Fast-math flags: sums may be reordered, but NaN and infinity are respected.
FAST_MATH = frozenset({"contract", "reassoc", "nsz", "arcp"})


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a kernel on its first call, to run without the global interpreter lock."""
    import numba

    try:
        return numba.njit(cache=True, **_options())(function)
    except RuntimeError:  # no writable cache directory
        return numba.njit(**_options())(function)


def inlined(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function as part of the kernels that call it.

    Otherwise its machine code depends on whether the kernel comes from numba's cache: a process
    that has just compiled the kernel calls the code compiled for the function alone, which rounds
    differently.
    """
    import numba

    return numba.njit(forceinline=True, **_options())(function)


def _options() -> dict[str, Any]:
    return {"nogil": True, "error_model": "numpy", "fastmath": set(FAST_MATH)}
