"""The cohort of a template for an age, with the age ranges of TemplateFlow."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import pytest

from bids_fcnreg.bids.ages import DAYS
from bids_fcnreg.bids.cohorts import choose_cohort, describe_ages, read_cohorts
from bids_fcnreg.errors import InputError


@pytest.fixture(scope="module")
def flow(tmp_path_factory) -> Path:
    """The descriptions of all templates that TemplateFlow ships."""
    folder = tmp_path_factory.mktemp("flow")
    package = Path(find_spec("templateflow").origin).parent
    with zipfile.ZipFile(package / "conf/templateflow-skel.zip") as skeleton:
        names = [one for one in skeleton.namelist() if one.endswith("template_description.json")]
        skeleton.extractall(folder, names)
    return folder


def cohort_at(directory: Path, age: str) -> str | None:
    """Label of the cohort at an age such as "18 months"."""
    number, unit = age.split()
    found = choose_cohort(read_cohorts(directory), Fraction(number) * DAYS[unit])
    return found and found.label


@pytest.mark.parametrize(
    ("template", "age", "cohort"),
    [
        ("MNIInfant", "0 day", "1"),
        ("MNIInfant", "1.5 year", "7"),
        ("MNIInfant", "78 week", "7"),
        # Ages on a boundary: the narrower range, otherwise the younger.
        ("MNIInfant", "2 month", "1"),
        ("MNIInfant", "5 month", "2"),
        ("MNIInfant", "17 month", "6"),
        ("MNIInfant", "21 month", "7"),
        ("MNIInfant", "33 month", "9"),
        ("MNIInfant", "44 month", "10"),
        ("MNIInfant", "3.666 year", "10"),
        ("MNIInfant", "3.667 year", "11"),
        ("MNIInfant", "5 year", "11"),
        ("MNIInfant", "60.1 month", None),
        # Overlapping ranges: the narrowest, then the nearest center, then the youngest.
        ("MNIPediatricAsym", "4.5 year", "2"),
        ("MNIPediatricAsym", "7.7 year", "2"),
        ("MNIPediatricAsym", "7.75 year", "2"),
        ("MNIPediatricAsym", "7.8 year", "3"),
        ("MNIPediatricAsym", "10.5 year", "3"),
        ("MNIPediatricAsym", "10.6 year", "5"),
        ("MNIPediatricAsym", "14 year", "5"),
        ("MNIPediatricAsym", "14.1 year", "6"),
        ("MNIPediatricAsym", "222 month", "6"),
        ("MNIPediatricAsym", "4 year", None),
        ("MNIPediatricAsym", "89 year", None),
        # Postmenstrual ages: 40 weeks at birth.
        ("UNCInfant", "0 week", "1"),
        ("UNCInfant", "6.4 week", "1"),
        ("UNCInfant", "6.5 week", None),
        ("UNCInfant", "40 week", None),
        ("UNCInfant", "12 month", "2"),
        ("UNCInfant", "2 year", "3"),
        ("RESILIENT", "12 week", "1"),
        ("RESILIENT", "18 week", None),
    ],
)
def test_cohort_for_an_age(flow, template, age, cohort):
    assert cohort_at(flow / f"tpl-{template}", age) == cohort


@pytest.mark.parametrize(
    ("template", "ages"),
    [
        ("MNIInfant", "0 to 60 months"),
        ("MNIPediatricAsym", "4.5 to 18.5 years"),
        (
            "UNCInfant",
            "38.7 to 46.4 postmenstrual weeks, 87.9 to 109.1 postmenstrual weeks, "
            "131.4 to 163.4 postmenstrual weeks",
        ),
    ],
)
def test_ages_of_all_cohorts(flow, template, ages):
    assert describe_ages(read_cohorts(flow / f"tpl-{template}")) == ages


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("dhcpAsym", "has no cohorts with ranges of ages. Name a cohort"),
        ("dhcpVol", "has no cohorts with ranges of ages. Name a cohort"),
        ("MNI152NLin2009cAsym", "which has no cohorts. Omit :cohort-auto"),
        ("None", "which has no cohorts. Omit :cohort-auto"),
    ],
)
def test_templates_without_age_ranges_are_refused(flow, template, reason):
    with pytest.raises(InputError, match=reason):
        read_cohorts(flow / f"tpl-{template}")


def test_every_description_of_templateflow_is_read_or_refused(flow):
    with_cohorts = []
    for path in flow.glob("tpl-*/template_description.json"):
        try:
            read_cohorts(path.parent)
            with_cohorts.append(path.parent.name)
        except InputError as why:
            assert "has no cohorts" in str(why)
    assert {"tpl-MNIInfant", "tpl-MNIPediatricAsym", "tpl-UNCInfant"} <= set(with_cohorts)


@pytest.mark.parametrize(
    "cohort",
    [
        {"age": [0, 2]},
        {"age": [0, 2], "units": "fortnights"},
        {"age": [2, 0], "units": "months"},
        {"age": ["0", "2"], "units": "months"},
        {"age": [0, float("nan")], "units": "months"},
    ],
)
def test_invalid_ranges_are_refused(tmp_path, cohort):
    content = {"cohort": {"1": cohort}}
    (tmp_path / "template_description.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="cohort 1 must have a youngest and an oldest age"):
        read_cohorts(tmp_path)


def test_different_units_and_leading_zeros(tmp_path):
    content = {
        "cohort": {
            "02": {"age": [2, 4], "units": "years"},
            "01": {"age": [0, 24], "units": "months"},
            "03": {"name": "adults"},
        }
    }
    (tmp_path / "template_description.json").write_text(json.dumps(content))
    assert [one.label for one in read_cohorts(tmp_path)] == ["1", "2"]
    assert describe_ages(read_cohorts(tmp_path)) == "0 months to 4 years"
