"""Which wall-clock readings fit a cron expression: croniter, asked only what it answers rightly.

croniter searches readings of a clock that never changes; what clocks that change make of them is
decided in `walltime`. It is asked with plain lists of values, and once for each combination of
days: lists with `#` and `W` beside other days, and "either day is enough", are unions of searches.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from taskq.triggers.cronfields import LAST, CronFields
from taskq.triggers.dialects import FIELDS

__all__ = ["WallClock"]


class WallClock:
    """The readings of `fields`; made once, shared by threads."""

    def __init__(self, fields: CronFields) -> None:
        # Late: most processes that define a schedule never compute a fire time.
        from croniter import CroniterBadDateError, croniter

        self._exhausted = CroniterBadDateError
        start = datetime(2026, 1, 1)  # noqa: DTZ001 - a reading, not an instant
        self._searches: list[Any] = [
            croniter(text, start, ret_type=datetime, day_or=False) for text in expressions(fields)
        ]

    def next(self, wall: datetime) -> datetime | None:
        """The first reading after `wall`, both naive; None: there is none within 50 years."""
        wall = wall.replace(microsecond=0, fold=0)
        return min(
            filter(None, (self._search(each, wall) for each in self._searches)), default=None
        )

    def _search(self, search: Any, wall: datetime) -> datetime | None:
        try:
            # A search keeps its place in itself.
            return copy.copy(search).get_next(start_time=wall)
        except (self._exhausted, OverflowError):
            return None


def expressions(fields: CronFields) -> list[str]:
    """Expressions for croniter, each with days that must all fit, whose union is `fields`."""
    head = f"{_list('minute', fields.minutes)} {_list('hour', fields.hours)}"
    tail = ""
    if fields.years or set(fields.seconds) != {0}:
        tail = " " + _list("second", fields.seconds)
    if fields.years:
        tail += " " + _list("year", fields.years)
    return [
        f"{head} {day} {_list('month', fields.months)} {weekday}{tail}"
        for day, weekday in _day_pairs(fields)
    ]


def _day_pairs(fields: CronFields) -> Iterator[tuple[str, str]]:
    days, weekdays = list(_days(fields)), list(_weekdays(fields))
    if fields.both_days:
        yield from ((day, weekday) for day in days for weekday in weekdays)
    else:
        yield from ((day, "*") for day in days)
        yield from (("*", weekday) for weekday in weekdays)


def _days(fields: CronFields) -> Iterator[str]:
    if fields.days or fields.last_day:
        plain = _list("day of month", fields.days) if fields.days else ""
        yield ",".join(filter(None, (plain, "l" if fields.last_day and plain != "*" else "")))
    yield from (f"{day}w" for day in sorted(fields.nearest))


def _weekdays(fields: CronFields) -> Iterator[str]:
    if fields.weekdays:
        yield _list("day of week", fields.weekdays)
    if fields.nth:
        yield ",".join(
            f"l{day}" if place == LAST else f"{day}#{place}" for day, place in sorted(fields.nth)
        )


def _list(name: str, values: frozenset[int]) -> str:
    field = FIELDS[name]
    if len(values) == field.high - field.low + 1:
        return "*"
    return ",".join(map(str, sorted(values)))
