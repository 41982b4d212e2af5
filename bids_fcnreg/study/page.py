"""Web page of a study."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_fcnreg import __version__
from bids_fcnreg.html import render
from bids_fcnreg.qc.metrics import METRICS
from bids_fcnreg.study.tables import (
    MIN_SCANS,
    OUTLIER_THRESHOLD,
    Row,
    describe_verdicts,
    group_missing,
)


@dataclass(frozen=True)
class SpacePart:
    """Contents of the page for one template space.

    Attributes
    ----------
    name : str
        Name of the space.
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
    """Render the page as one self-contained HTML text.

    Parameters
    ----------
    dataset : str
        Name of the study.
    spaces : sequence of SpacePart
        One part per template space; scans are counted in the first.
    """
    rows = spaces[0].rows
    return render(
        "group.html.j2",
        dataset=dataset,
        version=__version__,
        done=sum(row.status == "done" for row in rows),
        total=len(rows),
        metrics=tuple(METRICS.values()),
        threshold=OUTLIER_THRESHOLD,
        min_scans=MIN_SCANS,
        spaces=[_template_variables(space) for space in spaces],
    )


def _template_variables(space: SpacePart) -> dict[str, object]:
    """Return the variables of a space in the page's Jinja template."""
    return {
        "name": space.name,
        "rows": space.rows,
        "missing": group_missing(space.rows),
        "verdicts": describe_verdicts(space.rows),
        "modes": sorted(Counter(row.mode for row in space.rows if row.mode).items()),
        "facts": list(dict.fromkeys(name for row in space.rows for name in row.facts)),
        "judged": sum(bool(row.metrics) for row in space.rows) >= MIN_SCANS,
        "means": _encoded(space.means),
        "distributions": _encoded(space.distributions),
    }


def _encoded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode()
