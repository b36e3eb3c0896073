"""The installed libraries, asked for fire times: what taskq is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger
from celery import Celery
from celery.schedules import crontab
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim

__all__ = [
    "ORACLES",
    "Endless",
    "Oracle",
    "of_apscheduler",
    "of_celery",
    "of_croniter",
    "of_cronsim",
]

Oracle = Callable[[str, str, datetime, datetime, int], list[datetime]]
"""So many fires of an expression in a zone, after one instant and before another; in UTC."""

_INSTANT = timedelta(microseconds=1)


def _until(fires: Iterator[datetime], end: datetime, most: int) -> list[datetime]:
    found: list[datetime] = []
    for fire in fires:
        instant = fire.astimezone(UTC)
        if instant >= end or len(found) == most:
            break
        found.append(instant)
    return found


def of_croniter(expr: str, zone: str, start: datetime, end: datetime, most: int) -> list[datetime]:
    local = start.astimezone(ZoneInfo(zone))

    def fires() -> Iterator[datetime]:
        cron = croniter(expr, local, ret_type=datetime)
        while True:
            try:
                yield cron.get_next()
            except CroniterBadDateError:
                return

    return _until(fires(), end, most)


class Endless(Exception):
    """A library searches for the next fire and never finds one."""


class _BoundedCronSim(CronSim):
    """cronsim, which never ends where clocks go back across midnight (America/St_Johns, 2010)."""

    _ticks = 0

    def tick(self, seconds: int = 1) -> None:
        self._ticks += 1
        if self._ticks > 100_000:
            raise Endless
        super().tick(seconds)


def of_cronsim(expr: str, zone: str, start: datetime, end: datetime, most: int) -> list[datetime]:
    return _until(_BoundedCronSim(expr, start.astimezone(ZoneInfo(zone))), end, most)


def of_apscheduler(
    expr: str, zone: str, start: datetime, end: datetime, most: int
) -> list[datetime]:
    def fires() -> Iterator[datetime]:
        trigger = CronTrigger.from_crontab(expr, timezone=ZoneInfo(zone))
        # Without the end it would search until the year 9999.
        trigger.end_date = end.astimezone(ZoneInfo(zone)) + timedelta(days=800)
        fire = trigger.get_next_fire_time(None, start + _INSTANT)
        while fire is not None:
            yield fire
            fire = trigger.get_next_fire_time(fire, fire)

    return _until(fires(), end, most)


def of_celery(expr: str, zone: str, start: datetime, end: datetime, most: int) -> list[datetime]:
    minute, hour, day, month, weekday = expr.split()
    app = Celery(set_as_current=False)
    app.conf.timezone = zone
    last = start
    schedule = crontab(minute, hour, weekday, day, month, app=app, nowfun=lambda: last)

    def fires() -> Iterator[datetime]:
        nonlocal last
        while True:
            # Beat looks again whenever something is due, so `now` is the last run.
            last += schedule.remaining_estimate(last)
            yield last

    return _until(fires(), end, most)


ORACLES: dict[str, Oracle] = {
    "croniter": of_croniter,
    "cronsim": of_cronsim,
    "apscheduler3": of_apscheduler,
    "celery": of_celery,
}
