"""The base of every trigger: a pure rule that gives fire times."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from taskq.core.durations import base_datetime, instant_ms
from taskq.core.errors import ConfigError

__all__ = ["INSTANT", "Trigger", "utc"]

INSTANT = timedelta(microseconds=1)
"""The smallest step between two instants."""


def utc(what: str, value: datetime) -> datetime:
    """`value` in UTC, where instants compare as they follow each other.

    Datetimes of one zone compare by their wall clocks, which go backwards in autumn; so nothing in
    this package compares two of them before it has come through here. Raises `ConfigError` for a
    naive one.
    """
    instant_ms(what, value)
    try:
        return base_datetime(value).astimezone(UTC)
    except OverflowError:
        raise ConfigError(f"{what}={value!r} is beyond the calendar; type a nearer date") from None


@dataclass(frozen=True, kw_only=True)
class Trigger(ABC):
    """A rule that gives fire times: pure, frozen, equal by content.

    `jitter` is the most seconds that whoever schedules may add to a fire time; fire times
    themselves never contain it, so nothing drifts.
    """

    jitter: float = 0.0

    def next(self, after: datetime) -> datetime | None:
        """The first fire time strictly after `after`, or None when there is none any more.

        Args:
            after: An aware datetime.

        Raises:
            ConfigError: `after` is naive, or the search (`all_of`) had to be given up.

        >>> from datetime import UTC, datetime
        >>> from taskq import every
        >>> hourly = every(hours=1, anchor=datetime(2026, 1, 1, tzinfo=UTC))
        >>> str(hourly.next(datetime(2026, 1, 1, 8, 30, tzinfo=UTC)))
        '2026-01-01 09:00:00+00:00'
        """
        start = utc("after", after)
        return self.anchored(start)._next(start)

    def fires(self, after: datetime, n: int) -> list[datetime]:
        """The next `n` fire times strictly after `after`; fewer when the trigger ends before.

        Raises:
            ConfigError: `after` is naive, or `n` is negative.

        >>> from datetime import UTC, datetime
        >>> from taskq import every
        >>> len(every(hours=1).fires(datetime(2026, 1, 1, tzinfo=UTC), 3))
        3
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"n={n!r}: type how many fire times to compute, 0 or more")
        start = utc("after", after)
        rule, found = self.anchored(start), list[datetime]()
        while len(found) < n:
            fire = rule.next(found[-1] if found else start)
            if fire is None:
                break
            found.append(fire)
        return found

    def begin(self, now: datetime) -> datetime | None:
        """The fire time that a schedule added at `now` begins with, or None when it has none.

        Other than `next` it counts `now` itself, and an `at` that has passed: that one is late, not
        exhausted.
        """
        start = utc("now", now)
        return self.anchored(start)._begin(start)

    def anchored(self, now: datetime) -> Trigger:
        """This trigger with its phase counted from `now`, where it does not say itself from when.

        A schedule keeps the anchored form, so that restarts leave its phase alone. A trigger that
        says everything itself gives itself.
        """
        utc("now", now)
        return self

    def zone(self, fire: datetime) -> str:
        """Whose clock tells the time of `fire`: an IANA name or an offset; empty for UTC."""
        del fire
        return ""

    @abstractmethod
    def explain(self) -> str:
        """What the trigger does, in plain words."""

    @abstractmethod
    def _next(self, after: datetime) -> datetime | None:
        """`next`, for an instant in UTC."""

    def _begin(self, now: datetime) -> datetime | None:
        return self._next(now - INSTANT)
