"""Temporal order from session labels: numbers, units, and words such as baseline or followup."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

#: Units of time before or after a number, in days.
_UNITS = {
    word: days
    for days, words in {
        1 / 24: "h hr hrs hour hours",
        1: "d day days",
        7: "w wk wks week weeks",
        30.4375: "m mo mos mon mth month months",
        365.25: "y yr yrs year years",
    }.items()
    for word in words.split()
}

#: Stage of a study that a word names: negative before any number, else after.
_STAGES = {
    word: stage
    for stage, words in {
        -2: "sc scr screen screening",
        -1: "baseline base bl bsl pre before initial intake admission enrolment enrollment test",
        1: "post after retest discharge",
        2: "followup follow fu fup final end last exit",
    }.items()
    for word in words.split()
}

#: Stages that are also prefixes of longer words, such as preop or postsurgery.
_PREFIXES = ("screening", "baseline", "followup", "pre", "post")

#: Numbers with at least so many digits order sessions only if they are dates, year first.
_DIGITS_OF_DATE = 6
_YEARS = range(1900, 2101)


@dataclass(frozen=True)
class LabelTime:
    """Temporal information in the label of a session.

    Attributes
    ----------
    stage : int or None
        Stage of the study, if a word names one.
    value : float or None
        The number, in days if it has a unit; None if there is none or there are several.
    unit : bool
        Whether the number has a unit of time.
    layout : str
        Label in lower case, with ``#`` in place of its numbers.
    numbers : tuple of int
        All numbers.
    words : tuple of str
        Words without temporal information.
    grows : bool
        Whether the numbers increase with time; false for possible dates with the day first.
    """

    stage: int | None
    value: float | None
    unit: bool
    layout: str
    numbers: tuple[int, ...]
    words: tuple[str, ...]
    grows: bool

    @property
    def sort_key(self) -> tuple[int, float, tuple[int, ...]]:
        """Key that sorts labels by time, in the most likely order if it is uncertain."""
        return self.stage or 0, self.value or 0.0, self.numbers

    def precedes(self, other: LabelTime) -> bool:
        """Return whether this session was certainly before another."""
        if not (self.grows and other.grows):
            return False
        if self.layout == other.layout:
            return self.numbers < other.numbers
        if self.stage == other.stage:
            return self.words == other.words and self._has_smaller_number(other)
        if self.stage is None or other._has_smaller_number(self):
            return False  # 12m may be before or after followup; pre2 before or after post1
        if other.stage is None:
            return self.stage < 0 and other.value is not None
        return self.stage < other.stage

    def _has_smaller_number(self, other: LabelTime) -> bool:
        """Return whether both have one comparable number, and this one's is smaller."""
        if self.value is None or other.value is None:
            return False
        return (self.unit == other.unit or self.value == 0) and self.value < other.value


def label_time(label: str) -> LabelTime:
    """Read the label of a session (without ``ses-``).

    Examples
    --------
    >>> label_time("M06").precedes(label_time("1year"))
    True
    >>> label_time("baseline").precedes(label_time("12m"))
    True
    >>> label_time("A").precedes(label_time("B"))
    False
    """
    parts = re.findall(r"[0-9]+|[^0-9]+", label.lower())
    digits = [part for part in parts if part[0] in "0123456789"]
    numbers = tuple(map(int, digits))
    words = [part for part in parts if part[0] not in "0123456789"]
    unit = next((word for word in words if word in _UNITS), None) if len(numbers) == 1 else None
    if unit is not None:
        words.remove(unit)
    stages = [_stage(word) for word in words]
    value = numbers[0] * (_UNITS[unit] if unit else 1) if len(numbers) == 1 else None
    return LabelTime(
        stage=next((stage for stage in stages if stage is not None), None),
        value=value,
        unit=unit is not None,
        layout=re.sub("[0-9]+", "#", label.lower()),
        numbers=numbers,
        words=tuple(word for word, stage in zip(words, stages, strict=True) if stage is None),
        grows=all(len(number) < _DIGITS_OF_DATE or _is_date(number) for number in digits),
    )


def _stage(word: str) -> int | None:
    """Return the stage of a study that a word names, if any."""
    prefix = next((one for one in _PREFIXES if word.startswith(one)), word)
    return _STAGES.get(word, _STAGES.get(prefix))


def _is_date(digits: str) -> bool:
    """Return whether digits begin with a year and a month, and, from 7 digits on, a day."""
    form = "%Y%m" if len(digits) == _DIGITS_OF_DATE else "%Y%m%d"
    try:
        return datetime.strptime(digits[:8], form).year in _YEARS
    except ValueError:
        return False
