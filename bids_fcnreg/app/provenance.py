"""Provenance of existing results: registration mode and checksums of their sources."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bids_fcnreg import __version__
from bids_fcnreg.app.anatomical_reference import planned_references, recorded_reference
from bids_fcnreg.app.other_images import used_lesions
from bids_fcnreg.app.summary import Failure
from bids_fcnreg.atomic import checksum, read_json, uncompressed_checksum
from bids_fcnreg.bids.atlases import Atlas
from bids_fcnreg.bids.derivatives import CHECKSUMS, NAME, UNCOMPRESSED, version_that_wrote
from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.bids.outdated_outputs import outdated_outputs
from bids_fcnreg.bids.output_names import output_prefix
from bids_fcnreg.bids.results import RegisteredScan, find_registered, find_results, read_quality
from bids_fcnreg.bids.scan import Scan, suffix_of
from bids_fcnreg.bids.templates import Template, templates_of
from bids_fcnreg.config import DEFAULT_TEMPLATE, SYMMETRIC_TEMPLATE, Config
from bids_fcnreg.fcn.modes import MODES
from bids_fcnreg.fcn.nets.packaged_weights import packaged_checksum

REFERENCE_OPTION = Config.flag("subject_anatomical_reference")

#: What a run with ``--level minimal`` does not replace.
_OF_FULL_LEVEL = "labels, resampled images and figures of an earlier run with --level full"


@dataclass(frozen=True)
class _ExistingResults:
    """Results of a scan that exist, and what has changed since they were made.

    Attributes
    ----------
    modes : dict of str to str
        Registration mode by space.
    changed : list of str
        Names of the sources that have changed.
    references, versions : dict of str to str
        Other anatomical reference, and other version of this software, by space.
    """

    modes: dict[str, str]
    changed: list[str]
    references: dict[str, str]
    versions: dict[str, str]

    @classmethod
    def of(
        cls,
        config: Config,
        scan: Scan,
        templates: Sequence[Template],
        atlases: Mapping[str, Sequence[Atlas]],
        reference: str | None,
    ) -> _ExistingResults:
        """Look up the results of a scan whose anatomical reference is now `reference`."""
        results = _registered(config, scan)
        return cls(
            {one.space: one.mode for one in results},
            _changed(config, scan, results, templates, atlases) if results else [],
            _other_references(results, reference),
            _other_versions(results),
        )

    def is_replaced(self, space: str, mode: str) -> bool:
        """Return whether a run in a mode replaces the results in a space."""
        differs = self.changed or space in self.references or space in self.versions
        return space in self.modes and bool(differs or self.modes[space] != mode)


def list_planned(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
    unreadable: Mapping[str, Failure],
    console: Console,
) -> None:
    """Print which scans would be registered to which template, and which results exist."""
    references = _planned(config, scans, unreadable)
    for scan in scans:
        if not scan.images:
            reason = scan.why_no_image(config.required_suffix)
            console.print(f"{scan.label}: {reason}", soft_wrap=True)
        if scan.label in unreadable:
            console.print(f"{scan.label}: {unreadable[scan.label].message}")
        complete = _complete_spaces(config, scan)
        spaces = [template.space for template in templates_of(scan, templates)]
        if not scan.images or scan.label in unreadable:
            modes = {one.space: one.mode for one in _registered(config, scan)}
            for space in spaces:
                if space in modes and (space in complete or not config.makes_everything):
                    plan = f"results in {space} exist ({modes[space]})"
                    console.print(f"{scan.label}: {plan}", soft_wrap=True)
            continue
        _list_images(scan, console)
        now = references.get(scan.label)
        existing = _ExistingResults.of(config, scan, templates, atlases, now)
        for space in spaces:
            plan = _plan(config, existing, space, space in complete)
            console.print(f"{scan.label}: {plan}", soft_wrap=True)


def _plan(config: Config, existing: _ExistingResults, space: str, complete: bool) -> str:
    """Return what a run would do with a scan in a space.

    `complete` says whether all results of ``--level full`` exist.
    """
    done = existing.modes.get(space)
    if done is None or (config.makes_everything and not complete):
        plan = f"to register to {space} ({config.mode})"
        return plan if done is None else f"{plan}; results of --level minimal exist ({done})"
    plan = f"results in {space} exist ({done})"
    if not existing.is_replaced(space, config.mode):
        return plan
    if existing.changed:
        plan += f", made from another {' and '.join(existing.changed)}"
    if space in existing.versions:
        plan += f", made by version {existing.versions[space]}"
    if space in existing.references:
        plan += f", with {REFERENCE_OPTION} {existing.references[space]}"
    plan += f"; to register again ({config.mode}), which replaces them"
    if complete and not config.makes_everything:
        plan += f", except for {_OF_FULL_LEVEL}, which then do not fit"
    return plan


def _list_images(scan: Scan, console: Console) -> None:
    """Print the other images that are aligned to a scan, and its lesion masks."""
    aligned = [other.path.name for other in scan.others]
    for what, names in (
        (f"aligned to the {suffix_of(scan.images[0])} image", aligned),
        ("lesion masks", [path.name for path in scan.all_lesions]),
    ):
        if names:
            console.print(f"{scan.label}: {what}: {', '.join(names)}", soft_wrap=True)


def report_replaced(
    config: Config,
    scans: Sequence[Scan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
    unreadable: Container[str],
    console: Console,
) -> None:
    """Print whose results are replaced, or are in the default template of earlier versions."""
    other_modes, other_files, other_references, other_versions = [], [], [], []
    outdated, former = [], []
    references = _planned(config, scans, unreadable)
    for scan in scans:
        if not scan.images or scan.label in unreadable:
            continue
        now = references[scan.label]
        existing = _ExistingResults.of(config, scan, templates, atlases, now)
        if config.templates == (DEFAULT_TEMPLATE,) and set(existing.modes) == {SYMMETRIC_TEMPLATE}:
            former.append(scan.label)
        spaces = {template.space for template in templates_of(scan, templates)}
        others = {mode for space, mode in existing.modes.items() if space in spaces}
        if others := others - {config.mode}:
            other_modes.append(f"{scan.label} ({', '.join(sorted(others))})")
        if existing.changed:
            other_files.append(f"{scan.label} ({', '.join(existing.changed)})")
        if spaces & set(existing.versions):
            other_versions.append(scan.label)
        if before := {one for space, one in existing.references.items() if space in spaces}:
            other_references.append(f"{scan.label} ({', '.join(sorted(before))}, now {now})")
        replaced = {space for space in spaces if existing.is_replaced(space, config.mode)}
        if replaced and not config.makes_everything and replaced & _complete_spaces(config, scan):
            outdated.append(scan.label)
    for why, labels in (
        (
            f"The default template is {DEFAULT_TEMPLATE} now. Results in {SYMMETRIC_TEMPLATE}, "
            f"the earlier default, are kept; --template {SYMMETRIC_TEMPLATE} continues them",
            former,
        ),
        (f"Results of another mode are replaced by those of {config.mode}", other_modes),
        (f"Results of another {REFERENCE_OPTION} are replaced", other_references),
        (f"Results of another version of {NAME} are replaced", other_versions),
        ("Results are replaced, because their sources have changed", other_files),
        (
            f"warning: {_OF_FULL_LEVEL} do not fit the new transforms. Delete them, or run with "
            "--level full",
            outdated,
        ),
    ):
        if labels:
            console.print(f"{why}: {abbreviated_list(labels)}", soft_wrap=True)


def report_outdated(config: Config, scans: Sequence[Scan], console: Console) -> None:
    """Print which results have names of an earlier version, and are no longer updated."""
    labels: dict[str, list[str]] = {}
    for scan in scans:
        for name in outdated_outputs(config.output_dir, scan):
            labels.setdefault(name.removeprefix(scan.label), []).append(scan.label)
    if labels:
        names = "; ".join(f"*{name}.* of {', '.join(them)}" for name, them in labels.items())
        console.print(
            f"warning: these results of an earlier version of {NAME} have names that are no "
            f"longer in use, and are not updated. Delete them: {names}",
            soft_wrap=True,
        )


def _planned(config: Config, scans: Sequence[Scan], unreadable: Container[str]) -> dict[str, str]:
    """Return the anatomical references of the readable scans, by their label."""
    return planned_references(config, [one for one in scans if one.label not in unreadable])


def _other_references(results: Sequence[RegisteredScan], now: str | None) -> dict[str, str]:
    """Return the anatomical references of existing results other than that of the run, by space.

    Those of earlier versions, which did not record it, are not among them.
    """
    found = {
        one.space: recorded_reference(
            one.quality.with_name(one.quality.name.replace("_desc-quality", ""))
        )
        for one in results
    }
    return {space: before for space, before in found.items() if before not in ("", now)}


def _other_versions(results: Sequence[RegisteredScan]) -> dict[str, str]:
    """Return the other versions of this software that made existing results, by space."""
    made = {one.space: version_that_wrote(one.quality) for one in results}
    return {space: one for space, one in made.items() if one not in (None, __version__)}


def _registered(config: Config, scan: Scan) -> list[RegisteredScan]:
    """Return what exists of a scan, not of another acquisition in the same session."""
    if not scan.images:
        return []
    found = find_registered(config.output_dir, scan.participant, output_prefix(scan))
    return [one for one in found if one.label == scan.label]


def _complete_spaces(config: Config, scan: Scan) -> set[str]:
    """Return the spaces in which all results of ``--level full`` exist."""
    if not scan.images:
        return set()
    found = find_results(config.output_dir, scan.participant, output_prefix(scan))
    return {one.space for one in found if one.label == scan.label}


def _changed(
    config: Config,
    scan: Scan,
    results: Sequence[RegisteredScan],
    templates: Sequence[Template],
    atlases: Mapping[str, Sequence[Atlas]],
) -> list[str]:
    """Return the names of the sources that have changed since the results of a scan were made."""
    reused = scan.precomputed
    scans_now = {str(path): checksum(path) for path in (*scan.images, *reused.images)}
    names: set[str] = set()
    directory = config.output_dir.joinpath(*scan.label.split("_"), "anat")
    sidecar = directory / f"{output_prefix(scan)}_desc-preproc_{scan.suffix}.json"
    names |= _differences(sidecar, scans_now)
    tissue = {str(path): checksum(path) for path in reused.tissue}
    names |= _differences(directory / f"{output_prefix(scan)}_dseg.json", tissue)
    lesions = used_lesions(config.output_dir, scan)
    others = {str(path): checksum(path) for path in lesions}
    if config.model is not None:
        others[str(config.model)] = checksum(config.model)
    for template in templates_of(scan, templates):
        for result in results:
            if result.space == template.space:
                affine = reused.affines.get(result.space)
                initial = {str(affine): checksum(affine)} if affine else {}
                names |= _differences(result.quality, {**template.sources, **others, **initial})
                if _other_weights(config, result):
                    names.add("network of the package")
                for atlas in atlases.get(template.space, ()):
                    names |= _differences(_sidecar_of_labels(result, atlas), atlas.sources)
    return sorted(names)


def _sidecar_of_labels(result: RegisteredScan, atlas: Atlas) -> Path:
    """Return the sidecar of the labels of an atlas, which need not exist."""
    prefix = result.quality.name.partition("_from-")[0]
    name = f"{prefix}_{atlas.pairs}_desc-{result.space}_dseg.json"
    return result.quality.with_name(name)


def _other_weights(config: Config, result: RegisteredScan) -> bool:
    """Return whether a result in the same mode was made with other weights of the package."""
    if config.model is not None or not MODES[config.mode].trained or result.mode != config.mode:
        return False
    return read_quality(result.quality).get("weights") != packaged_checksum(config.network)


def _differences(sidecar: Path, now: Mapping[str, str]) -> set[str]:
    """Return the names of files whose content is only in a sidecar or only in the sources.

    Parameters
    ----------
    sidecar : Path
        Sidecar of a result; a missing or damaged one gives no differences.
    now : mapping of str to str
        SHA-256 of the current sources, by path or URL.
    """
    content = read_json(sidecar)
    then = _checksums(content, CHECKSUMS)
    inside = _checksums(content, UNCOMPRESSED)
    if then is None:
        return set()
    # Derivatives are skipped: they follow from the other sources.
    left = {
        uri: {sha, (inside or {}).get(uri, sha)}
        for uri, sha in then.items()
        if not uri.startswith("bids::")
    }
    names = set()
    for path, sha in now.items():
        uri = _holder(left, sha) or _holder(left, _content(path, sha))
        if uri is None:
            names.add(path.rpartition("/")[2])
        else:
            del left[uri]
    return names | {uri.rpartition("/")[2] for uri in left}


def _checksums(content: Mapping[str, Any], field: str) -> dict[str, str] | None:
    """Return the checksums by URI in a field of a sidecar; None if it is missing or damaged."""
    found = content.get(field)
    if not isinstance(found, dict) or not all(isinstance(sha, str) for sha in found.values()):
        return None
    return found


def _holder(known: Mapping[str, set[str]], sha: str) -> str | None:
    """Return the URI of the first file with a checksum."""
    return next((uri for uri, checksums in known.items() if sha in checksums), None)


def _content(path: str, sha: str) -> str:
    """Return the checksum of the uncompressed content of a file, if it exists."""
    return uncompressed_checksum(path) if Path(path).is_file() else sha
