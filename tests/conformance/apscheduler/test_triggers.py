"""APScheduler 3's triggers and taskq's, in the same situations."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import AndTrigger, OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from taskq import ConfigError, all_of, any_of, calendar, cron, every
from tests.conformance.apscheduler.case import case

BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


FRIDAYS = """
from datetime import datetime, timezone
from apscheduler.triggers.combining import AndTrigger
from apscheduler.triggers.cron import CronTrigger

zone = timezone.utc
days = [CronTrigger(day=13, timezone=zone), CronTrigger(day_of_week="fri", timezone=zone)]
now = datetime(2026, 11, 23, 12, tzinfo=zone)
first = AndTrigger(days).get_next_fire_time(None, now)
print(f"{first:%Y-%m-%d}", flush=True)
AndTrigger(days).get_next_fire_time(first, first)
"""


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


@case(
    "A46",
    "same",
    "An interval of 30 s that began 65 s ago",
    apscheduler="fires 90 s after its beginning: a grid",
)
def test_an_interval_is_a_grid_from_its_start():
    start = NOON - timedelta(seconds=65)
    interval = IntervalTrigger(seconds=30, start_date=start, timezone=UTC)

    assert theirs(interval, NOON, 3) == ours(every(seconds=30, anchor=start), NOON, 3)


@case(
    "A47",
    "same",
    "A trigger with an end",
    apscheduler="the end itself is the last fire",
    taskq="the same, `end=`",
)
def test_an_end_is_inclusive():
    end = NOON + timedelta(seconds=60)
    interval = IntervalTrigger(seconds=30, start_date=NOON, end_date=end, timezone=UTC)

    mine = every(seconds=30, anchor=NOON, immediate=True, end=end)

    assert theirs(interval, NOON, 9) == ours(mine, NOON - timedelta(seconds=1), 9)


@case(
    "A52",
    "same",
    "An interval of 24 hours across a daylight saving change",
    apscheduler="24 hours of elapsed time: 02:30, then 03:30",
    taskq="the same; `calendar(days=1, at=...)` keeps the time of day",
)
def test_an_interval_of_a_day_is_24_hours_across_a_gap():
    start = datetime(2027, 3, 27, 2, 30, tzinfo=BERLIN)
    interval = IntervalTrigger(hours=24, start_date=start, timezone=BERLIN)

    mine = every(hours=24, anchor=start, immediate=True)

    assert theirs(interval, start, 3) == ours(mine, start - timedelta(seconds=1), 3)


@case(
    "A48",
    "same",
    "A trigger with a start",
    apscheduler="the start itself is the first fire",
    taskq="the same, `start=`",
)
def test_a_start_is_inclusive():
    trigger = CronTrigger.from_crontab("0 12 * * *", timezone=UTC)
    trigger.start_date = NOON

    mine = cron("0 12 * * *", start=NOON, dialect="apscheduler3")

    early = NOON - timedelta(days=5)
    assert theirs(trigger, early, 3) == ours(mine, early, 3)


@case(
    "A55",
    "same",
    "`3rd fri`, `last sun`, `last`, `5th mon`",
    apscheduler="the days these words say",
    taskq="the same days, written `5#3`, `7L`, `L`, `1#5`",
)
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


@case(
    "A53",
    "same",
    "Monthly on the 31st",
    apscheduler="months without that day are left out",
    taskq="the same; `missing='last'` takes their last day",
)
def test_a_calendar_leaves_out_months_without_the_day():
    trigger = CalendarIntervalTrigger(months=1, hour=8, start_date=date(2027, 1, 31), timezone=UTC)

    mine = calendar(months=1, at="08:00", start=date(2027, 1, 31))

    assert theirs(trigger, NOON, 5) == ours(mine, NOON, 5)


@case(
    "A47",
    "same",
    "A cron whose end is, or is just before, a fire",
    apscheduler="it fires if the end is on it, and not if the end is a second before",
)
@pytest.mark.parametrize(("short", "fires"), [(0, [NOON]), (1, [])])
def test_an_end_of_a_cron_is_inclusive(short, fires):
    end = NOON - timedelta(seconds=short)
    trigger = CronTrigger.from_crontab("0 12 * * *", timezone=UTC)
    trigger.end_date = end
    before = NOON - timedelta(hours=1)

    assert theirs(trigger, before, 2) == fires
    assert ours(cron("0 12 * * *", end=end), before, 2) == fires


@case(
    "A53",
    "same",
    "A calendar time in the overlap of autumn",
    apscheduler="fires at the first pass only",
)
def test_a_calendar_takes_the_first_pass():
    trigger = CalendarIntervalTrigger(
        days=1, hour=2, minute=30, start_date=date(2026, 10, 24), timezone=BERLIN
    )
    after = datetime(2026, 10, 24, 12, tzinfo=BERLIN)

    mine = calendar(days=1, at="02:30", start=date(2026, 10, 24), tz="Europe/Berlin")

    assert ours(mine, after, 2) == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 26, 1, 30, tzinfo=UTC),
    ]
    previous = datetime(2026, 10, 24, 2, 30, tzinfo=BERLIN)
    first = trigger.get_next_fire_time(previous, after)
    second = trigger.get_next_fire_time(first, first)
    assert [each.astimezone(UTC) for each in (first, second)] == ours(mine, after, 2)


@case(
    "A54",
    "same",
    "Friday the 13th, and Fridays or the 13th",
    apscheduler="the first that is both; all that are either",
    taskq="the same with `all_of` and `any_of`",
)
def test_combinations_of_crons():
    def days():
        return [CronTrigger(day=13, timezone=UTC), CronTrigger(day_of_week="fri", timezone=UTC)]

    mine = cron("0 0 13 * *"), cron("0 0 * * fri")

    assert theirs(AndTrigger(days()), NOON, 1) == ours(all_of(*mine), NOON, 1)
    either = ours(any_of(*mine), NOON, 4)
    assert theirs(OrTrigger(days()), NOON, 4) == either
    assert [f"{fire:%m-%d}" for fire in either] == ["11-27", "12-04", "12-11", "12-13"]


# -------------------------------------------------------------------------------- better


@case(
    "",
    "better",
    "`0 0 * * *` in Berlin after daylight saving time begins",
    apscheduler="loses the next midnight, and `0 0 1 * *` a month",
    taskq="each midnight fires",
)
def test_midnight_is_not_lost_after_spring_forward():
    saturday = datetime(2027, 3, 27, 12, tzinfo=BERLIN)
    days = [
        fire.astimezone(BERLIN).day
        for fire in theirs(CronTrigger.from_crontab("0 0 * * *", timezone=BERLIN), saturday, 3)
    ]

    # Given the run of the 29th, which APScheduler loses
    assert days == [28, 30, 31]

    first_days = theirs(CronTrigger.from_crontab("0 0 1 * *", timezone=BERLIN), saturday, 1)
    assert [f"{fire.astimezone(BERLIN):%m-%d}" for fire in first_days] == ["05-01"]

    # Then taskq has it
    [first] = cron("0 0 1 * *", tz="Europe/Berlin").fires(saturday, 1)
    assert f"{first:%m-%d}" == "04-01"
    assert [f.day for f in cron("0 0 * * *", tz="Europe/Berlin").fires(saturday, 3)] == [28, 29, 30]


@case(
    "A51",
    "better",
    "An interval of 60 s with jitter, 100 times",
    apscheduler="each fire counts from the last one with its jitter, which adds up to minutes",
    taskq="jitter is never part of a fire time; the grid stays",
)
def test_jitter_does_not_add_up():
    interval = IntervalTrigger(seconds=60, start_date=NOON, timezone=UTC, jitter=10)

    # Given fires that are counted from the last one with its jitter
    drift = theirs(interval, NOON, 100)[-1] - (NOON + timedelta(seconds=99 * 60))
    assert drift > timedelta(seconds=60)

    # Then taskq's fire times have none, and their grid stays
    mine = every(seconds=60, anchor=NOON, jitter=10)
    assert mine.fires(NOON, 100)[-1] == NOON + timedelta(seconds=100 * 60)


@case(
    "",
    "better",
    "Every 10 s or every 7 s",
    apscheduler="0, 7, 14, 21, 28, 35: the grid of ten seconds is lost",
    taskq="0, 7, 10, 14, 20, 21",
)
def test_intervals_are_not_distorted_by_being_combined():
    either = OrTrigger(
        [IntervalTrigger(seconds=period, start_date=NOON, timezone=UTC) for period in (10, 7)]
    )

    # Given fires in which the grid of ten seconds is lost
    assert [(f - NOON).seconds for f in theirs(either, NOON, 6)] == [0, 7, 14, 21, 28, 35]

    # Then taskq has both
    mine = any_of(every(seconds=10, anchor=NOON), every(seconds=7, anchor=NOON))
    assert [(f - NOON).seconds for f in mine.fires(NOON, 6)] == [7, 10, 14, 20, 21, 28]


@case(
    "A54",
    "better",
    "Friday the 13th: the fire after the first",
    apscheduler="never returns: a busy loop stops the whole process",
    taskq="the next one is found; a search without end is an error",
)
def test_all_of_two_crons_goes_on_after_its_first_fire():
    # Given a process of APScheduler's own, since it does not come back
    process = subprocess.Popen([sys.executable, "-c", FRIDAYS], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "2027-08-13"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
    finally:
        process.kill()
        process.communicate()

    mine = all_of(cron("0 0 13 * *"), cron("0 0 * * fri"))

    assert [f"{fire:%F}" for fire in mine.fires(NOON, 2)] == ["2027-08-13", "2028-10-13"]
    with pytest.raises(ConfigError, match="all_of"):
        all_of(cron("0 0 1 * *"), cron("0 0 2 * *")).next(NOON)


# ------------------------------------------------------------------------------ different


@case(
    "A53",
    "different",
    "A calendar time in the gap of spring",
    apscheduler="the day is left out",
    taskq="fires at the first instant after the gap, once a day; `dst='skip'` leaves it out",
)
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


@case(
    "A46",
    "different",
    "An interval that begins now",
    apscheduler="its first fire is now",
    taskq="fires a period later, so a restart makes no fire; `immediate=True` asks for one",
)
def test_an_interval_waits_for_its_first_period():
    interval = IntervalTrigger(seconds=30, start_date=NOON, timezone=UTC)

    assert theirs(interval, NOON, 1) == [NOON]
    assert ours(every(seconds=30, anchor=NOON), NOON, 1) == [NOON + timedelta(seconds=30)]
    just_before = NOON - timedelta(milliseconds=1)
    assert ours(every(seconds=30, anchor=NOON, immediate=True), just_before, 1) == [NOON]


@case(
    "A48",
    "different",
    "The first fire of a cron, asked for at a moment that matches",
    apscheduler="is this moment",
    taskq="is after it: `next(after)` is strictly after, so that no moment is returned twice",
)
def test_next_is_strictly_after():
    trigger = CronTrigger.from_crontab("0 12 * * *", timezone=UTC)

    assert theirs(trigger, NOON, 1) == [NOON]
    assert ours(cron("0 12 * * *"), NOON, 1) == [NOON + timedelta(days=1)]


@case(
    "A50",
    "different",
    "Jitter that reaches beyond the end of a cron",
    apscheduler="the fire moves to the end",
    taskq="the end limits fire times, and jitter is added to them: the job may run after the end",
)
def test_an_end_is_for_fire_times_without_their_jitter():
    end = NOON + timedelta(seconds=1)
    trigger = CronTrigger.from_crontab("0 12 * * *", timezone=UTC)
    trigger.end_date, trigger.jitter = end, 600

    drawn = [trigger.get_next_fire_time(None, NOON - timedelta(hours=1)) for _ in range(50)]
    assert max(drawn) == end

    mine = cron("0 12 * * *", end=end, jitter=600)
    assert ours(mine, NOON - timedelta(hours=1), 2) == [NOON]


@case(
    "A56",
    "different",
    "Fields that are left out: `hour=5`, `second=5`",
    apscheduler="smaller fields are at the least, larger ones any: 05:00:00 daily, each minute",
    taskq="cron has all its fields written: `0 5 * * *`; with `seconds=` it takes a sixth",
)
@pytest.mark.parametrize(
    ("fields", "expr", "seconds"),
    [
        ({"hour": 5}, "0 5 * * *", None),
        ({"second": 5}, "5 * * * * *", "first"),
        ({"day_of_week": "mon"}, "0 0 * * mon", None),
        ({"month": 3}, "0 0 1 3 *", None),
    ],
)
def test_fields_are_never_left_out(fields, expr, seconds):
    given = {} if seconds is None else {"seconds": seconds}

    assert theirs(CronTrigger(**fields, timezone=UTC), NOON, 3) == ours(
        cron(expr, **given), NOON, 3
    )
    with pytest.raises(ConfigError, match="fields"):
        cron("5")
