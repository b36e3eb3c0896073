"""`every`: fires at a fixed interval of elapsed time."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from taskq.core import durations
from taskq.core.durations import Duration, zone_text
from taskq.core.errors import ConfigError
from taskq.triggers.trigger import Trigger, utc

__all__ = ["Every", "every"]

_SHORTEST = timedelta(milliseconds=100)
_UNITS = (
    ("week", timedelta(weeks=1)),
    ("day", timedelta(days=1)),
    ("hour", timedelta(hours=1)),
    ("minute", timedelta(minutes=1)),
)


@dataclass(frozen=True)
class Every(Trigger):
    """Fires at `anchor + n * period` for whole n; see `every`."""

    period: timedelta
    anchor: datetime | None = None
    immediate: bool = False
    end: datetime | None = None
    # The zone of the given anchor; the same instant in another zone is the same trigger.
    tz: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.period < _SHORTEST:
            raise ConfigError(
                f"every() of {self.period.total_seconds():g} seconds; use a period of at least "
                f"{_SHORTEST.total_seconds():g} seconds: every(minutes=5)"
            )
        if self.anchor is not None and not self.tz:
            object.__setattr__(self, "tz", zone_text(self.anchor))
        for name in ("anchor", "end"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, utc(name, given))

    def anchored(self, now: datetime) -> Every:
        start = utc("now", now)
        return self if self.anchor is not None else replace(self, anchor=start)

    def zone(self, fire: datetime) -> str:
        return self.tz

    def explain(self) -> str:
        text = f"every {in_words(self.period)} of elapsed time"
        if self.anchor is None:
            text += ", counted from when the schedule is added"
        else:
            text += f", counted from {self.anchor:%Y-%m-%d %H:%M:%S} UTC"
        if self.immediate:
            text += ", first at that time itself"
        if self.end is not None:
            text += f", until {self.end:%Y-%m-%d %H:%M:%S} UTC"
        return text + "; daylight saving time does not affect it"

    def _next(self, after: datetime) -> datetime | None:
        anchor = after if self.anchor is None else self.anchor
        number = max((after - anchor) // self.period + 1, 0 if self.immediate else 1)
        try:
            fire = anchor + number * self.period
        except OverflowError:
            return None
        return fire if self.end is None or fire <= self.end else None


def every(
    *,
    weeks: float = 0,
    days: float = 0,
    hours: float = 0,
    minutes: float = 0,
    seconds: float = 0,
    anchor: datetime | None = None,
    immediate: bool = False,
    end: datetime | None = None,
    jitter: Duration = 0,
) -> Every:
    """A trigger that fires repeatedly after the same elapsed time.

    The fire times are `anchor` plus whole multiples of the period. Late fires, restarts and
    daylight saving time do not shift them.

    Args:
        weeks: The period is the sum of `weeks`, `days`, `hours`, `minutes` and `seconds`.
        days: A day is 24 hours; for "each day at 8" use `cron` or `calendar`.
        anchor: The start of the first period, an aware datetime; None: the time at which the
            schedule is added, which is stored with the schedule.
        immediate: Also fire at the anchor itself, not just one period after it.
        end: The last instant at which it may fire; None: no end.
        jitter: The maximum random delay of a fire, in seconds or as a timedelta.

    Raises:
        ConfigError: The period is not a number or under 0.1 seconds, an instant is naive, or the
            jitter is negative.

    >>> every(hours=1, minutes=30).explain().partition(",")[0]
    'every 1 hour and 30 minutes of elapsed time'
    """
    given: dict[str, Any] = {
        "weeks": weeks, "days": days, "hours": hours, "minutes": minutes, "seconds": seconds
    }  # fmt: skip
    numbers = {name: _number(name, value) for name, value in given.items()}
    try:
        period = timedelta(**numbers)
    except (OverflowError, ValueError) as error:
        raise ConfigError(f"the period of every() is too long: {error}") from None
    return Every(period, anchor, immediate, end, jitter=durations.seconds("jitter", jitter))


def _number(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    text = str(value).strip() if isinstance(value, str) else ""
    meant = text if re.fullmatch(r"\d+(\.\d+)?", text) else "5"
    raise ConfigError(f"every({name}={value!r}) is not a number; use every({name}={meant})")


def in_words(period: timedelta) -> str:
    """`1 hour and 30 minutes`."""
    parts = list[str]()
    for name, unit in _UNITS:
        number, period = divmod(period, unit)
        if number:
            parts.append(f"{number} {name}{'s' if number > 1 else ''}")
    rest = period.total_seconds()
    if rest or not parts:
        parts.append(f"{rest:g} second{'' if rest == 1 else 's'}")
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
