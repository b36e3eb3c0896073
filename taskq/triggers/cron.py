"""`cron`: fires at the wall-clock times that an expression describes.

croniter finds the matching wall-clock times. It only sees expressions that it handles correctly.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cached_property
from typing import Any, get_args
from zoneinfo import ZoneInfo

from taskq.core import durations
from taskq.core.durations import Duration
from taskq.core.errors import ConfigError
from taskq.core.options import nearest
from taskq.core.text import check_text
from taskq.triggers.cron_dialects import DIALECTS, FIELDS, DialectName
from taskq.triggers.cron_fields import LAST, CronFields, SecondsPlace, parse
from taskq.triggers.describe import in_words
from taskq.triggers.dst import Clock, DstPolicy, zone_name, zone_of
from taskq.triggers.trigger import INSTANT, Trigger, utc

__all__ = ["Cron", "WallClock", "check_choice", "cron"]


class WallClock:
    """Finds the wall-clock times that match `fields`; created once, shared by threads."""

    def __init__(self, fields: CronFields) -> None:
        # Imported late: most processes that define a schedule never compute a fire time.
        from croniter import CroniterBadDateError, croniter

        self._exhausted = CroniterBadDateError
        start = datetime(2026, 1, 1)  # noqa: DTZ001 - a wall-clock time, not an instant
        self._searches: list[Any] = [
            croniter(text, start, ret_type=datetime, day_or=False) for text in expressions(fields)
        ]

    def next(self, wall: datetime) -> datetime | None:
        """The first matching time after `wall`, both naive; None if none is within 50 years."""
        wall = wall.replace(microsecond=0, fold=0)
        return min(
            filter(None, (self._search(each, wall) for each in self._searches)), default=None
        )

    def _search(self, search: Any, wall: datetime) -> datetime | None:
        try:
            # A copy, because a search stores its position in itself.
            return copy.copy(search).get_next(start_time=wall)
        except (self._exhausted, OverflowError):
            return None


def expressions(fields: CronFields) -> list[str]:
    """Expressions for croniter whose union is `fields`: in each, all day fields must match."""
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


def check_choice(what: str, value: Any, known: Iterable[str]) -> None:
    """Raise `ConfigError` unless `value` is one of the `known` words."""
    words = list(known)
    if not isinstance(value, str):
        raise ConfigError(f"{what}={value!r}; use one of {', '.join(map(repr, words))}")
    if value not in words:
        raise ConfigError(f"{what}={value!r} is unknown{nearest(value, words)}")


@dataclass(frozen=True)
class Cron(Trigger):
    """Fires at the times of a cron expression; see `cron`."""

    expr: str
    tz: str = "UTC"
    dialect: DialectName = "standard"
    dst: DstPolicy = "once"
    start: datetime | None = None
    end: datetime | None = None
    seconds: SecondsPlace | None = None
    hash_id: str | None = None

    def __post_init__(self) -> None:
        check_choice("dialect", self.dialect, DIALECTS)
        check_choice("dst", self.dst, get_args(DstPolicy))
        if self.seconds is not None:
            check_choice("seconds", self.seconds, get_args(SecondsPlace))
        if self.hash_id is not None:
            check_text("hash_id", self.hash_id)
        object.__setattr__(self, "tz", zone_name(self.tz))
        for name in ("start", "end"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, utc(name, given))
        # Refuse an invalid expression now, not when it is due.
        _ = self._fields

    def zone(self, fire: datetime) -> str:
        return "" if self.tz == "UTC" else self.tz

    def explain(self) -> str:
        text = in_words(self._fields, self._zone, self.dst)
        if self.start is not None:
            text += f"; from {self.start:%Y-%m-%d %H:%M:%S} UTC on"
        if self.end is not None:
            text += f"; until {self.end:%Y-%m-%d %H:%M:%S} UTC"
        return text

    @cached_property
    def _fields(self) -> CronFields:
        return parse(self.expr, DIALECTS[self.dialect], seconds=self.seconds, hash_id=self.hash_id)

    @cached_property
    def _zone(self) -> ZoneInfo:
        return zone_of(self.tz)

    @cached_property
    def _wall_clock(self) -> WallClock:
        return WallClock(self._fields)

    @cached_property
    def _clock(self) -> Clock:
        return Clock(self._zone, self.dst, elapsed=self._fields.elapsed)

    def _next(self, after: datetime) -> datetime | None:
        if self.start is not None:
            after = max(after, self.start - INSTANT)
        try:
            fire = self._clock.next(after, self._wall_clock.next)
        except OverflowError:  # the end of the calendar
            return None
        if fire is None or (self.end is not None and fire > self.end):
            return None
        return fire.astimezone(self._zone)


def cron(
    expr: str,
    tz: str | tzinfo = "UTC",
    *,
    dialect: DialectName = "standard",
    dst: DstPolicy = "once",
    start: datetime | None = None,
    end: datetime | None = None,
    jitter: Duration = 0,
    seconds: SecondsPlace | None = None,
    hash_id: str | None = None,
) -> Cron:
    """A trigger that fires at the wall-clock times that a cron expression describes.

    Five fields: minute, hour, day of month, month, day of week. Each is `*`, a number, a range
    `1-5`, a list `1,15`, or has a step `*/10`; months and weekdays have names (`jan`, `mon-fri`).
    Also `L` (last day), `LW` (last weekday, Monday to Friday), `15W` (the weekday nearest to the
    15th), `5#2` (second Friday), `5L` (last Friday), and `@hourly`, `@daily`, `@weekly`,
    `@monthly`, `@yearly`.

    Args:
        expr: The expression.
        tz: The IANA name of the time zone.
        dialect: The rules to follow. `standard` is Debian's cron. It counts weekdays from Sunday, 0
            or 7. If day of month and day of week are both limited, either is enough, but both must
            match if one of the fields begins with `*`. `celery`, `apscheduler3` and `croniter`
            read expressions written for those libraries.
        dst: What happens to fixed times when daylight saving time begins or ends. `once`: a skipped
            time fires once, at the first instant after the gap; a repeated time fires the first
            time only. `skip`: like `once`, but a skipped time does not fire. `shift`: like `once`,
            but a skipped time fires later by the length of the gap. `both`: like `once`, but a
            repeated time fires both times. Expressions whose minute or hour begins with `*` follow
            elapsed time: they fire at every time that the clock shows.
        start: The first instant at which it may fire; None: no limit.
        end: The last instant at which it may fire; None: no limit.
        jitter: The maximum random delay of a fire, in seconds or as a timedelta.
        seconds: The place of the seconds in an expression of six fields: `first` or `last`. A
            seventh field is the year.
        hash_id: The name from which `H` derives its value; the same name gives the same value.

    Raises:
        ConfigError: The expression, the zone or another argument is invalid; the message names it
            and what to use instead.

    >>> from datetime import UTC, datetime
    >>> trigger = cron("30 2 * * *", tz="Europe/Berlin")
    >>> str(trigger.next(datetime(2027, 3, 27, 12, tzinfo=UTC)))
    '2027-03-28 03:00:00+02:00'
    >>> cron("0 8 * * mon-fri", tz="Asia/Shanghai").explain()
    'at 08:00 on Monday to Friday, Asia/Shanghai time'
    """
    return Cron(
        expr,
        zone_name(tz),
        dialect,
        dst,
        start,
        end,
        seconds,
        hash_id,
        jitter=durations.seconds("jitter", jitter),
    )
