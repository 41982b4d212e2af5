"""What a BIDS dataset holds for us: the T1w images and lesion masks of each participant."""

from __future__ import annotations

import difflib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bids_fcnreg.bids.order import natural_key, order_sessions
from bids_fcnreg.errors import FcnregError, InputError
from bids_fcnreg.files import checksum, publish, read_text, remove_leftovers

if TYPE_CHECKING:
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

#: Queries of fMRIPrep's filter files that we read; `_OTHER_QUERIES` are for images we never read.
_QUERIES: dict[str, dict[str, Any]] = {
    "t1w": {"datatype": "anat", "suffix": "T1w", "part": ["mag", None]},
    "roi": {"datatype": "anat", "suffix": ["roi", "mask"]},
}
_OTHER_QUERIES = {"asl", "bold", "dwi", "flair", "fmap", "pet", "sbref", "t2w"}
_LESION = re.compile(r"_label-lesion_(.*_)?(roi|mask)\.nii|^(?!.*_label-).*_roi\.nii")
#: SQLite knows no larger ones.
LARGEST_NUMBER = 2**63 - 1
_VALIDATOR_SECONDS = 600
#: Name that pybids gives to its database.
_DATABASE = "layout_index.sqlite"
#: Labels that a message names at most.
_NAMED = 20
#: Letters of a label that a message shows at most.
_LONGEST = 60


def scan_label(participant: str, session: str | None) -> str:
    """``sub-01`` or ``sub-01_ses-x``, from labels without their prefixes."""
    return f"sub-{participant}" + (f"_ses-{session}" if session else "")


