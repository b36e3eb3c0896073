"""`calendar`: fires every so many months or days, at a time of day."""

from __future__ import annotations

import calendar as gregorian
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, tzinfo
from functools import cached_property
from itertools import count
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from taskq.core import durations
from taskq.core.durations import Duration, base_date
from taskq.core.errors import ConfigError
from taskq.triggers.cron import check_choice
from taskq.triggers.describe import clock_notes
from taskq.triggers.dst import Clock, DstPolicy, wall_of, zone_name, zone_of
from taskq.triggers.trigger import Trigger, utc

__all__ = ["Calendar", "MissingDay", "calendar"]

MissingDay = Literal["skip", "last"]
"""Without that day, a month is skipped, or fires on its last day."""

_TIME = re.compile(r"\d{1,2}:\d\d(:\d\d)?$")
_DAY = timedelta(days=1)
_LONGEST = {"months": 12_000, "days": 366_000}


@dataclass(frozen=True)
class Calendar(Trigger):
    """Fires on `start` and every `months` months or `days` days later; see `calendar`."""

    months: int = 0
    days: int = 0
    at: time = time()
    tz: str = "UTC"
    start: date | None = None
    end: datetime | None = None
    missing: MissingDay = "skip"
    dst: DstPolicy = "once"

    def __post_init__(self) -> None:
        for name, most in _LONGEST.items():
            check_number(name, getattr(self, name), most)
        if bool(self.months) == bool(self.days):
            raise ConfigError(
                "calendar() counts months (and years) or days (and weeks): use one of them, "
                "such as calendar(months=1, at='08:00')"
            )
        check_choice("dst", self.dst, get_args(DstPolicy))
        check_choice("missing", self.missing, get_args(MissingDay))
        object.__setattr__(self, "tz", zone_name(self.tz))
        if self.end is not None:
            object.__setattr__(self, "end", utc("end", self.end))
        given: Any = self.start
        if given is not None and (isinstance(given, datetime) or not isinstance(given, date)):
            raise ConfigError(f"start={given!r} is not a day; use date(2026, 1, 31)")
        if given is not None:
            object.__setattr__(self, "start", base_date(given))

    def anchored(self, now: datetime) -> Calendar:
        today = wall_of(utc("now", now), self._zone).date()
        return self if self.start is not None else replace(self, start=today)

    def zone(self, fire: datetime) -> str:
        return "" if self.tz == "UTC" else self.tz

    def explain(self) -> str:
        period = (
            counted_unit(self.months, "month") if self.months else counted_unit(self.days, "day")
        )
        text = f"every {period} at {self.at}, " + ("UTC" if self.tz == "UTC" else f"{self.tz} time")
        if self.start is None:
            text += ", counted from the day the schedule is added"
        else:
            text += f", counted from {self.start}"
        if self.end is not None:
            text += f", until {self.end:%Y-%m-%d %H:%M:%S} UTC"
        notes = clock_notes(self._zone, self.dst, self._is_time)
        if self.months and (self.start is None or self.start.day > 28):
            notes.insert(0, _MISSING[self.missing])
        return "; ".join([text, *notes])

    @cached_property
    def _zone(self) -> ZoneInfo:
        return zone_of(self.tz)

    @cached_property
    def _clock(self) -> Clock:
        return Clock(self._zone, self.dst, elapsed=False)

    def _is_time(self, wall: datetime) -> bool:
        return (wall.hour, wall.minute) == (self.at.hour, self.at.minute)

    def _next(self, after: datetime) -> datetime | None:
        try:
            fire = self._clock.next(after, self._next_match)
        except (OverflowError, ValueError):  # the end of the calendar
            return None
        if fire is None or (self.end is not None and fire > self.end):
            return None
        return fire.astimezone(self._zone)

    def _next_match(self, wall: datetime) -> datetime | None:
        start = self.start or wall.date()
        later = self._by_months if self.months else self._by_days
        matches = (datetime.combine(day, self.at) for day in later(start, wall.date()))
        return next(match for match in matches if match > wall)

    def _by_days(self, start: date, today: date) -> Iterator[date]:
        for number in count(max((today - start).days // self.days, 0)):
            yield start + number * self.days * _DAY

    def _by_months(self, start: date, today: date) -> Iterator[date]:
        passed = (today.year - start.year) * 12 + today.month - start.month
        for number in count(max(passed // self.months, 0)):
            years, month = divmod(start.month - 1 + number * self.months, 12)
            longest = gregorian.monthrange(start.year + years, month + 1)[1]
            if start.day <= longest or self.missing == "last":
                yield date(start.year + years, month + 1, min(start.day, longest))


_MISSING: dict[MissingDay, str] = {
    "skip": "months without that day are skipped",
    "last": "months without that day use their last day",
}


def calendar(
    *,
    years: int = 0,
    months: int = 0,
    weeks: int = 0,
    days: int = 0,
    at: time | str = "00:00",
    tz: str | tzinfo = "UTC",
    start: date | None = None,
    end: datetime | None = None,
    missing: MissingDay = "skip",
    dst: DstPolicy = "once",
    jitter: Duration = 0,
) -> Calendar:
    """A trigger that fires every so many months or days, at a time of day.

    Use it for "every third day" or "every second month", and `cron` for fixed days of the month or
    the week ("the 1st", "Mondays").

    Args:
        years: The period is `years` and `months`, or `weeks` and `days`; whole numbers.
        at: The time of day: `08:00`, `08:00:30`, or a `time`.
        tz: The IANA name of the time zone.
        start: The first day, from which the others are counted; None: the day on which the schedule
            is added, which is stored with the schedule.
        end: The last instant at which it may fire; None: no end.
        missing: What to do in a month without the day of `start`: `skip` the month, or fire on its
            `last` day.
        dst: What happens when daylight saving time begins or ends, as in `cron`.
        jitter: The maximum random delay of a fire, in seconds or as a timedelta.

    Raises:
        ConfigError: An argument is invalid; the message names it and what to use instead.

    >>> from datetime import UTC, date, datetime
    >>> pay = calendar(months=1, start=date(2026, 1, 31), at="17:00", missing="last")
    >>> [f"{fire:%m-%d}" for fire in pay.fires(datetime(2026, 1, 1, tzinfo=UTC), 3)]
    ['01-31', '02-28', '03-31']
    """
    for name, number in (("years", years), ("months", months), ("weeks", weeks), ("days", days)):
        check_number(name, number, 1_000_000)
    return Calendar(
        12 * years + months,
        7 * weeks + days,
        time_of_day(at),
        zone_name(tz),
        start,
        end,
        missing,
        dst,
        jitter=durations.seconds("jitter", jitter),
    )


def check_number(name: str, value: Any, most: int) -> None:
    """Raise `ConfigError` unless `value` is a whole number from 0 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ConfigError(f"{name}={value!r}; use a whole number from 0 to {most}")


def time_of_day(at: Any) -> time:
    """The time that a user passes as `at`."""
    if isinstance(at, str) and _TIME.match(at):
        try:
            return time.fromisoformat(at.zfill(len(at) + (at[1] == ":")))
        except ValueError:
            pass
    elif isinstance(at, time) and at.tzinfo is None and not at.microsecond:
        return at
    raise ConfigError(f"at={at!r} is not a time of day; use at='08:00' (and tz= for the zone)")


def counted_unit(number: int, unit: str) -> str:
    """`3 months`, or `month`."""
    return unit if number == 1 else f"{number} {unit}s"
