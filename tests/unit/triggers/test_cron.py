"""`cron`: what it reads, what it refuses, what it does where clocks change, and what it says."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq import cron
from taskq.core.errors import ConfigError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
# Berlin: from 2:00 to 3:00 on 2027-03-28, from 3:00 to 2:00 on 2026-10-25.
SPRING = datetime(2027, 3, 27, 12, tzinfo=BERLIN)
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=BERLIN)


def texts(trigger, after, n, form="%m-%d %H:%M%z"):
    return [fire.strftime(form) for fire in trigger.fires(after, n)]


# ------------------------------------------------------------------------- what it reads


@pytest.mark.parametrize(
    ("expr", "fires"),
    [
        ("0 0 L * *", ["11-30", "12-31", "01-31", "02-28"]),
        ("0 0 LW * *", ["11-30", "12-31", "01-29", "02-26"]),
        ("0 0 15W * *", ["12-15", "01-15", "02-15", "03-15"]),
        ("0 0 W15 * *", ["12-15", "01-15", "02-15", "03-15"]),
        ("0 0 16W * *", ["12-16", "01-15", "02-16", "03-16"]),
        ("0 0 1W 5,8 *", ["05-03", "08-02", "05-01", "08-01"]),
        ("0 0 28-L * *", ["11-28", "11-29", "11-30", "12-28"]),
        ("0 0 1,L * *", ["11-30", "12-01", "12-31", "01-01"]),
        ("0 0 * * 5#2", ["12-11", "01-08", "02-12", "03-12"]),
        ("0 0 * * fri#2", ["12-11", "01-08", "02-12", "03-12"]),
        ("0 0 * * 5#5", ["01-29", "04-30", "07-30", "10-29"]),
        ("0 0 * * 5L", ["11-27", "12-25", "01-29", "02-26"]),
        ("0 0 * * L5", ["11-27", "12-25", "01-29", "02-26"]),
        ("0 0 * * 7L", ["11-29", "12-27", "01-31", "02-28"]),
        ("0 0 * * 1-2#1", ["12-01", "12-07", "01-04", "01-05"]),
        ("0 0 * * SUN", ["11-29", "12-06", "12-13", "12-20"]),
        ("0 0 * * 7", ["11-29", "12-06", "12-13", "12-20"]),
        ("0 0 * * fri-mon", ["11-27", "11-28", "11-29", "11-30"]),
        ("0 0 * * 7-2", ["11-24", "11-29", "11-30", "12-01"]),
        ("0 0 ? * 1", ["11-30", "12-07", "12-14", "12-21"]),
        ("0 0 29 2 *", ["02-29", "02-29", "02-29", "02-29"]),
        ("0 0 13 * fri", ["11-27", "12-04", "12-11", "12-13"]),
        ("0 0 */10 * fri", ["12-11", "01-01", "05-21", "06-11"]),
        ("@monthly", ["12-01", "01-01", "02-01", "03-01"]),
        ("@Weekly", ["11-29", "12-06", "12-13", "12-20"]),
    ],
)
def test_days(expr, fires):
    assert texts(cron(expr), NOON, 4, "%m-%d") == fires


@settings(max_examples=60, deadline=None)
@given(
    day=st.sampled_from(["*", "L", "LW", "15W", "1W,20", "13", "*/5", "31", "28-L", "?"]),
    weekday=st.sampled_from(["*", "5", "5#2", "1#5", "5L", "1,5#3", "*/2", "fri-mon", "7L"]),
    start=st.dates(date(2020, 1, 1), date(2040, 1, 1)),
)
def test_days_are_those_of_the_calendar(day, weekday, start):
    def fits_day(each):
        last = (each.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)

        def nearest(number):
            wanted = min(number, last.day)
            near = [wanted + step for step in (0, -1, 1, -2, 2)]
            inside = [n for n in near if 1 <= n <= last.day]
            return next(n for n in inside if each.replace(day=n).weekday() < 5)

        return {
            "*": True,
            "?": True,
            "L": each == last,
            "LW": each.day == nearest(31),
            "15W": each.day == nearest(15),
            "1W,20": each.day in (nearest(1), 20),
            "13": each.day == 13,
            "*/5": each.day % 5 == 1,
            "31": each.day == 31,
            "28-L": each.day >= 28,
        }[day]

    def fits_weekday(each):
        number, place = each.isoweekday(), (each.day + 6) // 7
        is_last = (each + timedelta(days=7)).month != each.month
        return {
            "*": True,
            "5": number == 5,
            "5#2": (number, place) == (5, 2),
            "1#5": (number, place) == (1, 5),
            "5L": number == 5 and is_last,
            "1,5#3": number == 1 or (number, place) == (5, 3),
            "*/2": number % 7 in (0, 2, 4, 6),
            "fri-mon": number in (5, 6, 7, 1),
            "7L": number == 7 and is_last,
        }[weekday]

    both = day[0] in "*?" or weekday[0] == "*"
    fits = all if both else any
    days = (start + timedelta(days=number) for number in range(1, 800))
    wanted = [each for each in days if fits((fits_day(each), fits_weekday(each)))][:5]

    trigger = cron(f"0 8 {day} * {weekday}")

    begin = datetime(start.year, start.month, start.day, 12, tzinfo=UTC)
    assert [fire.date() for fire in trigger.fires(begin, len(wanted))] == wanted


def test_seconds_and_years():
    first = cron("*/20 30 8 * * *", seconds="first")
    last = cron("30 8 * * * */20", seconds="last")

    assert texts(first, NOON, 4, "%d %T") == [
        "24 08:30:00",
        "24 08:30:20",
        "24 08:30:40",
        "25 08:30:00",
    ]
    assert first.fires(NOON, 50) == last.fires(NOON, 50)
    once = cron("0 8 1 1 * 0 2028", seconds="last")
    assert texts(once, NOON, 3, "%F %T") == ["2028-01-01 08:00:00"]
    assert once.next(datetime(2028, 1, 1, 8, tzinfo=UTC)) is None


def test_next_is_strictly_after_to_the_microsecond():
    trigger = cron("0 12 * * *")
    tick = timedelta(microseconds=1)

    assert trigger.next(NOON - tick) == NOON
    assert trigger.next(NOON) == trigger.next(NOON + tick) == NOON + timedelta(days=1)
    assert trigger.begin(NOON) == NOON


def test_start_and_end_are_inclusive():
    trigger = cron("0 12 * * *", start=NOON, end=NOON + timedelta(days=1))

    assert trigger.fires(NOON - timedelta(days=9), 9) == [NOON, NOON + timedelta(days=1)]
    assert cron("0 12 * * *", end=NOON - timedelta(seconds=1)).begin(NOON) is None


@pytest.mark.parametrize(
    ("dialect", "expr", "fires"),
    [
        ("standard", "0 0 * * 1", ["11-30", "12-07"]),
        ("celery", "0 0 * * 1", ["11-30", "12-07"]),
        ("croniter", "0 0 * * 1", ["11-30", "12-07"]),
        ("apscheduler3", "0 0 * * 1", ["11-24", "12-01"]),  # Tuesday
        ("apscheduler3", "0 0 * * mon", ["11-30", "12-07"]),
        ("apscheduler3", "0 0 last * *", ["11-30", "12-31"]),
        ("standard", "0 0 13 * 5", ["11-27", "12-04"]),
        ("celery", "0 0 13 * 5", ["08-13", "10-13"]),  # both
        ("apscheduler3", "0 0 13 * 4", ["08-13", "10-13"]),
        ("croniter", "0 0 */10 * 5", ["11-27", "12-01"]),  # either
        ("celery", "0 0 1 january *", ["01-01", "01-01"]),
    ],
)
def test_dialects(dialect, expr, fires):
    assert texts(cron(expr, dialect=dialect), NOON, 2, "%m-%d") == fires


# ------------------------------------------------------------------- where clocks change


@pytest.mark.parametrize(
    ("dst", "spring", "autumn"),
    [
        (
            "once",
            ["03-28 03:00+0200", "03-29 02:30+0200"],
            ["10-25 02:30+0200", "10-26 02:30+0100"],
        ),
        (
            "skip",
            ["03-29 02:30+0200", "03-30 02:30+0200"],
            ["10-25 02:30+0200", "10-26 02:30+0100"],
        ),
        (
            "shift",
            ["03-28 03:30+0200", "03-29 02:30+0200"],
            ["10-25 02:30+0200", "10-26 02:30+0100"],
        ),
        (
            "both",
            ["03-28 03:00+0200", "03-29 02:30+0200"],
            ["10-25 02:30+0200", "10-25 02:30+0100"],
        ),
    ],
)
def test_fixed_times_where_clocks_change(dst, spring, autumn):
    trigger = cron("30 2 * * *", tz="Europe/Berlin", dst=dst)

    assert texts(trigger, SPRING, 2) == spring
    assert texts(trigger, AUTUMN, 2) == autumn


def test_several_times_in_one_gap_fire_once_at_its_end():
    trigger = cron("0,20,40 2,3 * * *", tz="Europe/Berlin")

    assert texts(trigger, SPRING, 3) == ["03-28 03:00+0200", "03-28 03:20+0200", "03-28 03:40+0200"]


def test_times_that_are_shifted_mix_with_those_after_the_gap():
    trigger = cron("10,50 2,3 * * *", tz="Europe/Berlin", dst="shift")
    fires = ["03:10", "03:50"]

    assert texts(trigger, SPRING, 2, "%H:%M") == fires
    later = cron("10 2 * * *", tz="Europe/Berlin", dst="shift")
    for minute in range(10):
        after = datetime(2027, 3, 28, 3, minute, tzinfo=BERLIN)
        assert later.next(after) == datetime(2027, 3, 28, 3, 10, tzinfo=BERLIN)


@pytest.mark.parametrize("expr", ["*/15 * * * *", "*/15 1-4 * * *", "0,15,30,45 * * * *"])
def test_stars_follow_elapsed_time(expr):
    trigger = cron(expr, tz="Europe/Berlin")

    for start in (SPRING, AUTUMN):
        night = start.replace(hour=1, minute=45) + timedelta(days=1)
        fires = [fire.astimezone(UTC) for fire in trigger.fires(night, 8)]
        assert {later - fire for fire, later in pairwise(fires)} == {timedelta(minutes=15)}


def test_midnight_is_not_lost_after_a_change():
    assert texts(cron("0 0 * * *", tz="Europe/Berlin"), SPRING, 3, "%m-%d %H:%M") == [
        "03-28 00:00",
        "03-29 00:00",
        "03-30 00:00",
    ]
    # Havana has no midnight that day
    havana = datetime(2026, 3, 7, 12, tzinfo=UTC)
    assert texts(cron("0 0 * * *", tz="America/Havana"), havana, 2) == [
        "03-08 01:00-0400",
        "03-09 00:00-0400",
    ]


def test_a_day_that_never_was():
    trigger = cron("0 12 30 12 *", tz="Pacific/Apia")

    assert texts(trigger, datetime(2011, 12, 1, tzinfo=UTC), 2, "%F %H:%M") == [
        "2011-12-31 00:00",
        "2012-12-30 12:00",
    ]
    skipped = cron("0 12 30 12 *", tz="Pacific/Apia", dst="skip")
    assert texts(skipped, datetime(2011, 12, 1, tzinfo=UTC), 1, "%F") == ["2012-12-30"]


def test_fires_only_go_forward_from_any_instant():
    # Given every policy, and each minute of two nights
    for dst, expr, start in product(
        ("once", "skip", "shift", "both"), ("30 2 * * *", "*/20 2 * * *"), (SPRING, AUTUMN)
    ):
        trigger = cron(expr, tz="Europe/Berlin", dst=dst)
        all_ = [fire.astimezone(UTC) for fire in trigger.fires(start, 12)]
        assert all_ == sorted(set(all_))

        # Then the next fire is the same whichever fire was the last
        night = start.astimezone(UTC) + timedelta(hours=10)
        for minute in range(0, 360, 7):
            after = night + timedelta(minutes=minute)
            assert trigger.next(after).astimezone(UTC) == next(f for f in all_ if f > after)


# ---------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("expr", "options", "said"),
    [
        ("", {}, r"it has 0 fields; use 5: minute, hour"),
        ("* * * *", {}, "it has 4 fields"),
        (5, {}, "use text for the expression"),
        ("* " * 300, {}, "at most 500 characters"),
        ("61 * * * *", {}, "minute '61': 61 is out of range; use 0 to 59"),
        ("* 24 * * *", {}, "hour '24': 24 is out of range; use 0 to 23"),
        ("* * 0 * *", {}, "day of month '0': 0 is out of range; use 1 to 31"),
        ("* * * 13 *", {}, "month '13'"),
        ("* * * * 8", {}, "day of week '8': 8 is out of range; use 0 to 7"),
        ("99999999999 * * * *", {}, "out of range"),
        ("*/0 * * * *", {}, "a step is at least 1"),
        ("1- * * * *", {}, r"minute '1-' is invalid; use a number from 0 to 59"),
        ("-1 * * * *", {}, "is invalid"),
        ("1,,2 * * * *", {}, "minute '' is invalid"),
        ("1/2/3 * * * *", {}, "is invalid"),
        ("\u0661 * * * *", {}, "is invalid"),
        ("* * * january *", {}, "month 'january' is invalid.*or jan to dec"),
        ("* * * * mond", {}, "or sun to sat"),
        ("* * * * 5#6", {}, "1 to 5 times; for the last one use '5L'"),
        ("? * * * *", {}, r"minute '\?': use '\*'"),
        ("* * * * * *", {}, "seconds='first' or seconds='last'"),
        ("* * * * *", {"seconds": "first"}, "needs 6 fields, and there are 5"),
        ("* * * * * *", {"seconds": "middle"}, "seconds='middle' is unknown"),
        ("@dayly", {}, "there is no '@dayly'; did you mean '@daily'"),
        ("@reboot", {}, r"at\(\.\.\.\) or enqueue"),
        ("@every 5m", {}, r"use every\(minutes=5\)"),
        ("@daily", {"dialect": "celery"}, "'celery' has no @daily; use the five fields"),
        ("H * * * *", {}, "add hash_id="),
        ("H * * * *", {"hash_id": "\udc80"}, "hash_id is not valid Unicode"),
        ("H(40-30) * * * *", {"hash_id": "a"}, "the smaller first"),
        ("R * * * *", {}, "R varies between processes"),
        ("0 0 31 2 *", {}, "none of its months has a day 31; for the last day .* use 'L'"),
        ("0 0 30-31 2 *", {}, "none of its months has a day 30"),
        ("0 0 31 4,6,9,11 *", {}, "none of its months has a day 31"),
        ("0 0 29 2 * 0 2027", {"seconds": "last"}, "none of its months has a day 29"),
        ("0 0 */31 2 5#2", {}, "none of its days of the month can be that weekday"),
        ("1-1 * * * *", {"dialect": "croniter"}, "use '1' or"),
        ("5/20 * * * *", {"dialect": "celery"}, "add the end: '5-59/20'"),
        ("* * * * 7", {"dialect": "celery"}, "use 0 to 6"),
        ("* * * * mon#1", {"dialect": "celery"}, "has no #, L, W, H"),
        ("* * * * mon#1", {"dialect": "apscheduler3"}, "use dialect='standard'"),
        ("* 22-2 * * *", {"dialect": "apscheduler3"}, "use '22-23,0-2'"),
        ("*/60 * * * *", {"dialect": "apscheduler3"}, "the step is wider than the range, 59"),
        ("* * * * mon-fri/2", {"dialect": "apscheduler3"}, "does not allow steps of names"),
        ("* * * * *", {"dialect": "quartz"}, "dialect='quartz' is unknown; known are"),
        ("* * * * *", {"dialect": "crontier"}, "did you mean 'croniter'"),
        ("* * * * *", {"dst": "twice"}, "dst='twice' is unknown"),
        ("* * * * *", {"jitter": -1}, "jitter=-1 is out of range"),
        ("* * * * *", {"start": datetime(2026, 1, 1)}, "start=.*has no time zone"),
        ("* * * * *", {"end": datetime(2026, 1, 1)}, "end=.*has no time zone"),
        ("* * * * *", {"tz": "Europe/Berlln"}, "did you mean 'Europe/Berlin'"),
        ("* * * * *", {"tz": "europe/berlin"}, "did you mean 'Europe/Berlin'"),
        ("* * * * *", {"tz": "Berlin"}, "did you mean 'Europe/Berlin'"),
        (
            "CRON_TZ=Asia/Tokyo 0 8 * * *",
            {},
            r"the zone is an option: use cron\('0 8 \* \* \*', tz='Asia/Tokyo'\)",
        ),
        ("TZ = 'UTC'  @daily", {}, r"use cron\('@daily', tz='UTC'\)"),
        ("* * * * *", {"tz": "New York"}, "did you mean 'America/New_York'"),
        ("* * * * *", {"tz": "+02:00"}, "is an offset.*tz='Europe/Berlin'"),
        ("* * * * *", {"tz": "UTC+2"}, "is an offset"),
        ("* * * * *", {"tz": timezone(timedelta(hours=2))}, "has no IANA name"),
        ("* * * * *", {"tz": None}, "has no IANA name"),
        ("* * * * *", {"tz": "localtime"}, "no time zone 'localtime'"),
        ("* * * * *", {"tz": "../../etc/passwd"}, "no time zone"),
        ("* * * * *", {"tz": ""}, "no time zone ''"),
        ("* * * * *", {"tz": "Europe"}, "no time zone 'Europe'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_to_type(expr, options, said):
    with pytest.raises(ConfigError, match=said):
        cron(expr, **options)


def test_zones_are_taken_by_name_or_as_they_are():
    assert cron("* * * * *", tz=BERLIN) == cron("* * * * *", tz="Europe/Berlin")
    assert cron("* * * * *", tz=UTC) == cron("* * * * *")


def test_an_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError):
        cron("* * * * *", timezone="UTC")


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="0123456789*/,-?#LWHRlw @monfri", max_size=30),
    st.sampled_from(["standard", "celery", "apscheduler3", "croniter"]),
)
def test_noise_is_refused_or_fires(noise, dialect):
    try:
        trigger = cron(noise, dialect=dialect, hash_id="noise")
    except ConfigError:
        return
    fire = trigger.next(NOON)
    assert fire is None or fire > NOON
    assert trigger.explain()


# --------------------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("expr", "options", "said"),
    [
        ("* * * * *", {}, "every minute, UTC"),
        ("*/5 * * * *", {}, "every 5 minutes, UTC"),
        ("7 * * * *", {}, "at minute 7 of every hour, UTC"),
        ("*/90 * * * *", {}, "at minute 0 of every hour, UTC"),
        (
            "0 8 * * mon-fri",
            {"tz": "Asia/Shanghai"},
            "at 08:00 on Monday to Friday, Asia/Shanghai time",
        ),
        ("0 8,20 * * *", {}, "at 08:00 and 20:00 every day, UTC"),
        ("*/10 8-17 * * *", {}, "every 10 minutes, from 08:00 to 17:59 every day, UTC"),
        (
            "0 0 13 * fri",
            {},
            "at 00:00 on day 13 of the month or on Friday (either is enough), UTC",
        ),
        (
            "0 0 13 * fri",
            {"dialect": "celery"},
            "at 00:00 on day 13 of the month when it also is Friday, UTC",
        ),
        ("0 9 1,15 1-3 *", {}, "at 09:00 on days 1 and 15 of the month in January to March, UTC"),
        ("0 9 LW * *", {}, "at 09:00 on the last weekday of the month, UTC"),
        (
            "0 9 * * 5#2,1L",
            {},
            "at 09:00 on the second Friday of the month and the last Monday of the month, UTC",
        ),
        ("*/10 * * * * *", {"seconds": "first"}, "every 10 seconds, UTC"),
        ("5 30 8 * * *", {"seconds": "first"}, "at 08:30:05 every day, UTC"),
        (
            "30 2 * * *",
            {"tz": "Europe/Berlin"},
            "at 02:30 every day, Europe/Berlin time; a time skipped by daylight saving time fires "
            "once, at the first instant after the gap; a repeated time fires the first time only",
        ),
        ("30 4 * * *", {"tz": "Europe/Berlin"}, "at 04:30 every day, Europe/Berlin time"),
        (
            "*/30 * * * *",
            {"tz": "Europe/Berlin"},
            "every 30 minutes, Europe/Berlin time; it follows elapsed time through daylight saving "
            "time",
        ),
        (
            "0 8 * * *",
            {"start": NOON, "end": NOON},
            "at 08:00 every day, UTC; from 2026-11-23 12:00:00 UTC on; until 2026-11-23 12:00:00 "
            "UTC",
        ),
    ],
)
def test_explanations(expr, options, said):
    assert cron(expr, **options).explain() == said


def test_one_trigger_serves_many_threads():
    trigger = cron("*/7 3-20 1-28 * *", tz="Europe/Berlin")
    wanted = trigger.fires(NOON, 60)
    seen = []

    threads = [
        threading.Thread(target=lambda: seen.append(trigger.fires(NOON, 60))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [wanted] * 8
