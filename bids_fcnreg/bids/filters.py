"""BIDS filter files, as in fMRIPrep, and their match with the entities of images."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from bids_fcnreg.atomic import read_text
from bids_fcnreg.bids.names import FORMS, KEYS, NAMES
from bids_fcnreg.config import REFERENCE_SUFFIXES
from bids_fcnreg.errors import InputError


class Query(Enum):
    """Value of an entity in a query in place of a label, as in pybids."""

    NONE = 1
    ANY = REQUIRED = 2
    OPTIONAL = 3


#: Images that are not phase images etc.
MAGNITUDE = ["mag", Query.NONE]
#: Queries of fMRIPrep's filter files that are used; `_OTHER_QUERIES` are for other images.
QUERIES: dict[str, dict[str, Any]] = {
    "t1w": {"suffix": "T1w", "part": MAGNITUDE},
    "t2w": {"suffix": "T2w", "part": MAGNITUDE},
    "flair": {"suffix": "FLAIR", "part": MAGNITUDE},
    "roi": {"suffix": ["roi", "mask"]},
}
_OTHER_QUERIES = {"asl", "bold", "dwi", "fmap", "pet", "sbref"}
#: Other keys of a query.
_PROPERTIES = ("suffix", "extension", "datatype", "scans", "fmap")
LARGEST_NUMBER = 2**63 - 1
#: Maximum number of labels in a message.
_MAX_NAMED = 20

Filters = Mapping[str, Mapping[str, Any]]


def read_filter_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read a filter file as fMRIPrep does, e.g. ``{"t1w": {"acquisition": "MPRAGE"}}``.

    ``null`` (or ``"Query.NONE"``) requires that the entity is absent, ``"*"`` (or
    ``"Query.ANY"``) that it is present. Queries for other images (``bold``, …) are ignored.

    Raises
    ------
    InputError
        If the file is invalid, or a query or an entity is unknown.
    """
    path = Path(path)
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as why:
        raise InputError(
            f"The BIDS filter file {path} cannot be read ({why}). Repair it."
        ) from why
    if not isinstance(content, dict) or not all(isinstance(q, dict) for q in content.values()):
        raise InputError(
            f'The BIDS filter file {path} must contain one object per query, such as {{"t1w": '
            '{"acquisition": "MPRAGE"}}.'
        )
    unknown = sorted(set(content) - set(QUERIES) - _OTHER_QUERIES)
    if unknown:
        raise InputError(
            f"The BIDS filter file {path} has the unknown query {', '.join(unknown)}. Use "
            f"{', '.join(list(QUERIES)[:-1])} or {list(QUERIES)[-1]}."
        )
    return {
        query: _read_query(path, query, content[query]) for query in QUERIES if query in content
    }


