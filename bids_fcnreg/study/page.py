"""The page that shows a whole study at one look."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment

from bids_fcnreg import __version__
from bids_fcnreg.qc.metrics import COMPARED
from bids_fcnreg.study.tables import (
    FEWEST_TO_JUDGE,
    OUTLYING,
    Row,
    absent,
    tell_verdicts,
)


@dataclass(frozen=True)
class SpacePart:
    """What the page shows of one template space.

    Attributes
    ----------
    name : str
        Of the space.
    rows : sequence of Row
        All scans.
    means, distributions : Path
        Pictures (PNG).
    """

    name: str
    rows: Sequence[Row]
    means: Path
    distributions: Path


def make_page(dataset: str, spaces: Sequence[SpacePart]) -> str:
    """Write the page as one HTML text that needs no other file but those it links to.

    Parameters
    ----------
    dataset : str
        Name of the study.
    spaces : sequence of SpacePart
        A part for each template space; the first one's rows are counted.
    """
    source = files("bids_fcnreg").joinpath("data", "group.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, trim_blocks=True).from_string(source)
    rows = spaces[0].rows
    return page.render(
        dataset=dataset,
        version=__version__,
        done=sum(row.status == "done" for row in rows),
        total=len(rows),
        metrics=COMPARED,
        outlying=OUTLYING,
        fewest=FEWEST_TO_JUDGE,
        spaces=[_shown(space) for space in spaces],
    )


def _shown(space: SpacePart) -> dict[str, object]:
    """A space as the template of the page wants it."""
    return {
        "name": space.name,
        "rows": space.rows,
        "absent": absent(space.rows),
        "verdicts": tell_verdicts(space.rows),
        "modes": sorted(Counter(row.mode for row in space.rows if row.mode).items()),
        "facts": list(dict.fromkeys(name for row in space.rows for name in row.facts)),
        "judged": sum(bool(row.numbers) for row in space.rows) >= FEWEST_TO_JUDGE,
        "means": _encoded(space.means),
        "distributions": _encoded(space.distributions),
    }


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()