@dataclass(frozen=True)
class Scan:
    """T1w images that make one anatomy: all runs of one participant in one session.

    Attributes
    ----------
    participant : str
        Label without ``sub-``.
    session : str or None
        Label without ``ses-``.
    t1w : tuple of Path
        The runs, sorted by name; empty if the participant has none.
    lesions : tuple of Path
        Lesion masks beside them.
    """

    participant: str
    session: str | None
    t1w: tuple[Path, ...]
    lesions: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """``sub-01`` or ``sub-01_ses-x``."""
        return scan_label(self.participant, self.session)

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of each of its files that is there, by path."""
        files = (path for path in (*self.t1w, *self.lesions) if path.is_file())
        return {str(path): checksum(path) for path in files}


def read_description(bids_dir: Path) -> dict[str, Any]:
    """Content of a dataset's dataset_description.json.

    Raises
    ------
    InputError
        If the folder is not the root of a BIDS dataset.
    """
    if not bids_dir.is_dir():
        raise InputError(f"{bids_dir} is not a folder: give the root of a BIDS dataset.")
    description = bids_dir / "dataset_description.json"
    if not description.exists():
        raise InputError(
            f"{bids_dir} has no dataset_description.json: give the root of a BIDS dataset, or "
            'add that file with at least "Name" and "BIDSVersion".'
        )
    try:
        content = json.loads(read_text(description))
    except (OSError, ValueError, RecursionError) as why:
        raise InputError(f"{description} is not readable JSON ({why}): repair it.") from why
    known = content if isinstance(content, dict) else {}
    missing = [key for key in ("Name", "BIDSVersion") if key not in known]
    if missing:
        raise InputError(f"{description} lacks {' and '.join(missing)}: add what BIDS requires.")
    return content


def open_layout(
    bids_dir: Path, participants: Iterable[str] = (), database_dir: Path | None = None
) -> BIDSLayout:
    """Index the ``anat`` folders of a dataset, nothing else.

    Parameters
    ----------
    bids_dir : Path
        Root of a BIDS dataset.
    participants : iterable of str
        Labels without ``sub-`` to restrict the index to; empty means all.
    database_dir : Path, optional
        pybids database: used as it is if it exists, else written there (for all participants).

    Raises
    ------
    InputError
        If there is no readable BIDS dataset at `bids_dir`.
    """
    from bids.layout import BIDSLayoutIndexer

    read_description(bids_dir)
    labels = () if database_dir else tuple(participants)
    chosen = "|".join(map(re.escape, labels)) if labels else "[^/]+"
    ignore = [
        re.compile(rf"^/(?!sub-(?:{chosen})(?:/|$)|dataset_description\.json$)"),
        re.compile(r"^/sub-[^/]+/(?!ses-|anat(?:/|$))[^/]+"),
        re.compile(r"^/sub-[^/]+/ses-[^/]+/(?!anat(?:/|$))[^/]+"),
    ]
    try:
        indexer = BIDSLayoutIndexer(validate=False, ignore=ignore, index_metadata=False)
        layout = _indexed(bids_dir, indexer, database_dir)
    except UnicodeEncodeError as why:
        raise InputError(
            f"{bids_dir} holds a file whose name is not in UTF-8 ({_first_line(why)}): rename "
            "what holds other letters than those of BIDS: a to z, digits and _-."
        ) from why
    except Exception as why:  # pybids, SQLAlchemy and SQLite each raise their own kinds
        where = f"{bids_dir} (database {database_dir})" if database_dir else str(bids_dir)
        raise InputError(
            f"{where} cannot be read as a BIDS dataset ({_first_line(why)}): run "
            "bids-validator-deno on it; a database of another pybids version must be deleted."
        ) from why
    if Path(layout.root).resolve() != Path(bids_dir).resolve():
        raise InputError(
            f"The database {database_dir} is of another dataset, {layout.root}: give another "
            "folder with --bids-database-dir, or delete it."
        )
    return layout


def _indexed(bids_dir: Path, indexer: BIDSLayoutIndexer, database_dir: Path | None) -> BIDSLayout:
    """Layout in memory, or by a database, which appears whole or not at all."""
    from bids.layout import BIDSLayout

    if database_dir is not None and not (database_dir / _DATABASE).exists():
        # One that is half made would be taken for the whole dataset.
        with tempfile.TemporaryDirectory() as scratch:
            BIDSLayout(bids_dir, validate=False, indexer=indexer, database_path=scratch)
            remove_leftovers(database_dir.glob(".*"))
            publish(Path(scratch, _DATABASE), database_dir / _DATABASE)
    return BIDSLayout(bids_dir, validate=False, indexer=indexer, database_path=database_dir)


def find_scans(
    bids_dir: Path,
    participants: Iterable[str] = (),
    sessions: Iterable[str] = (),
    filters: dict[str, dict[str, Any]] | None = None,
    database_dir: Path | None = None,
) -> list[Scan]:
    """Find what there is to register.

    Parameters
    ----------
    bids_dir : Path
        Root of a BIDS dataset.
    participants, sessions : iterable of str
        Labels, with or without ``sub-`` and ``ses-``; empty means all. Sessions asked for leave
        out images without a session.
    filters : dict, optional
        What `read_filter_file` returns.
    database_dir : Path, optional
        See `open_layout`.

    Returns
    -------
    list of Scan
        One for each participant and session that has a T1w image, sorted; see
        `bids_fcnreg.bids.order`. A participant without
        any T1w image is there with an empty ``t1w`` (only if named, when sessions are asked for).

    Raises
    ------
    InputError
        If there is no dataset, an unknown participant or session, or no T1w image at all.
    """
    from sqlalchemy.exc import SQLAlchemyError

    bids_dir = Path(bids_dir).absolute()
    read_description(bids_dir)
    wanted = _labels(participants, "sub-")
    visits = _labels(sessions, "ses-")
    folders = (p.name[4:] for p in bids_dir.glob("sub-*") if p.is_dir())
    there = sorted(folders, key=natural_key)
    if not there:
        raise InputError(f"{bids_dir} has no sub-* folders: is it the root of the dataset?")
    _check_known("Participant", wanted, there, bids_dir)
    layout = open_layout(bids_dir, wanted, database_dir)
    if visits:
        _check_known("Session", visits, layout.get_sessions(), bids_dir)
    try:
        everybody = _all_scans(layout, visits, filters or {})
    except (ValueError, TypeError, SQLAlchemyError) as why:
        raise InputError(
            f"The BIDS filter asks for what cannot be looked for ({_first_line(why)}): correct "
            "its values."
        ) from why
    scans = []
    for participant in wanted or there:
        found = order_sessions(bids_dir, everybody.get(participant, []))
        if not found and (wanted or not visits):
            session = visits[0] if len(visits) == 1 else None
            found = [Scan(participant, session, ())]
        scans += found
    if not any(scan.t1w for scan in scans):
        chosen = " for what was asked" if wanted or visits or filters else ""
        raise InputError(
            f"{bids_dir} has no T1w image{chosen} (sub-*/[ses-*/]anat/*_T1w.nii[.gz]): check the "
            "participants, sessions and filters, and that the images are named as BIDS asks."
        )
    return scans


def read_filter_file(path: Path) -> dict[str, dict[str, Any]]:
    """Read a filter file as fMRIPrep does, e.g. ``{"t1w": {"acquisition": "MPRAGE"}}``.

    ``null`` (or ``"Query.NONE"``) asks that the entity is absent, ``"*"`` (or ``"Query.ANY"``)
    that it is there. Queries for images that are not read (``bold``, …) are left out.

    Raises
    ------
    InputError
        If it is not such a file, or a query or an entity in it is unknown.
    """
    from bids.layout import Config, Query

    path = Path(path)
    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as why:
        raise InputError(
            f"The BIDS filter file {path} cannot be read ({why}): repair it."
        ) from why
    if not isinstance(content, dict) or not all(isinstance(q, dict) for q in content.values()):
        raise InputError(
            f'The BIDS filter file {path} must hold one object a query, such as {{"t1w": '
            '{"acquisition": "MPRAGE"}}.'
        )
    unknown = sorted(set(content) - set(_QUERIES) - _OTHER_QUERIES)
    if unknown:
        raise InputError(
            f"The BIDS filter file {path} has the unknown query {', '.join(unknown)}: those that "
            f"are read are {' and '.join(_QUERIES)}."
        )
    words = {None: Query.NONE, "*": Query.ANY}
    words |= {f"Query.{query.name}": query for query in Query}
    entities = set(Config.load("bids").entities) | set(Config.load("derivatives").entities)
    filters = {}
    for query in set(content) & set(_QUERIES):
        strange = sorted(set(content[query]) - entities)
        if strange:
            raise InputError(
                f"The BIDS filter file {path} has in {query} the unknown entity "
                f"{', '.join(strange)}: write it in full, for instance acquisition, run, session."
            )
        for entity, value in content[query].items():
            for one in value if isinstance(value, list) else [value]:
                huge = isinstance(one, int) and abs(one) > LARGEST_NUMBER
                if huge or not isinstance(one, str | int | float | None):
                    raise InputError(
                        f"The BIDS filter file {path} has in {query} a value of {entity} that is "
                        "neither a text, a number of at most 18 digits, null, true nor false, nor "
                        "a list of these."
                    )
        filters[query] = {
            entity: list(dict.fromkeys(words.get(v, v) for v in value))
            if isinstance(value, list)
            else words.get(value, value)
            for entity, value in content[query].items()
        }
    return filters


def validate(bids_dir: Path) -> list[str]:
    """Run the BIDS validator and say what it found.

    Nothing it finds stops a run: real datasets carry errors in files that are never read, and
    those that are read are checked when they are.

    Returns
    -------
    list of str
        One line for each error; empty if there is none.

    Raises
    ------
    FcnregError
        If the validator could not do its work.
    """
    name = "bids-validator-deno"
    beside = Path(sys.executable).with_name(name)
    command = str(beside) if beside.exists() else shutil.which(name)
    if command is None:
        raise FcnregError(f"{name} is not installed: the dataset was not validated.")
    try:
        done = subprocess.run(
            [command, str(bids_dir), "--format", "json", "--ignoreWarnings"],
            capture_output=True,
            text=True,
            timeout=_VALIDATOR_SECONDS,
        )
        if not done.stdout.strip():
            raise OSError(done.stderr.strip() or f"exit code {done.returncode}")
        issues = json.loads(done.stdout)["issues"]["issues"]
    except subprocess.TimeoutExpired as why:
        raise FcnregError(
            f"{name} took more than {_VALIDATOR_SECONDS} s: the dataset was not validated."
        ) from why
    except (OSError, ValueError, KeyError) as why:
        raise FcnregError(
            f"{name} failed ({_first_line(why)}): the dataset was not validated."
        ) from why
    return [_issue_line(issue) for issue in issues if issue.get("severity") == "error"]


def _issue_line(issue: dict[str, Any]) -> str:
    """One error of the validator as one line."""
    line = f" line {issue['line']}" if issue.get("line") else ""
    sub = f" ({issue['subCode']})" if issue.get("subCode") else ""
    message = " ".join(str(issue.get("issueMessage") or "").split())
    place = f"{issue.get('location', 'dataset')}{line}: {issue.get('code', 'error')}{sub}"
    return f"{place} {message}".rstrip()


def _all_scans(
    layout: BIDSLayout, sessions: tuple[str, ...], filters: dict[str, Any]
) -> dict[str, list[Scan]]:
    """Scans of each participant.

    All are asked for at once: pybids goes through the whole index for each question.
    """
    common: dict[str, Any] = {"extension": [".nii", ".nii.gz"]}
    if sessions:
        common["session"] = list(sessions)
    images: dict[str, dict[tuple[str, str | None], list[Path]]] = {}
    for query, default in _QUERIES.items():
        asked = {**common, **default, **filters.get(query, {})}
        asked.pop("subject", None)  # who it is, only the command line says
        found = images.setdefault(query, {})
        for file in layout.get(**asked):
            if "subject" not in file.entities:
                continue  # its folder is not named as BIDS asks
            session = file.entities.get("session")
            # The filter narrows what was asked for on the command line, and never overrides it.
            if not sessions or session in sessions:
                found.setdefault((file.entities["subject"], session), []).append(Path(file.path))
    scans: dict[str, list[Scan]] = {}
    for participant, session in images["t1w"]:
        t1w = tuple(sorted(images["t1w"][participant, session], key=natural_key))
        others = sorted(images["roi"].get((participant, session), []), key=natural_key)
        lesions = tuple(path for path in others if _LESION.search(path.name))
        scans.setdefault(participant, []).append(Scan(participant, session, t1w, lesions))
    return scans


def _check_known(what: str, wanted: tuple[str, ...], there: list[str], bids_dir: Path) -> None:
    """Refuse labels that the dataset does not have."""
    unknown = [label for label in wanted if label not in there]
    if not unknown:
        return
    told = ", ".join(
        f"{label[:_LONGEST]}…" if len(label) > _LONGEST else label or "''" for label in unknown
    )
    sentence = f"{what} {told} is not in {bids_dir}"
    if not there:
        option = f"--{what.lower()}-label"
        raise InputError(f"{sentence}, which has no {what.lower()}s: leave {option} away.")
    if any("," in label for label in unknown):
        raise InputError(f"{sentence}: put spaces between labels, not commas.")
    if alike := [match for label in unknown for match in _alike(label, there)]:
        raise InputError(f"{sentence}: did you mean {', '.join(dict.fromkeys(alike))}?")
    known = ", ".join(there[:_NAMED])
    more = f" and {len(there) - _NAMED} more" if len(there) > _NAMED else ""
    raise InputError(f"{sentence}: choose from {known}{more}.")


def _alike(label: str, there: Iterable[str]) -> list[str]:
    """Labels that are written nearly like this one: 05 for 5, or a letter that differs."""
    same = [other for other in there if other.lstrip("0") == label.lstrip("0")]
    return same or difflib.get_close_matches(label, there, n=3, cutoff=0.75)


def _labels(labels: Iterable[str], prefix: str) -> tuple[str, ...]:
    """Labels without their prefix, each once, in the order given."""
    return tuple(dict.fromkeys(label.removeprefix(prefix) for label in labels))


def _first_line(why: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(why).strip() or type(why).__name__).splitlines()[0]
