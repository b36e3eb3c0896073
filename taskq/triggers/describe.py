"""Cron expressions in plain words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from taskq.triggers.cron_dialects import FIELDS
from taskq.triggers.cron_fields import LAST, CronFields
from taskq.triggers.dst import DstPolicy, changes

__all__ = ["clock_notes", "in_words", "listed"]

_MOST_TIMES = 6
_PLACES = {LAST: "last", 1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}
_WHOLE_MINUTE = frozenset({0})
_MINUTE = timedelta(minutes=1)
_GAPS: dict[DstPolicy, str] = {
    "once": "a time skipped by daylight saving time fires once, at the first instant after the gap",
    "skip": "a time skipped by daylight saving time does not fire that day",
    "shift": "a time skipped by daylight saving time fires later by the length of the gap",
    "both": "a time skipped by daylight saving time fires once, at the first instant after the gap",
}


def in_words(fields: CronFields, zone: ZoneInfo, policy: DstPolicy) -> str:
    """When `fields` fire in `zone`, in words."""
    when = " ".join(filter(None, (_times(fields), _dates(fields), _months(fields))))
    clock = "UTC" if zone.key == "UTC" else f"{zone.key} time"

    def fires(wall: datetime) -> bool:
        return wall.hour in fields.hours and wall.minute in fields.minutes

    notes = clock_notes(zone, policy, fires, elapsed=fields.elapsed)
    return "; ".join([f"{when}, {clock}", *notes])


def clock_notes(
    zone: ZoneInfo, policy: DstPolicy, fires: Callable[[datetime], bool], *, elapsed: bool = False
) -> list[str]:
    """The effects of daylight saving time on the times of day that `fires` accepts, in words."""
    skipped = repeated = False
    for change in changes(zone):
        low, high = sorted((change.old, change.new))
        minutes = (low + number * _MINUTE for number in range((high - low) // _MINUTE))
        if not (skipped if change.new > change.old else repeated) and any(map(fires, minutes)):
            skipped, repeated = (
                skipped or change.new > change.old,
                repeated or change.new < change.old,
            )
    if elapsed:
        return (
            ["it follows elapsed time through daylight saving time"] if skipped or repeated else []
        )
    again = "fires both times" if policy == "both" else "fires the first time only"
    return [
        *([_GAPS[policy]] if skipped else []),
        *([f"a repeated time {again}"] if repeated else []),
    ]


def listed(words: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, end = words
    return f"{', '.join(most)} {last} {end}" if most else end


def _times(fields: CronFields) -> str:
    times = [
        (hour, minute, second)
        for hour in sorted(fields.hours)
        for minute in sorted(fields.minutes)
        for second in sorted(fields.seconds)
    ]
    if len(times) <= _MOST_TIMES:
        seconds = fields.seconds != _WHOLE_MINUTE
        return "at " + listed(
            f"{hour:02}:{minute:02}" + (f":{second:02}" if seconds else "")
            for hour, minute, second in times
        )
    parts = [] if fields.seconds == _WHOLE_MINUTE else [_within("second", fields.seconds, "minute")]
    if fields.seconds == _WHOLE_MINUTE or len(fields.minutes) < 60:
        parts.append(_within("minute", fields.minutes, "hour"))
    if len(fields.hours) < 24:
        parts.append(_hours(sorted(fields.hours)))
    return ", ".join(parts)


def _within(unit: str, values: frozenset[int], whole: str) -> str:
    if len(values) == 60:
        return f"every {unit}"
    step = 60 // len(values)
    if len(values) > 1 and values == frozenset(range(0, 60, step)) and 60 % step == 0:
        return f"every {step} {unit}s"
    plural = "s" if len(values) > 1 else ""
    return f"at {unit}{plural} {_ranges(values)} of every {whole}"


def _hours(hours: list[int]) -> str:
    if hours[-1] - hours[0] == len(hours) - 1:
        return f"from {hours[0]:02}:00 to {hours[-1]:02}:59"
    return f"in the hours {listed(f'{hour:02}' for hour in hours)}"


def _dates(fields: CronFields) -> str:
    days, weekdays = _days(fields), _weekdays(fields)
    if not days or not weekdays:
        if not fields.both_days:
            return "every day"
        return days or weekdays or ("every day" if len(fields.hours) < 24 else "")
    if fields.both_days:
        return f"{days} when it also is {weekdays.removeprefix('on ')}"
    return f"{days} or {weekdays} (either is enough)"


def _days(fields: CronFields) -> str:
    if len(fields.days) == 31:
        return ""
    parts = list[str]()
    if fields.days:
        parts.append(f"day{'s' if len(fields.days) > 1 else ''} {_ranges(fields.days)}")
    if fields.last_day:
        parts.append("the last day")
    for day in sorted(fields.nearest):
        parts.append("the last weekday" if day == 31 else f"the weekday nearest to day {day}")
    return f"on {listed(parts)} of the month"


def _weekdays(fields: CronFields) -> str:
    if len(fields.weekdays) == 7:
        return ""
    # From Monday, to keep the weekend together.
    numbers = {(day - 1) % 7 for day in fields.weekdays}
    parts = [_ranges(numbers, lambda day: _weekday((day + 1) % 7))] if numbers else []
    parts += [
        f"the {_PLACES[place]} {_weekday(day)} of the month"
        for day, place in sorted(fields.nth, key=lambda pair: (pair[1] or 9, pair[0]))
    ]
    return f"on {listed(parts)}"


def _months(fields: CronFields) -> str:
    parts = list[str]()
    if len(fields.months) < 12:
        names = FIELDS["month"].names
        parts.append(f"in {_ranges(fields.months, lambda month: names[month - 1].capitalize())}")
    if fields.years and len(fields.years) < 130:
        parts.append(f"in {_ranges(fields.years)}")
    return " ".join(parts)


def _weekday(day: int) -> str:
    return FIELDS["day of week"].names[day].capitalize()


def _ranges(values: Iterable[int], name: Callable[[int], str] = str) -> str:
    """`1 to 5 and 7`."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    words = list[str]()
    for run in runs:
        if len(run) > 2:
            words.append(f"{name(run[0])} to {name(run[-1])}")
        else:
            words += map(name, run)
    return listed(words)
