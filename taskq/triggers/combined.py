"""`any_of` and `all_of`, which combine triggers, and `at`, which fires once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from operator import is_
from typing import Any

from taskq.core.durations import zone_text
from taskq.core.errors import ConfigError
from taskq.triggers.trigger import INSTANT, Trigger, utc

__all__ = ["AllOf", "AnyOf", "At", "all_of", "any_of", "at"]


@dataclass(frozen=True)
class At(Trigger):
    """Fires once, at `instant`; see `at`."""

    instant: datetime
    # The zone of the given instant; the same instant in another zone is the same trigger.
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
        instant: An aware datetime. If it is in the past, it fires at once when its schedule is
            added, unless the schedule limits how late a fire may be.

    Raises:
        ConfigError: `instant` is naive.

    >>> from datetime import UTC, datetime
    >>> at(datetime(2026, 12, 24, 17, tzinfo=UTC)).explain()
    'once, on Thursday 2026-12-24 at 17:00:00 UTC'
    """
    return At(instant)


_DEEPEST = 8
_MOST_PARTS = 32
_MOST_STEPS = 10_000
_MILLISECOND = timedelta(milliseconds=1)
"""Stored fire times are rounded, by less than this."""
_FARTHEST = timedelta(days=3653)


@dataclass(frozen=True)
class _Combined(Trigger):
    parts: tuple[Trigger, ...]

    def __post_init__(self) -> None:
        given: tuple[Any, ...] = self.parts
        for part in given:
            if not isinstance(part, Trigger):
                raise ConfigError(
                    f"{part!r} is not a trigger; combine triggers: any_of(cron('0 8 * * *'), "
                    "every(hours=5))"
                )
        if not 1 <= len(given) <= _MOST_PARTS or depth(self) > _DEEPEST:
            raise ConfigError(
                f"{len(given)} triggers, {depth(self)} levels deep: combine 1 to {_MOST_PARTS} "
                f"triggers, up to {_DEEPEST} levels deep"
            )
        # A combined fire may be as late as any of its parts.
        object.__setattr__(self, "jitter", max(part.jitter for part in self.parts))

    def zone(self, fire: datetime) -> str:
        """The zone of the first part that has one."""
        return next(filter(None, (part.zone(fire) for part in self.parts)), "")

    def anchored(self, now: datetime) -> Trigger:
        parts = tuple(part.anchored(now) for part in self.parts)
        return self if all(map(is_, parts, self.parts)) else replace(self, parts=parts)


@dataclass(frozen=True)
class AnyOf(_Combined):
    """Fires whenever one of `parts` does; see `any_of`."""

    def explain(self) -> str:
        return "whenever one of these fires: " + "; ".join(
            f"({number}) {part.explain()}" for number, part in enumerate(self.parts, 1)
        )

    def zone(self, fire: datetime) -> str:
        """The zone of the part that fires then."""
        for part in self.parts:
            following = part.next(fire - _MILLISECOND)
            if following is not None and following <= fire:
                return part.zone(fire)
        return super().zone(fire)

    def _next(self, after: datetime) -> datetime | None:
        return _earliest([part.next(after) for part in self.parts])

    def _begin(self, now: datetime) -> datetime | None:
        return _earliest([part.begin(now) for part in self.parts])


@dataclass(frozen=True)
class AllOf(_Combined):
    """Fires when all `parts` fire at the same instant; see `all_of`."""

    def explain(self) -> str:
        return "only when all of these fire at the same instant: " + "; ".join(
            f"({number}) {part.explain()}" for number, part in enumerate(self.parts, 1)
        )

    def _next(self, after: datetime) -> datetime | None:
        horizon = after + _FARTHEST
        agreed = 0
        meeting = after + INSTANT
        # Each part in turn moves the meeting to its own next fire, until a whole round leaves it
        # unchanged.
        for step in range(_MOST_STEPS):
            part = self.parts[step % len(self.parts)]
            fire = part.next(meeting - INSTANT)
            if fire is None:
                return None
            agreed, meeting = (agreed + 1 if utc("fire", fire) == meeting else 1), utc("fire", fire)
            if meeting > horizon:
                break
            if agreed == len(self.parts):
                return fire
        raise ConfigError(
            f"the triggers of all_of do not fire together from {after:%Y-%m-%d %H:%M} UTC on: "
            f"the search stopped at {min(meeting, horizon):%Y-%m-%d %H:%M}; use a single cron "
            "expression, or give every() an anchor that coincides with the others"
        )


def any_of(*triggers: Trigger) -> AnyOf:
    """A trigger that fires whenever one of `triggers` does, and once if several do.

    Raises:
        ConfigError: There are no triggers, or one argument is not a trigger.

    >>> from taskq import every
    >>> any_of(every(hours=2), every(hours=3)).explain().count("elapsed")
    2
    """
    return AnyOf(triggers)


def all_of(*triggers: Trigger) -> AllOf:
    """A trigger that fires when all `triggers` fire at the same instant.

    The search for such an instant is limited to ten years and 10,000 steps, after which `next`
    raises `ConfigError`.

    Raises:
        ConfigError: There are no triggers, or one argument is not a trigger.

    >>> from taskq import every
    >>> all_of(every(hours=2), every(hours=3)).explain().count("elapsed")
    2
    """
    return AllOf(triggers)


def depth(trigger: Trigger) -> int:
    """The number of nested combinations, 0 for a plain trigger."""
    if not isinstance(trigger, _Combined):
        return 0
    return 1 + max((depth(part) for part in trigger.parts), default=0)


def _earliest(fires: list[datetime | None]) -> datetime | None:
    # By instant: datetimes of one zone would compare by wall clock.
    return min((fire for fire in fires if fire), key=lambda fire: utc("fire", fire), default=None)
