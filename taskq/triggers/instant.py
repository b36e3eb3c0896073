"""`at`: one fire, at an instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from taskq.core.durations import zone_text
from taskq.triggers.trigger import Trigger, utc

__all__ = ["At", "at"]


@dataclass(frozen=True)
class At(Trigger):
    """Fires once, at `instant`; see `at`."""

    instant: datetime
    # Of the instant as it was given; the same instant in another zone is the same trigger.
    tz: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        given = self.instant
        object.__setattr__(self, "instant", utc("at", given))
        object.__setattr__(self, "tz", self.tz or zone_text(given))

    def zone(self, fire: datetime) -> str:
        return self.tz

    def explain(self) -> str:
        return f"once, on {self.instant:%A %Y-%m-%d at %H:%M:%S} UTC"

    def _next(self, after: datetime) -> datetime | None:
        return self.instant if self.instant > after else None

    def _begin(self, now: datetime) -> datetime | None:
        return self.instant


def at(instant: datetime) -> At:
    """A trigger that fires once.

    Args:
        instant: An aware datetime. One in the past fires at once when its schedule is added, unless
            the schedule says how late is too late.

    Raises:
        ConfigError: `instant` is naive.

    >>> from datetime import UTC, datetime
    >>> at(datetime(2026, 12, 24, 17, tzinfo=UTC)).explain()
    'once, on Thursday 2026-12-24 at 17:00:00 UTC'
    """
    return At(instant)
