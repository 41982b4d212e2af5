"""Brain image registration with fully convolutional networks, as a BIDS App.

In Python, see `bids_fcnreg.api`:

>>> import bids_fcnreg as fr
>>> fr.register  # doctest: +ELLIPSIS
<function register at ...>
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; see __getattr__
    from bids_fcnreg.api import (
        Registered,
        apply,
        convert,
        jacobian,
        map_points,
        region_volumes,
        register,
    )

__version__ = "0.1.0"

__all__ = [
    "Registered",
    "__version__",
    "apply",
    "convert",
    "jacobian",
    "map_points",
    "region_volumes",
    "register",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Return a function of `bids_fcnreg.api`, imported on demand: PyTorch takes seconds."""
    if name in __all__:
        from bids_fcnreg import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
