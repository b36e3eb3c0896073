"""`every` and `at`: the grid, where it begins, where it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import at, every
from taskq.core.errors import ConfigError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
INSTANTS = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
PERIODS = st.timedeltas(timedelta(seconds=1), timedelta(days=400))


@given(anchor=INSTANTS, period=PERIODS, after=INSTANTS, immediate=st.booleans())
def test_fires_lie_on_the_grid_and_none_is_left_out(anchor, period, after, immediate):
    trigger = every(seconds=period.total_seconds(), anchor=anchor, immediate=immediate)
    period = trigger.period

    fire = trigger.next(after)

    # Then it is the first one of the grid that is later
    first = anchor if immediate else anchor + period
    assert fire > after
    assert (fire - anchor) % period == timedelta(0)
    assert fire == first or (fire > first and fire - period <= after)


def test_the_grid_is_counted_from_the_schedule_where_there_is_no_anchor():
    trigger = every(minutes=5)

    assert trigger.next(NOON) == NOON + timedelta(minutes=5)
    assert trigger.fires(NOON, 2) == [NOON + timedelta(minutes=5), NOON + timedelta(minutes=10)]
    # Whoever keeps the schedule keeps the anchored form, which later instants do not move
    kept = trigger.anchored(NOON)
    assert kept.next(NOON + timedelta(minutes=7)) == NOON + timedelta(minutes=10)
    assert kept.anchored(NOON + timedelta(minutes=7)) is kept


def test_a_schedule_begins_one_period_later_or_at_once():
    assert every(minutes=5).begin(NOON) == NOON + timedelta(minutes=5)
    assert every(minutes=5, immediate=True).begin(NOON) == NOON


def test_an_end_is_inclusive():
    trigger = every(seconds=30, anchor=NOON, end=NOON + timedelta(seconds=60))

    assert trigger.fires(NOON, 9) == [NOON + timedelta(seconds=30), NOON + timedelta(seconds=60)]
    assert trigger.next(NOON + timedelta(seconds=60)) is None


def test_a_day_is_24_hours_also_when_clocks_change():
    # Given the night in which Berlin has no half past two
    berlin = ZoneInfo("Europe/Berlin")
    anchor = datetime(2027, 3, 27, 2, 30, tzinfo=berlin)

    fire = every(days=1, anchor=anchor).next(anchor)

    assert fire.astimezone(berlin).isoformat() == "2027-03-28T03:30:00+02:00"


def test_at_fires_once():
    trigger = at(NOON)

    assert trigger.next(NOON - timedelta(microseconds=1)) == NOON
    assert trigger.next(NOON) is None
    assert trigger.fires(NOON - timedelta(days=1), 5) == [NOON]


def test_at_in_the_past_is_late_but_not_exhausted():
    assert at(NOON).begin(NOON + timedelta(days=1)) == NOON


def test_triggers_are_equal_by_content():
    berlin = NOON.astimezone(ZoneInfo("Europe/Berlin"))

    assert at(NOON) == at(berlin)
    assert hash(every(hours=1, anchor=NOON)) == hash(every(minutes=60, anchor=berlin))
    assert every(hours=1) != every(hours=1, jitter=5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: every(), r"every\(\) of 0 seconds.*every\(minutes=5\)"),
        (lambda: every(minutes=-5), "of -300 seconds"),
        (lambda: every(seconds=0.01), "at least 0.1 seconds"),
        (lambda: every(hours=1, jitter=-1), "jitter=-1 is out of range"),
        (lambda: every(hours=1, anchor=datetime(2026, 1, 1)), "anchor=.*has no time zone"),
        (lambda: every(hours=1, end=datetime(2026, 1, 1)), "end=.*has no time zone"),
        (lambda: every(days=1e12), "too long"),
        (
            lambda: every(minutes="5"),
            r"every\(minutes='5'\) is not a number; use every\(minutes=5\)",
        ),
        (lambda: every(hours="1.5"), r"use every\(hours=1.5\)"),
        (lambda: every(minutes="5m"), r"use every\(minutes=5\)"),
        (lambda: every(days=None), r"every\(days=None\) is not a number"),
        (lambda: every(weeks=True), r"every\(weeks=True\) is not a number"),
        (lambda: at(datetime(2026, 1, 1)), "at=.*has no time zone; use"),
        (lambda: at("tomorrow"), "at='tomorrow' is not an instant"),
        (lambda: every(hours=1).next(datetime(2026, 1, 1)), "after=.*has no time zone"),
        (lambda: every(hours=1).fires(NOON, -1), "n=-1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_type(make, said):
    with pytest.raises(ConfigError, match=said):
        make()


def test_the_end_of_the_calendar_is_the_end_of_the_trigger():
    assert every(weeks=52, anchor=NOON).next(datetime(9999, 12, 1, tzinfo=UTC)) is None


def test_explanations():
    assert every(hours=1, minutes=30, seconds=1).explain() == (
        "every 1 hour, 30 minutes and 1 second of elapsed time, counted from when the schedule is "
        "added; daylight saving time does not affect it"
    )
    assert "first at that time itself" in every(weeks=2, anchor=NOON, immediate=True).explain()
    assert at(NOON).explain() == "once, on Monday 2026-11-23 at 12:00:00 UTC"
