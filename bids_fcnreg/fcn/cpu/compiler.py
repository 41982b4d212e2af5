"""Compile the kernels with numba; see `kernels`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: Fast-math flags: NaN and infinity are respected.
FAST_MATH = frozenset({"contract", "nsz", "arcp"})


def compiled(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function on its first call, to run without the global interpreter lock.

    Sums may be reordered.
    """
    return _compiled(function, FAST_MATH | {"reassoc"})


def compiled_in_order(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Compile a function as `compiled` does, with its sums and products in the order written."""
    return _compiled(function, FAST_MATH)


def _compiled(
    function: Callable[_Arguments, _Result], fast_math: frozenset[str]
) -> Callable[_Arguments, _Result]:
    import numba

    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fast_math)}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no writable cache directory
        return numba.njit(**options)(function)
