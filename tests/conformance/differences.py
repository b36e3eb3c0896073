"""Where taskq and another library do not agree on a fire time: each difference has a name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from tests.conformance.expressions import Expression

__all__ = ["DIFFERENCES", "Difference", "difference_of"]

_HOUR = timedelta(hours=1)
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Difference:
    """One thing that `library` does otherwise than taskq, the reason, and where it can be seen.

    `gap` and `elapsed` say with which changes of clocks and expressions it shows (None: without a
    change). `example` is an expression, a zone and an instant to start from.
    """

    library: str
    name: str
    theirs: str
    reason: str
    example: tuple[str, str, str]
    gap: bool | None = None
    elapsed: bool = False


DIFFERENCES = (
    Difference(
        "croniter",
        "all values are a star",
        "treats a day field that lists all its values as `*` when the other one has a star",
        "taskq reads the text: only `*` is a star",
        ("0 0 */2 * */1", "UTC", "2026-11-01T12:00+00:00"),
    ),
    Difference(
        "croniter",
        "fires at the end of a gap",
        "an expression with a star fires at the end of a gap, a time it does not name",
        "a star follows elapsed time, so there is nothing to make up for",
        ("* 0 * * *", "Africa/Cairo", "2026-04-23T20:00+00:00"),
        gap=True,
        elapsed=True,
    ),
    Difference(
        "croniter",
        "fixed times twice",
        "a fixed time in the overlap fires twice",
        "a daily job runs once a day; `dst='both'` asks for two runs",
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T22:00+00:00"),
        gap=False,
    ),
    Difference(
        "croniter",
        "second pass with holes",
        "misses fires of the second pass when clocks do not go back by an hour",
        "a star follows elapsed time, so it goes on",
        ("*/21 0-2 * * *", "Australia/Lord_Howe", "2027-04-03T11:00+00:00"),
        gap=False,
        elapsed=True,
    ),
    Difference(
        "croniter",
        "only a plain star is a star",
        "treats `*/n` in a list of hours as fixed hours, or a range of all hours as a star",
        "taskq reads the text as Debian's cron does: a field is a star if it begins with `*`",
        ("52 0-23 * * *", "Pacific/Chatham", "2026-09-26T10:00+00:00"),
        gap=True,
    ),
    Difference(
        "cronsim",
        "steps of whole hours, gap",
        "misses or adds fires after a gap that begins or ends within an hour or at midnight",
        "a star follows elapsed time: it fires at each minute shown that matches",
        ("51 * * * *", "Australia/Lord_Howe", "2026-10-03T12:00+00:00"),
        gap=True,
        elapsed=True,
    ),
    Difference(
        "cronsim",
        "steps of whole hours, overlap",
        "repeats one instant for ever, or misses fires, when clocks go back within an hour",
        "a star follows elapsed time: it fires at each minute shown that matches",
        ("*/47 0 * * *", "America/St_Johns", "2010-11-06T23:00+00:00"),
        gap=False,
        elapsed=True,
    ),
    Difference(
        "apscheduler3",
        "fixed times in a gap move",
        "a time in the gap fires later by the length of the gap, or not at all",
        "the job is due: it fires at the first instant after the gap, or later with `dst='shift'`",
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T22:00+00:00"),
        gap=True,
    ),
    Difference(
        "apscheduler3",
        "fixed times twice",
        "a fixed time in the overlap fires twice",
        "a daily job runs once a day; `dst='both'` asks for two runs",
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T22:00+00:00"),
        gap=False,
    ),
    Difference(
        "apscheduler3",
        "imaginary times",
        "computes with times in the gap: fires at times that do not match, or twice at one instant",
        "a star follows elapsed time: it fires at each minute shown that matches",
        ("* */2 * * *", "Europe/Berlin", "2027-03-27T22:00+00:00"),
        gap=True,
        elapsed=True,
    ),
    Difference(
        "apscheduler3",
        "second pass with holes",
        "misses or adds fires of the second pass when the change is not at a full hour",
        "a star follows elapsed time, so it goes on",
        ("* */9,2 * * *", "Pacific/Chatham", "2026-04-04T10:00+00:00"),
        gap=False,
        elapsed=True,
    ),
    Difference(
        "celery",
        "fixed times in a gap move",
        "a time in the gap fires later by the length of the gap",
        "the job is due: it fires at the first instant after the gap, or later with `dst='shift'`",
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T22:00+00:00"),
        gap=True,
    ),
    Difference(
        "celery",
        "stars move too",
        "after a gap it fires at times that do not match, and misses others",
        "a star follows elapsed time: it fires at each minute shown that matches",
        ("5,32 * * * *", "Australia/Lord_Howe", "2026-10-03T11:00+00:00"),
        gap=True,
        elapsed=True,
    ),
    Difference(
        "celery",
        "silence in the second pass",
        "`*/15` is silent for an hour and a quarter in the overlap",
        "a star follows elapsed time, so it goes on",
        ("*/15 * * * *", "Europe/Berlin", "2026-10-24T22:00+00:00"),
        gap=False,
        elapsed=True,
    ),
)

#: Those that show anywhere near the change of clocks, not only in what was skipped or repeated.
_ANYWHERE = {
    "steps of whole hours, gap",
    "steps of whole hours, overlap",
    "only a plain star is a star",
    "imaginary times",
}


def difference_of(
    library: str,
    expression: Expression,
    change: tuple[str, datetime] | None,
    instants: set[datetime],
) -> Difference | None:
    """The difference that explains why exactly one of both fires at `instants`; None: none does."""
    if change is None:
        full = (
            expression.day.values >= set(range(1, 32)),
            expression.weekday.values >= set(range(7)),
        )
        stars = expression.day.text == "*", expression.weekday.text == "*"
        quirk = any(all_ and not star for all_, star in zip(full, stars, strict=True))
        return DIFFERENCES[0] if library == "croniter" and quirk else None
    zone, instant = change
    shift = _offset(instant, zone) - _offset(instant - _MINUTE, zone)
    inside = all(instant <= each <= instant + abs(shift) for each in instants)
    for difference in DIFFERENCES:
        if (difference.library, difference.gap) != (library, shift > timedelta(0)):
            continue
        if difference.elapsed == expression.elapsed and (inside or difference.name in _ANYWHERE):
            return difference
    return None


def _offset(instant: datetime, zone: str) -> timedelta:
    return instant.astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0)
