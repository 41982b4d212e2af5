"""Use existing results of other derivatives, and report them before the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rich.console import Console

from bids_fcnreg.app.summary import Failure
from bids_fcnreg.bids.notes import MAX_NAMED, Note, summarize
from bids_fcnreg.bids.precomputed import find_precomputed, parse_derivatives
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import Template, templates_of
from bids_fcnreg.config import Config
from bids_fcnreg.errors import InputError


def add_precomputed(
    config: Config, scans: Sequence[Scan], templates: Sequence[Template], console: Console
) -> tuple[list[Scan], dict[str, Failure]]:
    """Add the existing results in ``--derivatives`` to scans, and report them.

    Returns
    -------
    scans : list of Scan
    failures : dict of str to Failure
        Why existing results cannot be used, by the label of the scan.

    Raises
    ------
    InputError
        If one of the directories does not exist, or is the output directory.
    """
    derivatives = parse_derivatives(config.derivatives)
    if not derivatives:
        return list(scans), {}
    if config.output_dir.resolve() in {path.resolve() for path in derivatives.values()}:
        raise InputError("--derivatives: the output directory cannot be one of them. Omit it.")
    found: list[Scan] = []
    failures: dict[str, Failure] = {}
    notes: list[Note] = []
    for scan in scans:
        if scan.images:
            try:
                precomputed, doubts = find_precomputed(
                    scan,
                    derivatives,
                    _spaces(config, scan, templates),
                    alone=_is_alone(config, scan),
                )
            except InputError as why:
                failures[scan.label] = Failure(str(why))
            else:
                scan = replace(scan, precomputed=precomputed)
                notes += [Note(doubt, scan.label) for doubt in doubts]
                notes.append(_note(scan, derivatives))
        found.append(scan)
    for line in summarize(notes, MAX_NAMED):
        console.print(line, soft_wrap=True, markup=False)
    return found, failures


def _spaces(config: Config, scan: Scan, templates: Sequence[Template]) -> list[str]:
    """Return the spaces that a scan is itself registered to, not the mean of its sessions."""
    if config.longitudinal:
        return []
    return [template.space for template in templates_of(scan, templates)]


def _note(scan: Scan, derivatives: Mapping[str, object]) -> Note:
    """Return a note about what is used for a scan."""
    kinds = scan.precomputed.descriptions
    if not kinds:
        text = (
            f"no existing results in {', '.join(derivatives)} (--derivatives), where names are "
            "those of BIDS derivatives, such as sub-LABEL_desc-brain_mask.nii.gz"
        )
        return Note(text, scan.label)
    origins = ", ".join(dict.fromkeys(scan.precomputed.origins.values()))
    return Note(f"existing {', '.join(kinds)} of {origins} is used", scan.label, warning=False)


def _is_alone(config: Config, scan: Scan) -> bool:
    """Return whether a participant has no other session with anatomical images."""
    person = config.bids_dir / f"sub-{scan.participant}"
    return sum(1 for _ in person.glob("ses-*/anat")) <= 1 and not (
        scan.session and (person / "anat").is_dir()
    )
