"""The differences between the four dialects of cron."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ALIASES", "DIALECTS", "FIELDS", "Dialect", "DialectName", "Field"]

DialectName = Literal["standard", "celery", "apscheduler3", "croniter"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an expression, and its range of numbers."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_MONTHS = (
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
)
_SUNDAY_FIRST = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")

#: In the order of an expression of seven fields. A name stands for its place in `names`, counted
#: from `low`.
FIELDS = {
    field.name: field
    for field in (
        Field("minute", 0, 59),
        Field("hour", 0, 23),
        Field("day of month", 1, 31),
        Field("month", 1, 12, _MONTHS),
        Field("day of week", 0, 6, _SUNDAY_FIRST),
        Field("second", 0, 59),
        Field("year", 1970, 2099),
    )
}

ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one family of schedulers reads an expression.

    `days` says how day of month and day of week combine: `star` (either is enough, unless one of
    the fields begins with `*`), `both` (both must match) or `either` (either is enough, unless one
    of the fields is `*`).
    """

    name: DialectName
    days: Literal["star", "both", "either"]
    weekday: Field
    #: 7 is Sunday too.
    seven: bool = False
    #: `22-2` continues past midnight.
    wraps: bool = False
    #: `5/20` is 5, 25, 45.
    open_steps: bool = False
    #: A step wider than its range is an error, as in `*/90` minutes.
    steps_fit: bool = False
    #: `1-1` is 1; otherwise it is refused.
    equal_ranges: bool = True
    #: `mon-fri/2` is valid.
    name_steps: bool = True
    #: `monday` and `mond` are valid; otherwise names have three letters.
    long_names: bool = False
    #: `last` is the last day of the month.
    last_word: bool = False
    #: `L`, `W`, `#`, `?`, `H`, `@daily`, seconds and years are valid.
    extras: bool = False

    def field(self, name: str) -> Field:
        return self.weekday if name == "day of week" else FIELDS[name]


_MONDAY_FIRST = Field("day of week", 0, 6, (*_SUNDAY_FIRST[1:], _SUNDAY_FIRST[0]))

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        # Like Debian's cron, where weekdays go up to 7, also as the end of a step.
        Dialect(
            name="standard",
            days="star",
            weekday=Field("day of week", 0, 7, _SUNDAY_FIRST),
            seven=True,
            wraps=True,
            open_steps=True,
            extras=True,
        ),
        Dialect(
            name="celery",
            days="both",
            weekday=FIELDS["day of week"],
            wraps=True,
            long_names=True,
        ),
        Dialect(
            name="apscheduler3",
            days="both",
            weekday=_MONDAY_FIRST,
            open_steps=True,
            steps_fit=True,
            name_steps=False,
            last_word=True,
        ),
        Dialect(
            name="croniter",
            days="either",
            weekday=FIELDS["day of week"],
            seven=True,
            wraps=True,
            open_steps=True,
            equal_ranges=False,
            extras=True,
        ),
    )
}
