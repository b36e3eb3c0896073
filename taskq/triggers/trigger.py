"""The base class of triggers."""

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
    """`value` in UTC, where datetimes compare by instant.

    Datetimes of one zone compare by wall clock, which goes backwards in autumn, so this package
    only compares datetimes after converting them here. Raises `ConfigError` for a naive one.
    """
    instant_ms(what, value)
    try:
        return base_datetime(value).astimezone(UTC)
    except OverflowError:
        raise ConfigError(f"{what}={value!r} is outside the calendar; use a nearer date") from None


@dataclass(frozen=True, kw_only=True)
class Trigger(ABC):
    """A rule that computes fire times: pure, frozen, equal by content.

    `jitter` is the maximum number of seconds by which the scheduler may delay a fire. Fire times
    never include it, so they do not drift.
    """

    jitter: float = 0.0

    def next(self, after: datetime) -> datetime | None:
        """The first fire time strictly after `after`, or None if there are no more.

        Args:
            after: An aware datetime.

        Raises:
            ConfigError: `after` is naive, or the search (`all_of`) reached its limit.

        >>> from datetime import UTC, datetime
        >>> from taskq import every
        >>> hourly = every(hours=1, anchor=datetime(2026, 1, 1, tzinfo=UTC))
        >>> str(hourly.next(datetime(2026, 1, 1, 8, 30, tzinfo=UTC)))
        '2026-01-01 09:00:00+00:00'
        """
        start = utc("after", after)
        return self.anchored(start)._next(start)

    def fires(self, after: datetime, n: int) -> list[datetime]:
        """The next `n` fire times strictly after `after`; fewer if the trigger ends first.

        Raises:
            ConfigError: `after` is naive, or `n` is negative.

        >>> from datetime import UTC, datetime
        >>> from taskq import every
        >>> len(every(hours=1).fires(datetime(2026, 1, 1, tzinfo=UTC), 3))
        3
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"n={n!r}: use the number of fire times to compute, 0 or more")
        start = utc("after", after)
        rule, found = self.anchored(start), list[datetime]()
        while len(found) < n:
            fire = rule.next(found[-1] if found else start)
            if fire is None:
                break
            found.append(fire)
        return found

    def begin(self, now: datetime) -> datetime | None:
        """The first fire time of a schedule added at `now`, or None if it has none.

        Unlike `next`, it includes `now` itself and an `at` in the past, which is late but not over.
        """
        start = utc("now", now)
        return self.anchored(start)._begin(start)

    def anchored(self, now: datetime) -> Trigger:
        """This trigger with its phase counted from `now`, unless it has a start of its own.

        A schedule stores the anchored form, so that restarts do not change its phase. A trigger
        that needs no anchor returns itself.
        """
        utc("now", now)
        return self

    def zone(self, fire: datetime) -> str:
        """The zone that determines `fire`: an IANA name or an offset; empty for UTC."""
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