def _read_query(path: Path, query: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Check a query of a filter file, and convert its special values to `Query`."""
    unknown = sorted(set(content) - set(KEYS) - set(_PROPERTIES))
    if unknown:
        meant = [NAMES[key] for key in unknown if key in NAMES]
        meant += [one for key in unknown for one in difflib.get_close_matches(key, KEYS, n=1)]
        advice = (
            f"Did you mean {', '.join(dict.fromkeys(meant))}?"
            if meant
            else "Write it in full, for example acquisition, run, session."
        )
        raise InputError(
            f"The BIDS filter file {path} has the unknown entity {', '.join(unknown)} in {query}. "
            f"{advice}"
        )
    special = {None: Query.NONE, "*": Query.ANY}
    special |= {f"Query.{name}": value for name, value in Query.__members__.items()}
    for entity, value in content.items():
        for one in value if isinstance(value, list) else [value]:
            huge = isinstance(one, int) and abs(one) > LARGEST_NUMBER
            if huge or not isinstance(one, str | int | float | None):
                raise InputError(
                    f"The BIDS filter file {path} has an invalid value of {entity} in {query}. It "
                    "must be a string, a number of at most 18 digits, null, true or false, or a "
                    "list of these."
                )
    return {
        entity: list(dict.fromkeys(special.get(one, one) for one in value))
        if isinstance(value, list)
        else special.get(value, value)
        for entity, value in content.items()
    }


def queries_of_kinds(filters: Filters, reference_suffix: str | None) -> dict[str, dict[str, Any]]:
    """Return the query for each kind of image: ``t1w``, ``roi``, and other reference images."""
    own = filters.get("t1w", {})
    chosen = reference_suffix or own.get("suffix", "T1w")
    queries = {
        "t1w": {**query_of_suffix(chosen, filters), **own, "suffix": chosen},
        "roi": {**QUERIES["roi"], **filters.get("roi", {})},
    }
    if reference_suffix is not None or "suffix" not in own:
        for suffix in REFERENCE_SUFFIXES:
            if suffix != chosen:
                queries[suffix] = query_of_suffix(suffix, filters)
    return queries


def without_subject(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return a filter without the participant: only the command line selects participants."""
    return {entity: value for entity, value in query.items() if entity != "subject"}


def query_of_suffix(suffix: object, filters: Filters) -> dict[str, Any]:
    """Return the query for images of a suffix, with the filter ``t2w`` or ``flair`` if it is that.

    The filter ``t1w`` applies to the registered images, whatever their suffix.
    """
    name = str(suffix).lower()
    given = filters.get(name, {}) if name != "t1w" else {}
    return {"part": MAGNITUDE, **given, "suffix": suffix}


def matches(entities: Mapping[str, str], query: Mapping[str, Any]) -> bool:
    """Return whether an image matches a query.

    Parameters
    ----------
    entities : mapping of str to str
        Entities of the image.
    query : mapping of str to value or list of values
        Query from `read_filter_file`; one value of a list must match.
    """
    return all(
        any(_agrees(entity, entities.get(entity), one) for one in values_of(value))
        for entity, value in query.items()
    )


def values_of(value: object) -> list[Any]:
    """Return the values of a filter as a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _agrees(entity: str, label: str | None, asked: object) -> bool:
    if isinstance(asked, Query):
        return asked is Query.OPTIONAL or (label is None) == (asked is Query.NONE)
    if label is None:
        return False
    if KEYS.get(entity) in FORMS and label.isdecimal() and str(asked).isdecimal():
        return label.lstrip("0") == str(asked).lstrip("0")
    if entity == "extension":
        return label.lstrip(".") == str(asked).lstrip(".")
    return label == str(asked)


def unmatched_values(
    images: Sequence[Mapping[str, str]], query: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a message for each value of a query that no image has, with the existing values.

    Parameters
    ----------
    images : sequence of mapping of str to str
        Entities of each image of the kind of the query.
    query : mapping of str to value or list of values
        As for `matches`.
    """
    for entity, value in query.items():
        present = sorted({one[entity] for one in images if entity in one})
        for asked in values_of(value):
            if images and not any(_agrees(entity, one.get(entity), asked) for one in images):
                yield f"no image has {_describe(entity, asked)}: {_hint(entity, asked, present)}"


def _describe(entity: str, asked: object) -> str:
    if isinstance(asked, Query):
        return f"{'no ' if asked is Query.NONE else 'any '}{entity}"
    return f"the {entity} {str(asked)[:60] or repr('')}"


def _hint(entity: str, asked: object, present: list[str]) -> str:
    """Describe the values that the images have."""
    if not present:
        return f"none has {entity}"
    if not isinstance(asked, Query):
        bare = str(asked).removeprefix(f"{KEYS.get(entity)}-")
        if close := similar_labels(bare, present):
            return f"did you mean {', '.join(close)}?"
    return f"they have {abbreviated_list(present)}"


def similar_labels(label: str, known: Iterable[str]) -> list[str]:
    """Return labels that resemble a label: 05 for 5, or a differing letter."""
    known = list(known)
    for form in (str, str.lower, lambda one: one.lower().lstrip("0")):
        if same := [other for other in known if form(other) == form(label)]:
            return same
    return difflib.get_close_matches(label, known, n=3, cutoff=0.75)


def abbreviated_list(labels: Sequence[str], most: int = _MAX_NAMED) -> str:
    """Join the first labels with commas, and add the number of the others."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more
