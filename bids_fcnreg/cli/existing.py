"""Results that are there before a run: how they were made, and from what."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bids_fcnreg.bids.derivatives import CHECKSUMS, bids_uri
from bids_fcnreg.bids.results import Result, find_preprocessed, find_results, read_quality
from bids_fcnreg.files import checksum, read_json

if TYPE_CHECKING:
    from rich.console import Console

    from bids_fcnreg.bids.dataset import Scan
    from bids_fcnreg.bids.templates import Template
    from bids_fcnreg.cli.summary import Failure
    from bids_fcnreg.config import Config


def list_all(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    unreadable: Mapping[str, Failure],
    console: Console,
) -> None:
    """Say what would be registered to what, and which results are there already."""
    for scan in scans:
        if not scan.t1w:
            console.print(f"{scan.label}: {scan.problem or 'it has no T1w image'}", soft_wrap=True)
        if scan.label in unreadable:
            console.print(f"{scan.label}: {unreadable[scan.label].sentence}")
        usable = scan.t1w and scan.label not in unreadable
        modes = _modes(config, scan)
        changed = _changed(config, scan, templates) if usable and modes else []
        for space in (template.space for template in templates):
            done = modes.get(space)
            words = f"results in {space} are there ({done})" if done else ""
            if usable and done is None:
                words = f"to register to {space} ({config.mode})"
            elif usable and (changed or done != config.mode):
                because = f", made from another {' and '.join(changed)}" if changed else ""
                words += f"{because}; to register again ({config.mode}), which replaces them"
            if words:
                console.print(f"{scan.label}: {words}", soft_wrap=True)


def tell_replaced(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    unreadable: Container[str],
    console: Console,
) -> None:
    """Say whose results are replaced, because of another mode or another file."""
    spaces = {template.space for template in templates}
    other_modes, other_files = [], []
    for scan in scans:
        if not scan.t1w or scan.label in unreadable or not (modes := _modes(config, scan)):
            continue
        others = {mode for space, mode in modes.items() if space in spaces} - {config.mode}
        if others:
            other_modes.append(f"{scan.label} ({', '.join(sorted(others))})")
        if changed := _changed(config, scan, templates):
            other_files.append(f"{scan.label} ({', '.join(changed)})")
    for why, who in (
        (f"Results of another mode are replaced by those of {config.mode}", other_modes),
        ("Results are replaced, for what they were made from has changed", other_files),
    ):
        if who:
            console.print(f"{why}: {', '.join(who)}", soft_wrap=True)


def _modes(config: Config, scan: Scan) -> dict[str, str]:
    """How a scan was registered, by the space of the template, where that is done."""
    done = find_results(config.output_dir, scan.participant)
    return {one.space: one.mode for one in done if one.label == scan.label}


def _changed(config: Config, scan: Scan, templates: Sequence[Template]) -> list[str]:
    """Names of what is another than when the results of a scan were made."""
    scans_now = _by_uri(config, {str(path): checksum(path) for path in scan.t1w})
    names: set[str] = set()
    for _, preproc, _ in find_preprocessed(config.output_dir, [scan]):
        sidecar = preproc.with_name(preproc.name.removesuffix(".nii.gz") + ".json")
        names |= _differences(sidecar, scans_now)
    others = {str(path): checksum(path) for path in scan.lesions}
    if config.model is not None:
        others[str(config.model)] = checksum(config.model)
    for template in templates:
        for result in find_results(config.output_dir, scan.participant):
            if (result.label, result.space) == (scan.label, template.space):
                now = _by_uri(config, {**template.sources, **others})
                names |= _differences(result.quality, now)
                if _other_weights(config, result):
                    names.add("network of the package")
    return sorted(names)


def _other_weights(config: Config, result: Result) -> bool:
    """Whether the package came with other weights when it made a result in the same mode."""
    if config.model is not None or config.mode == "optimize" or result.mode != config.mode:
        return False
    return read_quality(result.quality).get("weights") != _checksum_of_shipped(config.network)


@cache
def _checksum_of_shipped(network: str) -> str:
    from bids_fcnreg.fcn.weights import load, shipped

    return load(shipped(network))[1]


def _by_uri(config: Config, checksums: Mapping[str, str]) -> dict[str, str]:
    """Checksums by what sidecars call the files."""
    return {
        bids_uri(path, config.bids_dir, config.output_dir): digest
        for path, digest in checksums.items()
    }


def _differences(sidecar: Path, now: Mapping[str, str]) -> set[str]:
    """Names of files that a sidecar has another checksum of, or that only one of both knows."""
    content = read_json(sidecar)
    if not isinstance(content.get(CHECKSUMS), dict):  # damaged, or made by an earlier version
        return set()
    # Our own results are not of interest: they follow from the others.
    then = {uri: sha for uri, sha in content[CHECKSUMS].items() if not uri.startswith("bids::")}
    differ = (uri for uri in {*then, *now} if then.get(uri) != now.get(uri))
    return {uri.rpartition("/")[2] for uri in differ}
