"""Compile the kernels with numba; see `kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: Fast-math flags: sums may be reordered, but NaN and infinity are respected.
FAST_MATH = frozenset({"contract", "reassoc", "nsz", "arcp"})


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function on its first call, to run without the global interpreter lock."""
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(FAST_MATH)}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable cache directory
        return numba.njit(**options)(function)
