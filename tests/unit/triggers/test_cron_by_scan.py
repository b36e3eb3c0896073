"""`cron` against a scan of the calendar, minute by minute, which knows nothing of croniter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from taskq import cron
from tests.conformance.clocks import EXAMPLES, TRANSITIONS
from tests.conformance.expressions import MONTHS, WEEKDAYS, Expression, expressions, part

MINUTE = timedelta(minutes=1)
BEFORE = timedelta(hours=4)
HOURS = 11

STANDARD = expressions(
    part(0, 59, wraps=True),
    part(0, 23, wraps=True),
    part(1, 31, wraps=True),
    part(1, 12, names=MONTHS, wraps=True),
    part(0, 7, modulo=7) | part(0, 6, names=WEEKDAYS, open_steps=False, modulo=7),
)


@cache
def minutes_around(zone: str, transition: datetime) -> list[tuple[datetime, datetime]]:
    """Each minute around `transition`: in UTC, and what the clock of `zone` shows."""
    place = ZoneInfo(zone)
    instants = (transition - BEFORE + number * MINUTE for number in range(HOURS * 60))
    return [(each, each.astimezone(place).replace(tzinfo=None, fold=0)) for each in instants]


def scanned(expression: Expression, zone: str, transition: datetime) -> list[datetime]:
    """The fires around `transition`, by looking at each minute."""
    minutes = minutes_around(zone, transition)

    def fits(wall: datetime) -> bool:
        return expression.fits_time(wall) and expression.fits_as_debian(wall)

    if expression.elapsed:
        return [instant for instant, wall in minutes if fits(wall)]
    # Fixed times: each reading that a day has, also those that this clock does not show.
    shown: dict[datetime, datetime] = {}
    for instant, wall in minutes:
        shown.setdefault(wall, instant)
    found: set[datetime] = set()
    reading, last = minutes[0][1], minutes[-1][1]
    while reading <= last:
        if fits(reading):
            later = (instant for instant, wall in minutes if wall > reading)
            found.add(shown.get(reading) or next(later))
        reading += MINUTE
    return sorted(found)


@settings(max_examples=200 * EXAMPLES, deadline=None)
@given(expression=STANDARD, where=st.sampled_from(TRANSITIONS))
def test_fires_around_a_change_of_clocks_are_those_of_the_scan(expression, where):
    zone, transition = where
    start, end = minutes_around(zone, transition)[0][0], minutes_around(zone, transition)[-1][0]

    trigger = cron(expression.text, tz=zone, end=end)
    wanted = scanned(expression, zone, transition)

    fires = [fire.astimezone(UTC) for fire in trigger.fires(start - MINUTE, len(wanted) + 1)]
    assert fires == wanted
