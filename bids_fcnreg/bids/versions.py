"""Check that results are comparable: the same acquisition, template, atlas and model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.derivatives import CHECKSUMS, UNCOMPRESSED
from bids_fcnreg.bids.filters import abbreviated_list
from bids_fcnreg.bids.results import Result

#: Maximum number of scans in a warning.
_MAX_NAMED = 3


def find_version_conflicts(results: Iterable[Result]) -> list[str]:
    """Find sources with the same name but different content in the results of a space.

    Parameters
    ----------
    results : iterable of Result
        Results in any spaces.

    Returns
    -------
    list of str
        A message for each file with several versions.
    """
    versions: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in results:
        for name, content in _sources(one.quality).items():
            known = versions.setdefault((one.space, name), {})
            known.setdefault(content, []).append(one.label)
    return [
        f"the results in the space of {space} were made with different versions of {name} "
        f"({_groups(list(scans.values()))}), so they are not comparable. Rerun the participant "
        "level for all scans"
        for (space, name), scans in versions.items()
        if len(scans) > 1
    ]


def find_superseded(results: Iterable[Result]) -> list[str]:
    """Report scans of which several acquisitions were registered.

    Parameters
    ----------
    results : iterable of Result
        Results in any spaces.

    Returns
    -------
    list of str
        A message for each scan and space, with the used and unused results.
    """
    return [
        f"{one.label}: several acquisitions were registered to {one.space}. The newest result is "
        f"used ({_acquisition(one.quality)}), not {abbreviated_list(older, _MAX_NAMED)}. Delete "
        "the results that you do not want, or register the acquisition that you want again"
        for one in results
        if (older := [_acquisition(path) for path in one.superseded])
    ]


def _acquisition(quality: Path) -> str:
    """Return the prefix of the file names of a result."""
    return quality.name.partition("_from-")[0]


def _groups(scans: Sequence[list[str]]) -> str:
    """List the scans of each version."""
    return "; ".join(
        f"version {n}: {abbreviated_list(labels, _MAX_NAMED)}" for n, labels in enumerate(scans, 1)
    )


def _sources(sidecar: Path) -> dict[str, str]:
    """Return the checksums of the sources of a result by file name, without derivatives."""
    content = read_json(sidecar)
    whole, inside = (content.get(key) for key in (CHECKSUMS, UNCOMPRESSED))
    if not isinstance(whole, dict):
        return {}
    if isinstance(inside, dict):
        whole = whole | inside
    found: dict[str, list[str]] = {}
    for uri, checksum in whole.items():
        if not uri.startswith("bids::"):
            found.setdefault(uri.rpartition("/")[2], []).append(str(checksum))
    return {name: " ".join(sorted(checksums)) for name, checksums in found.items()}
