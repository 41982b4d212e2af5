"""Render the HTML templates of the package."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("bids_fcnreg", "data"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **variables: Any) -> Markup:
    """Render a template of ``data/``; variables are escaped, unless they are markup."""
    return Markup(_environment().get_template(template).render(variables))
