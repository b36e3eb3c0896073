"""APScheduler 3's triggers and taskq's, in the same situations."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from taskq import all_of, any_of, calendar, cron, every

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def theirs(trigger, after, n):
    found, fire = [], None
    for _ in range(n):
        fire = trigger.get_next_fire_time(fire, fire or after)
        if fire is None:
            break
        found.append(fire.astimezone(UTC))
    return found


def ours(trigger, after, n):
    return [fire.astimezone(UTC) for fire in trigger.fires(after, n)]


# ------------------------------------------------------------------------------- the same


def test_an_interval_is_a_grid_from_its_start():
    start = NOON - timedelta(seconds=65)
    interval = IntervalTrigger(seconds=30, start_date=start, timezone=UTC)

    assert theirs(interval, NOON, 3) == ours(every(seconds=30, anchor=start), NOON, 3)


def test_an_end_is_inclusive():
    end = NOON + timedelta(seconds=60)
    interval = IntervalTrigger(seconds=30, start_date=NOON, end_date=end, timezone=UTC)

    mine = every(seconds=30, anchor=NOON, immediate=True, end=end)

    assert theirs(interval, NOON, 9) == ours(mine, NOON - timedelta(seconds=1), 9)


def test_an_interval_of_a_day_is_24_hours_across_a_gap():
    start = datetime(2027, 3, 27, 2, 30, tzinfo=BERLIN)
    interval = IntervalTrigger(hours=24, start_date=start, timezone=BERLIN)

    mine = every(hours=24, anchor=start, immediate=True)

    assert theirs(interval, start, 3) == ours(mine, start - timedelta(seconds=1), 3)


def test_a_start_is_inclusive():
    trigger = CronTrigger.from_crontab("0 12 * * *", timezone=UTC)
    trigger.start_date = NOON

    mine = cron("0 12 * * *", start=NOON, dialect="apscheduler3")

    early = NOON - timedelta(days=5)
    assert theirs(trigger, early, 3) == ours(mine, early, 3)


@pytest.mark.parametrize(
    ("day", "expr"),
    [
        ("3rd fri", "0 0 * * 5#3"),
        ("last sun", "0 0 * * 7L"),
        ("last", "0 0 L * *"),
        ("5th mon", "0 0 * * 1#5"),
        ("1st mon,15", "0 0 15 * 1#1"),
    ],
)
def test_positions_in_the_month_have_another_spelling(day, expr):
    trigger = CronTrigger(day=day, hour=0, timezone=UTC)

    assert theirs(trigger, NOON, 6) == ours(cron(expr), NOON, 6)


def test_a_calendar_leaves_out_months_without_the_day():
    trigger = CalendarIntervalTrigger(months=1, hour=8, start_date=date(2027, 1, 31), timezone=UTC)

    mine = calendar(months=1, at="08:00", start=date(2027, 1, 31))

    assert theirs(trigger, NOON, 5) == ours(mine, NOON, 5)


# -------------------------------------------------------------------------------- better


def test_midnight_is_not_lost_after_spring_forward():
    saturday = datetime(2027, 3, 27, 12, tzinfo=BERLIN)
    days = [
        fire.astimezone(BERLIN).day
        for fire in theirs(CronTrigger.from_crontab("0 0 * * *", timezone=BERLIN), saturday, 3)
    ]

    # Given the run of the 29th, which APScheduler loses
    assert days == [28, 30, 31]

    # Then taskq has it
    assert [f.day for f in cron("0 0 * * *", tz="Europe/Berlin").fires(saturday, 3)] == [28, 29, 30]


def test_jitter_does_not_add_up():
    interval = IntervalTrigger(seconds=60, start_date=NOON, timezone=UTC, jitter=10)

    # Given fires that are counted from the last one with its jitter
    drift = theirs(interval, NOON, 100)[-1] - (NOON + timedelta(seconds=99 * 60))
    assert drift > timedelta(seconds=60)

    # Then taskq's fire times have none, and their grid stays
    mine = every(seconds=60, anchor=NOON, jitter=10)
    assert mine.fires(NOON, 100)[-1] == NOON + timedelta(seconds=100 * 60)


def test_intervals_are_not_distorted_by_being_combined():
    either = OrTrigger(
        [IntervalTrigger(seconds=period, start_date=NOON, timezone=UTC) for period in (10, 7)]
    )

    # Given fires in which the grid of ten seconds is lost
    assert [(f - NOON).seconds for f in theirs(either, NOON, 6)] == [0, 7, 14, 21, 28, 35]

    # Then taskq has both
    mine = any_of(every(seconds=10, anchor=NOON), every(seconds=7, anchor=NOON))
    assert [(f - NOON).seconds for f in mine.fires(NOON, 6)] == [7, 10, 14, 20, 21, 28]


def test_all_of_two_crons_goes_on_after_its_first_fire():
    # APScheduler's AndTrigger never returns from the second one.
    mine = all_of(cron("0 0 13 * *"), cron("0 0 * * fri"))

    assert [f"{fire:%F}" for fire in mine.fires(NOON, 2)] == ["2027-08-13", "2028-10-13"]


# ------------------------------------------------------------------------------ different


def test_a_calendar_fires_after_a_gap_too():
    trigger = CalendarIntervalTrigger(
        days=1, hour=2, minute=30, start_date=date(2027, 3, 27), timezone=BERLIN
    )
    saturday = datetime(2027, 3, 27, 12, tzinfo=BERLIN)

    # Given a day that APScheduler leaves out, since it has no half past two
    first = trigger.get_next_fire_time(datetime(2027, 3, 27, 2, 30, tzinfo=BERLIN), saturday)
    assert first.day == 29

    # Then taskq runs what is due once a day, and leaves it out when told to
    mine = {
        dst: calendar(days=1, at="02:30", start=date(2027, 3, 27), tz="Europe/Berlin", dst=dst)
        for dst in ("once", "skip")
    }
    assert mine["once"].next(saturday).day == 28
    assert mine["skip"].next(saturday).day == 29
