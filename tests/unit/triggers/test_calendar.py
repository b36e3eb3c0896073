"""`calendar`: every so many months or days, at a time of day."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq import calendar
from taskq.core.errors import ConfigError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def texts(trigger, after, n, form="%m-%d"):
    return [fire.strftime(form) for fire in trigger.fires(after, n)]


@settings(deadline=None)
@given(
    start=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    days=st.integers(1, 90),
    after=st.datetimes(datetime(2019, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC)),
)
def test_days_are_counted_from_the_start(start, days, after):
    fire = calendar(days=days, start=start, at="08:00").next(after)

    assert fire > after
    assert fire.time() == time(8)
    assert (fire.date() - start).days % days == 0
    before = fire - timedelta(days=days)
    assert before <= after or before.date() < start


@settings(deadline=None)
@given(
    start=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    months=st.integers(1, 30),
    missing=st.sampled_from(["skip", "last"]),
)
def test_months_are_counted_from_the_start(start, months, missing):
    fires = calendar(months=months, start=start, missing=missing).fires(NEW_YEAR, 8)

    passed = [(f.year - start.year) * 12 + f.month - start.month for f in fires]
    assert all(number >= 0 and number % months == 0 for number in passed)
    if missing == "skip":
        assert {fire.day for fire in fires} == {start.day}
    else:
        assert {later - number for number, later in pairwise(passed)} == {months}
        assert all(f.day == start.day or (f + timedelta(days=1)).day == 1 for f in fires)


def test_a_month_without_the_day_is_left_out_or_takes_its_last():
    start = date(2026, 1, 31)

    assert texts(calendar(months=1, start=start), NEW_YEAR, 3) == ["01-31", "03-31", "05-31"]
    last = calendar(months=1, start=start, missing="last")
    assert texts(last, NEW_YEAR, 4) == ["01-31", "02-28", "03-31", "04-30"]


def test_leap_days():
    leap = calendar(years=1, start=date(2024, 2, 29))

    assert texts(leap, NEW_YEAR, 2, "%F") == ["2028-02-29", "2032-02-29"]


def test_the_start_is_the_day_of_the_schedule_where_there_is_none():
    trigger = calendar(days=3, at="08:00", tz="Asia/Tokyo")
    # 21:00 in Tokyo: eight o'clock is over there
    kept = trigger.anchored(NOON)

    assert trigger.begin(NOON) == datetime(2026, 11, 25, 23, tzinfo=UTC)
    assert kept.start == date(2026, 11, 23)
    assert kept.next(NOON + timedelta(days=1)) == trigger.next(NOON)
    assert calendar(days=3, at="22:00", tz="Asia/Tokyo").next(NOON) == NOON + timedelta(hours=1)


@pytest.mark.parametrize(
    ("dst", "fire"),
    [
        ("once", "2027-03-28T03:00:00+02:00"),
        ("shift", "2027-03-28T03:30:00+02:00"),
        ("skip", "2027-03-30T02:30:00+02:00"),
    ],
)
def test_a_time_in_a_gap(dst, fire):
    trigger = calendar(days=2, start=date(2027, 3, 26), at="02:30", tz="Europe/Berlin", dst=dst)
    after = datetime(2027, 3, 27, tzinfo=ZoneInfo("Europe/Berlin"))

    assert trigger.next(after).isoformat() == fire


def test_an_end_is_inclusive():
    trigger = calendar(weeks=1, start=date(2026, 1, 1), end=NEW_YEAR + timedelta(weeks=1))

    assert texts(trigger, NEW_YEAR - timedelta(days=1), 5) == ["01-01", "01-08"]


def test_the_end_of_the_calendar_is_the_end_of_the_trigger():
    trigger = calendar(years=900, start=date(2026, 1, 1))

    assert len(trigger.fires(NEW_YEAR - timedelta(days=1), 99)) == 9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"use one of them, such as calendar\(months=1"),
        ({"months": 1, "days": 1}, "counts months .* or days"),
        ({"days": -1}, "days=-1; use a whole number"),
        ({"days": 1.5}, "days=1.5; use a whole number"),
        ({"days": True}, "days=True"),
        ({"years": 10**6}, "months=12000000; use a whole number from 0 to 12000"),
        ({"days": 1, "at": "25:00"}, "at='25:00' is not a time of day"),
        ({"days": 1, "at": "8"}, "use at='08:00'"),
        ({"days": 1, "at": time(8, tzinfo=UTC)}, "and tz= for the zone"),
        ({"days": 1, "start": NOON}, "is not a day; use date"),
        ({"days": 1, "end": datetime(2026, 1, 1)}, "has no time zone"),
        ({"days": 1, "tz": "Berlin"}, "did you mean 'Europe/Berlin'"),
        ({"days": 1, "dst": "never"}, "dst='never' is unknown"),
        ({"months": 1, "missing": "first"}, "missing='first' is unknown"),
        ({"days": 1, "jitter": -2}, "jitter=-2"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_type(options, said):
    with pytest.raises(ConfigError, match=said):
        calendar(**options)


def test_explanations():
    assert calendar(days=3, at="8:05").explain() == (
        "every 3 days at 08:05:00, UTC, counted from the day the schedule is added"
    )
    assert calendar(months=1, start=date(2026, 1, 31), tz="Asia/Tokyo").explain() == (
        "every month at 00:00:00, Asia/Tokyo time, counted from 2026-01-31; months without that "
        "day are skipped"
    )
    gap = calendar(days=1, at="02:30", tz="Europe/Berlin", dst="skip").explain()
    assert "a time skipped by daylight saving time does not fire that day" in gap
