"""Cohorts of a template and their age ranges, and the cohort for an age."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bids_fcnreg.atomic import read_json
from bids_fcnreg.bids.ages import DAYS, parse_unit, plural
from bids_fcnreg.errors import InputError

#: Templates of TemplateFlow whose age ranges are postmenstrual ages.
POSTMENSTRUAL = ("UNCInfant",)

#: Gestation in days at birth at term, for the ranges of these templates.
_TERM = 40 * DAYS["week"]


@dataclass(frozen=True)
class Cohort:
    """Cohort of a template.

    Attributes
    ----------
    label : str
        Label without leading zeros.
    first, last : Fraction
        Youngest and oldest age, in days since birth.
    youngest, oldest : str
        The same as in template_description.json, without the unit.
    unit : str
        Unit of both, with what they are counted from if that is not birth.
    """

    label: str
    first: Fraction
    last: Fraction
    youngest: str
    oldest: str
    unit: str

    @property
    def ages(self) -> str:
        """Range of ages, for messages."""
        return f"{self.youngest} to {plural(self.oldest, self.unit)}"


def read_cohorts(directory: Path) -> list[Cohort]:
    """Read the cohorts of a template from its ``template_description.json``, by age.

    Cohorts without a range of ages are omitted.

    Raises
    ------
    InputError
        If no cohort has a range of ages, or a range is invalid.
    """
    path = directory / "template_description.json"
    name = directory.name.removeprefix("tpl-")
    described = read_json(path).get("cohort")
    cohorts = []
    for label, content in described.items() if isinstance(described, dict) else ():
        ages = content.get("age") if isinstance(content, dict) else None
        if isinstance(ages, list) and len(ages) == 2:
            cohorts.append(_read_cohort(path, name, label, ages, content.get("units")))
    if not cohorts:
        if not described:
            raise InputError(
                f"cohort-auto cannot be used with {name}, which has no cohorts. Omit "
                ":cohort-auto, or choose another template."
            )
        raise InputError(
            f"cohort-auto cannot be used with {name}: {path} has no cohorts with ranges of ages. "
            "Name a cohort."
        )
    return sorted(cohorts, key=lambda one: (one.first, one.last, one.label))


def choose_cohort(cohorts: Iterable[Cohort], days: Fraction) -> Cohort | None:
    """Return the cohort for an age, if there is one.

    Ranges include both ends. Of several cohorts that include the age, it is the one with the
    narrowest range, then the one whose center is nearest, then the youngest.
    """
    return min(
        (one for one in cohorts if one.first <= days <= one.last),
        key=lambda one: (
            one.last - one.first,
            abs(one.first + one.last - 2 * days),
            one.first,
            one.label,
        ),
        default=None,
    )


def describe_ages(cohorts: Sequence[Cohort]) -> str:
    """Describe the ages that are in at least one of the cohorts, which are sorted by age."""
    merged: list[list[Cohort]] = []  # youngest and oldest cohort of each interval
    for one in cohorts:
        if merged and one.first <= merged[-1][1].last:
            merged[-1][1] = max(merged[-1][1], one, key=lambda cohort: cohort.last)
        else:
            merged.append([one, one])
    return ", ".join(
        start.ages
        if start is end
        else f"{start.youngest} to {plural(end.oldest, end.unit)}"
        if start.unit == end.unit
        else f"{plural(start.youngest, start.unit)} to {plural(end.oldest, end.unit)}"
        for start, end in merged
    )


def _read_cohort(path: Path, name: str, label: str, ages: list[object], units: object) -> Cohort:
    """Return a cohort with a range of ages."""
    unit = parse_unit(units) if isinstance(units, str) else None
    numbers = [Fraction(str(age)) for age in ages if _is_finite(age)]
    if unit is None or len(numbers) < 2 or numbers[0] > numbers[1]:
        raise InputError(
            f"{path}: the age of cohort {label} must have a youngest and an oldest age in "
            f"{', '.join(f'{one}s' for one in DAYS)}. Correct it, or name a cohort."
        )
    born = _TERM if name in POSTMENSTRUAL else 0
    first, last = (number * DAYS[unit] - born for number in numbers)
    youngest, oldest = (f"{float(number):g}" for number in numbers)
    shown = f"postmenstrual {unit}" if born else unit
    return Cohort(label.lstrip("0") or "0", first, last, youngest, oldest, shown)


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
