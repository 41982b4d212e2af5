"""Visual reports of the participants, assembled from the figures in the derivatives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_fcnreg.atomic import replacing
from bids_fcnreg.bids.order import natural_key
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.config import Config
from bids_fcnreg.interfaces.reports import write_errors

if TYPE_CHECKING:
    from nireports.assembler.report import Report

_DATA = Path(__file__).parents[1] / "data"
#: Specification of the figures in the report, and template of the page.
SPECIFICATION, PAGE = _DATA / "reports-spec.yml", _DATA / "report.html.j2"
#: Entities in the names of figures, as a configuration of pybids. It has the name of that of
#: nireports, which it replaces.
_ENTITIES = _DATA / "figures.json"


def make_reports(
    config: Config,
    scans: Iterable[Scan],
    failures: Mapping[str, str] | None = None,
    crash_files: Mapping[str, Path] | None = None,
) -> list[Path]:
    """Assemble the visual report of every participant from the figures in the derivatives.

    Parameters
    ----------
    config : Config
        Settings with the derivatives directory.
    scans : iterable of Scan
        One report per participant, with all sessions.
    failures : mapping of str to str, optional
        Error messages by label of the scan.
    crash_files : mapping of str to Path, optional
        Crash files of unexpected errors.

    Returns
    -------
    list of Path
        The reports: ``sub-<label>.html`` in the derivatives.
    """
    by_participant: dict[str, list[Scan]] = {}
    for scan in scans:
        by_participant.setdefault(scan.participant, []).append(scan)
    return [
        _make_report(config.output_dir, participant, theirs, failures or {}, crash_files or {})
        for participant, theirs in by_participant.items()
    ]


def _make_report(
    output_dir: Path,
    participant: str,
    scans: list[Scan],
    failures: Mapping[str, str],
    crash_files: Mapping[str, Path],
) -> Path:
    """Assemble one participant's report."""
    root = output_dir / f"sub-{participant}"
    figures = root / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    errors = figures / f"sub-{participant}_desc-errors_T1w.html"
    errors.unlink(missing_ok=True)
    failed = {scan.label: failures[scan.label] for scan in scans if scan.label in failures}
    if failed:
        write_errors(errors, failed, crash_files)
    path = output_dir / f"sub-{participant}.html"
    with replacing(path) as temporary:
        report = _report_class([scan.session for scan in scans])(
            output_dir,
            run_uuid=None,
            bootstrap_file=SPECIFICATION,
            out_filename=temporary.name,
            # Directory of one subject: indexing all subjects for each report would be quadratic.
            reportlets_dir=root,
            # Inserted into YAML verbatim, so quoted.
            metadata={"page": json.dumps(str(PAGE)), "logs": json.dumps(str(output_dir / "logs"))},
            subject=participant,
        )
        if not any(figures.glob("*_desc-verdict_xfm.html")):
            _remove_sections(report, "Methods")  # there is nothing to describe
        report.generate_report()
    return path


def _report_class(sessions: Sequence[str | None]) -> type[Report]:
    """Return a class of reports with sessions in this order, and others after them."""
    from bids.config import get_option, set_option
    from nireports.assembler.report import Report

    class OrderedReport(Report):
        def index(self, config: dict[str, Any]) -> None:
            # Those of nireports do not allow plus signs, and also match directories above.
            paths = get_option("config_paths")
            set_option("config_paths", {**paths, "figures": str(_ENTITIES)})
            try:
                super().index(config)
            finally:
                set_option("config_paths", paths)

        @staticmethod
        def _process_orderings(orderings: Any, hits: Any) -> tuple[Any, Any]:
            entities, found = Report._process_orderings(orderings, hits)

            def sort_key(values: tuple[str | None, ...]) -> tuple[object, ...]:
                known = [sessions.index(v) if v in sessions else len(sessions) for v in values]
                return *known, *(natural_key(value or "") for value in values)

            return entities, sorted(found, key=sort_key)

    return OrderedReport


def _remove_sections(report: Report, title: str) -> None:
    """Remove the parts with a title from a report."""
    for section in report.sections:
        section.reportlets = [one for one in section.reportlets if one.title != title]
