"""Names of results are checked whole before anything is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bids_fcnreg.bids.atlases import default_atlases
from bids_fcnreg.bids.output_names import check_output_names, output_names
from bids_fcnreg.bids.scan import Scan
from bids_fcnreg.bids.templates import resolve_template
from bids_fcnreg.errors import InputError

TEMPLATE = resolve_template("MNI152NLin2009aSym")


def scan(entities: str, participant: str = "01", session: str | None = None) -> Scan:
    label = f"sub-{participant}" + (f"_ses-{session}" if session else "")
    return Scan(participant, session, (Path(f"/in/{label}{entities}_T1w.nii.gz"),))


def check(one: Scan, template=TEMPLATE, atlases=(), folder: Path = Path("/")) -> None:
    check_output_names(one, [template], {template.space: atlases}, folder)


@pytest.mark.parametrize(
    ("one", "entity"),
    [
        (scan(f"_acq-{'a' * 190}"), "acq-"),
        (scan(f"_rec-{'a' * 190}"), "rec-"),
        (scan(f"_ce-{'a' * 190}"), "ce-"),
        (scan("", participant="a" * 190), "sub-"),
        (scan("", session="a" * 190), "ses-"),
        (scan(f"_acq-{'a' * 90}_rec-{'b' * 100}"), "rec-"),
    ],
)
def test_labels_that_are_too_long_are_refused(one, entity):
    with pytest.raises(InputError, match=f"Shorten the label of {entity}") as caught:
        check(one)
    assert str(one.images[0]) in str(caught.value)


def test_the_limit_is_that_of_the_file_system(tmp_path):
    longest = max(len(name) for name in output_names(scan("_acq-"), [TEMPLATE], {}))
    check(scan(f"_acq-{'a' * (255 - longest)}"), folder=tmp_path / "new" / "out")
    with pytest.raises(
        InputError, match="up to 256 characters, but the output directory allows 255"
    ):
        check(scan(f"_acq-{'a' * (256 - longest)}"), folder=tmp_path / "new" / "out")


def test_entities_that_results_do_not_keep_may_be_long():
    check(scan(f"_task-{'a' * 190}"))


@pytest.mark.parametrize("name", ["my-study", "my_study", "Größe", "a b", ""])
def test_illegal_names_of_templates_and_atlases_are_refused(name):
    with pytest.raises(InputError, match="would not have a valid BIDS name"):
        check(scan(""), replace(TEMPLATE, name=name))
    (atlas,) = default_atlases(TEMPLATE)
    with pytest.raises(InputError, match="would not have a valid BIDS name"):
        check(scan(""), atlases=[replace(atlas, name=name)])


def test_legal_names_pass():
    check(scan("_acq-a+b"), replace(TEMPLATE, cohort="3", resolution="1"))
    check(scan("", session="1"), atlases=default_atlases(TEMPLATE))
