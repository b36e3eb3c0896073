"""`cron`: fires at the wall-clock times that an expression describes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cached_property
from typing import get_args
from zoneinfo import ZoneInfo

from taskq.core import durations
from taskq.core.durations import Duration
from taskq.core.text import check_text
from taskq.triggers.choices import one_of
from taskq.triggers.cronfields import CronFields, SecondsPlace, parse
from taskq.triggers.dialects import DIALECTS, DialectName
from taskq.triggers.trigger import INSTANT, Trigger, utc
from taskq.triggers.wallclock import WallClock
from taskq.triggers.walltime import Clock, DstPolicy
from taskq.triggers.words import in_words
from taskq.triggers.zones import zone_name, zone_of

__all__ = ["Cron", "cron"]


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
        one_of("dialect", self.dialect, DIALECTS)
        one_of("dst", self.dst, get_args(DstPolicy))
        if self.seconds is not None:
            one_of("seconds", self.seconds, get_args(SecondsPlace))
        if self.hash_id is not None:
            check_text("hash_id", self.hash_id)
        object.__setattr__(self, "tz", zone_name(self.tz))
        for name in ("start", "end"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, utc(name, given))
        # What cannot be read is refused now, not when it is due.
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
        tz: The IANA name of the zone whose clock is read.
        dialect: Whose rules: `standard` is Debian's cron. It counts weekdays from Sunday, 0 or 7.
            When both days are limited either is enough, but both must match when one of the fields
            begins with `*`. `celery`, `apscheduler3` and `croniter` read what was written for them.
        dst: What fixed times do where clocks change. `once`: a time that is skipped fires once, at
            the first instant after the gap; one that is repeated, at its first pass only. `skip`:
            as `once`, but a skipped time does not fire. `shift`: a skipped time fires as much later
            as the gap is long. `both`: as `once`, but a repeated time fires in both passes.
            Expressions whose minute or hour begins with `*` follow elapsed time: they fire in both
            passes, and never more than that.
        start: The first instant at which it may fire; None: no limit.
        end: The last instant at which it may fire; None: no limit.
        jitter: The most seconds, or a timedelta, by which a fire may be late on purpose.
        seconds: Where an expression of six fields has its seconds: `first` or `last`. A seventh
            field is the year.
        hash_id: The name by which `H` picks its value: the same one for the same name.

    Raises:
        ConfigError: The expression, the zone or another argument cannot be worked with; the message
            names it, and says what to type.

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
