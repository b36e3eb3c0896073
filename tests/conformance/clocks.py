"""Zones that change their clocks in odd ways, and when they did or will."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

__all__ = ["EXAMPLES", "TRANSITIONS", "transitions"]

#: How many examples a conformance test tries, as a factor: `make soak` tries more.
EXAMPLES = int(os.environ.get("TASKQ_CONFORMANCE", "1"))

_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)

_YEARS = {
    "Africa/Cairo": (2026,),  # at midnight
    "Africa/Casablanca": (2026, 2027),  # back for Ramadan
    "America/Asuncion": (2023,),  # at midnight
    "America/Havana": (2026,),  # 0:00 to 1:00, and 1:00 to 0:00
    "America/New_York": (2026, 2027),
    "America/Nuuk": (2026,),  # late in the evening
    "America/Santiago": (2026, 2027),  # 24:00 to 23:00
    "America/Sao_Paulo": (2018,),  # no midnight
    "America/St_Johns": (2010,),  # at 0:01
    "Antarctica/Troll": (2026, 2027),  # two hours
    "Asia/Beirut": (2026,),  # no midnight
    "Asia/Pyongyang": (2015,),  # half an hour, for good
    "Australia/Lord_Howe": (2026, 2027),  # half an hour
    "Europe/Berlin": (2026, 2027),
    "Europe/Dublin": (2026,),  # winter is the exception
    "Pacific/Apia": (2011,),  # a day that never was
    "Pacific/Chatham": (2026, 2027),  # at 2:45
}


@cache
def transitions(zone: str, year: int) -> tuple[datetime, ...]:
    """The instants of `year` at which clocks of `zone` change, in UTC."""
    found: list[datetime] = []
    place = ZoneInfo(zone)
    day = datetime(year, 1, 1, tzinfo=UTC)
    while day.year == year:
        minute = day
        if day.astimezone(place).utcoffset() != (day + _DAY).astimezone(place).utcoffset():
            offset = day.astimezone(place).utcoffset()
            while minute.astimezone(place).utcoffset() == offset:
                minute += _MINUTE
            found.append(minute)
        day += _DAY
    return tuple(found)


#: Pairs of a zone and an instant at which its clocks change.
TRANSITIONS = [
    (zone, instant)
    for zone, years in _YEARS.items()
    for year in years
    for instant in transitions(zone, year)
]
