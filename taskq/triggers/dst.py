"""Daylight saving time: map wall-clock times to instants, through gaps and overlaps.

A clock that goes forward leaves a *gap*: wall-clock times that never occur. One that goes backward
repeats times, an *overlap*: they occur twice, in two *passes*.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from taskq.core.errors import ConfigError

__all__ = [
    "Change",
    "Clock",
    "DstPolicy",
    "NextMatch",
    "change_between",
    "changes",
    "wall_of",
    "zone_name",
    "zone_of",
]

# Names that are no zones, or mean another zone on another machine.
_NOT_ZONES = re.compile(r"(localtime|posixrules|factory|tzdata|posix/.*|right/.*)$", re.IGNORECASE)
_OFFSET = re.compile(r"(utc|gmt)?\s*[+-]\d{1,2}(:?\d\d)?$", re.IGNORECASE)


def zone_of(tz: str) -> ZoneInfo:
    """The zone with this IANA name.

    Raises `ConfigError` with the nearest name if it does not exist.
    """
    if _OFFSET.match(tz):
        raise ConfigError(
            f"tz={tz!r} is an offset, which has no daylight saving time; use the name of a place: "
            "tz='Europe/Berlin'"
        )
    if not _NOT_ZONES.match(tz):
        try:
            return ZoneInfo(tz)
        except (OSError, ValueError, LookupError):  # an unknown name, a directory, an invalid path
            pass
    known = sorted(available_timezones())
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(tz.casefold(), folded, n=1, cutoff=0.6) or [
        name for name in folded if name.endswith("/" + tz.casefold().replace(" ", "_"))
    ]
    raise ConfigError(
        f"there is no time zone {tz!r}; "
        + (f"did you mean {folded[near[0]]!r}?" if near else "use an IANA name: 'Europe/Berlin'")
    )


def zone_name(tz: str | tzinfo) -> str:
    """The IANA name of what a user passes as `tz`.

    Raises `ConfigError` if there is none, as for a fixed offset.
    """
    given: Any = tz
    if isinstance(given, ZoneInfo) and given.key:
        return zone_of(given.key).key
    if given is UTC:
        return "UTC"
    if not isinstance(given, str):
        raise ConfigError(f"tz={given!r} has no IANA name; use one: tz='Europe/Berlin'")
    return zone_of(given).key


DstPolicy = Literal["once", "skip", "shift", "both"]
"""What happens to skipped and repeated times: see `cron`."""

NextMatch = Callable[[datetime], datetime | None]
"""Returns the first matching wall-clock time after a given one."""

_SECOND = timedelta(seconds=1)
# No clock has ever been changed by more than a day.
_LARGEST_CHANGE = timedelta(hours=25)
# Each round ends the search or passes one change of the clock.
_MOST_ROUNDS = 1000


class Change(NamedTuple):
    """A change of the clock: its instant, and the wall-clock times just before and after it."""

    instant: datetime
    old: datetime
    new: datetime


class Clock:
    """The clock of `zone`; `policy` says what happens to times in gaps and overlaps.

    With `elapsed`, times count as the clock shows them, whatever `policy` says: times in a gap
    never occur, times in an overlap occur twice.
    """

    def __init__(self, zone: ZoneInfo, policy: DstPolicy, *, elapsed: bool) -> None:
        self._zone = zone
        self._gap: Literal["end", "shift", "drop"] = "end"
        if elapsed or policy == "skip":
            self._gap = "drop"
        elif policy == "shift":
            self._gap = "shift"
        self._twice = elapsed or policy == "both"

    def next(self, after: datetime, next_match: NextMatch) -> datetime | None:
        """The first instant after `after` at which this clock shows a match; both in UTC."""
        wall = wall_of(after, self._zone)
        start, found = wall, list[datetime]()
        repeated = self._overlap(wall)
        if repeated is not None:
            if self._twice:
                found += self._second_pass(after, wall, repeated, next_match)
            if after >= repeated.instant:
                # All times of the first pass are over.
                start = repeated.old - _SECOND
        if self._gap == "shift":
            found += self._pending(after, next_match)
        found += self._first_pass(after, start, next_match)
        return min(found, default=None)

    def _first_pass(self, after: datetime, wall: datetime, next_match: NextMatch) -> list[datetime]:
        found: list[datetime] = []
        for _ in range(_MOST_ROUNDS):
            shown = next_match(wall)
            if shown is None:
                break
            old, new = self._offsets(shown)
            if new <= old:
                found.append(_instant(shown, old))
                break
            change = change_between(self._zone, _instant(shown, new), _instant(shown, old))
            if self._gap == "end":
                found.append(change.instant)
                break
            if self._gap == "shift":
                found.append(_instant(shown, old))
            wall = change.new - _SECOND
        return [instant for instant in found if instant > after]

    def _second_pass(
        self, after: datetime, wall: datetime, change: Change, next_match: NextMatch
    ) -> list[datetime]:
        start = wall if after >= change.instant else change.new - _SECOND
        shown = next_match(start)
        if shown is None or shown >= change.old:
            return []
        return [_instant(shown, self._offsets(shown)[1])]

    def _pending(self, after: datetime, next_match: NextMatch) -> list[datetime]:
        # Times in a gap just passed, which fire later by the length of the gap.
        change = change_between(self._zone, after - _LARGEST_CHANGE, after)
        if change.new <= change.old:
            return []
        before = change.old - change.instant.replace(tzinfo=None)
        shown = next_match(after.replace(tzinfo=None) + before)
        if shown is None or not change.old <= shown < change.new:
            return []
        return [_instant(shown, before)]

    def _overlap(self, wall: datetime) -> Change | None:
        old, new = self._offsets(wall)
        if new >= old:
            return None
        return change_between(self._zone, _instant(wall, old), _instant(wall, new))

    def _offsets(self, wall: datetime) -> tuple[timedelta, timedelta]:
        """The offsets from UTC before and after the change around `wall`; equal without one."""
        shown = wall.replace(tzinfo=self._zone, fold=0)
        old, new = shown.utcoffset(), shown.replace(fold=1).utcoffset()
        return old or timedelta(0), new or timedelta(0)


def wall_of(instant: datetime, zone: ZoneInfo) -> datetime:
    """The wall-clock time in `zone`, naive."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _instant(wall: datetime, offset: timedelta) -> datetime:
    return (wall - offset).replace(tzinfo=UTC)


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def change_between(zone: ZoneInfo, low: datetime, high: datetime) -> Change:
    """The change of the clock after `low` and until `high`; a change by 0 if there is none.

    Both are instants in UTC, with at most one change between them.
    """
    low, high = low.replace(microsecond=0), high.replace(microsecond=0)
    before, after = _offset(low, zone), _offset(high, zone)
    while high - low > _SECOND:
        middle = low + (high - low) // _SECOND // 2 * _SECOND
        if _offset(middle, zone) == after:
            high = middle
        else:
            low = middle
    shown = high.replace(tzinfo=None)
    return Change(high, shown + before, shown + after)


def changes(zone: ZoneInfo) -> Iterator[Change]:
    """The changes of the clock from 2024 to 2040."""
    low = datetime(2024, 1, 1, tzinfo=UTC)
    for _ in range(17 * 53):
        high = low + timedelta(weeks=1)
        if _offset(low, zone) != _offset(high, zone):
            yield change_between(zone, low, high)
        low = high
