"""Tables in memory, recognized without pandas, which takes half a second to import."""

from __future__ import annotations

from typing import Any, Protocol, Self, runtime_checkable


@runtime_checkable
class Table(Protocol):
    """What is needed of a pandas.DataFrame."""

    @property
    def columns(self) -> Any:
        """Names of the columns."""

    def __getitem__(self, key: Any, /) -> Any:
        """Return a column, or a table of several."""

    def assign(self, **columns: Any) -> Self:
        """Return a table with other values in some columns."""
