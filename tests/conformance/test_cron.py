"""cron beside croniter, cronsim, APScheduler 3 and Celery: the same, or a named difference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from taskq import cron
from tests.conformance.clocks import EXAMPLES, TRANSITIONS
from tests.conformance.dialects import DIALECT
from tests.conformance.differences import DIFFERENCES, Difference, difference_of
from tests.conformance.expressions import Expression, Part
from tests.conformance.oracles import ORACLES, Endless

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
PATIENT = settings(deadline=None, suppress_health_check=list(HealthCheck))
EVERYWHERE = st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC))
LIBRARIES = sorted(ORACLES)


def fires_of(
    expr: str, library: str, zone: str, start: datetime, end: datetime, most: int
) -> list[datetime]:
    trigger = cron(expr, tz=zone, dialect=DIALECT[library][1], end=end - SECOND)
    return [fire.astimezone(UTC) for fire in trigger.fires(start, most)]


def apart(
    expr: str, library: str, zone: str, start: datetime, end: datetime, most: int = 1000
) -> tuple[set[datetime], bool]:
    """Instants at which exactly one of both fires, and whether they differ in any way."""
    theirs = ORACLES[library](expr, zone, start, end, most)
    ours = fires_of(expr, library, zone, start, end, most)
    return set(theirs) ^ set(ours), theirs != ours


@pytest.mark.timeout(100 + 100 * EXAMPLES)
@pytest.mark.parametrize("library", LIBRARIES)
@settings(PATIENT, max_examples=100 * EXAMPLES)
@given(data=st.data(), start=EVERYWHERE, days=st.integers(1, 60))
def test_fires_are_the_same_in_utc(library, data, start, days):
    expression = data.draw(DIALECT[library][0](True))

    instants, differ = apart(
        expression.text, library, "UTC", start, start + timedelta(days=days), most=40
    )

    if differ:
        assert difference_of(library, expression, None, instants) is not None, sorted(instants)


@pytest.mark.timeout(100 + 100 * EXAMPLES)
@pytest.mark.parametrize("library", LIBRARIES)
@settings(PATIENT, max_examples=60 * EXAMPLES)
@given(data=st.data(), change=st.sampled_from(TRANSITIONS))
def test_fires_are_the_same_around_changes_of_clocks(library, data, change):
    expression = data.draw(DIALECT[library][0](False))
    zone, instant = change
    start, end = instant - timedelta(hours=4), instant + timedelta(hours=7)

    try:
        instants, differ = apart(expression.text, library, zone, start, end)
    except Endless:
        reject()

    if differ:
        assert difference_of(library, expression, change, instants) is not None, sorted(instants)


def test_clocks_that_go_back_across_midnight_end_no_search():
    # Given a change at which cronsim searches for ever
    expr, zone, start = "1 */16,9 * * *", "America/St_Johns", datetime(2010, 11, 6, 22, tzinfo=UTC)
    with pytest.raises(Endless):
        ORACLES["cronsim"](expr, zone, start, start + 11 * HOUR, 9)

    # Then taskq fires once in the hour of midnight, and goes on
    found = cron(expr, tz=zone).fires(start, 3)

    assert [f"{fire:%d %H:%M}" for fire in found] == ["07 00:01", "07 09:01", "07 16:01"]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: f"{each.library}: {each.name}")
def test_each_difference_is_there(difference: Difference):
    # A library that changes its mind shows here, and the difference has to go.
    expr, zone, start = difference.example
    begin = datetime.fromisoformat(start)

    _, differ = apart(expr, difference.library, zone, begin, begin + timedelta(hours=30))

    assert differ


def test_a_difference_explains_nothing_else():
    # Given a made-up fire of theirs an hour before clocks change
    change = ("Europe/Berlin", datetime(2026, 10, 25, 1, tzinfo=UTC))
    daily = Expression(*(Part(text, frozenset(range(60))) for text in ("30", "2", "*", "*", "*")))
    early = {change[1] - timedelta(hours=1)}

    assert difference_of("croniter", daily, change, early) is None
    assert difference_of("croniter", daily, change, {change[1]}).name == "fixed times twice"


@pytest.mark.parametrize(
    ("library", "expr", "value"),
    [
        # As the libraries read them; taskq's dialects refuse all of them.
        ("celery", "0 0 * * mon#1", "every Monday"),
        ("apscheduler3", "0 0 * * mon#1", "every Monday"),
        ("apscheduler3", "0 0 * * MON-7", "every Monday"),
        ("apscheduler3", "0 0 * * mon-fri/2", "Monday to Friday"),
        ("apscheduler3", "0 0 1 jan-mar/2 *", "January to March"),
        ("apscheduler3", "0 0 last-3 * *", "the last day"),
        ("croniter", "1-1 * * * *", "every minute"),
        ("croniter", "0 0 * * mon-mon", "every day"),
        ("croniter", "0 0-0 * * *", "every hour"),
    ],
)
def test_what_a_library_misreads_in_silence_is_refused(library, expr, value):
    start = datetime(2026, 11, 23, 12, tzinfo=UTC)

    # Given an expression that the library accepts, and reads as something else
    assert ORACLES[library](expr, "UTC", start, start + timedelta(days=60), 9), value

    # Then taskq says what is wrong with it
    with pytest.raises(ValueError, match=r"use"):
        cron(expr, dialect=library)


@pytest.mark.parametrize(
    ("expr", "fires"),
    [
        ("0 0 13 * 5#2", ["12-11", "12-13", "01-08", "01-13"]),  # croniter: the 11th, then 01-08
        ("0 0 15W * 1", ["11-30", "12-07", "12-14", "12-15"]),  # croniter: 12-15, then 01-15
        ("0 0 * * 1,5#2", ["11-30", "12-07", "12-11", "12-14"]),  # croniter refuses it
        ("0 0 1W,20 * *", ["12-01", "12-20", "01-01", "01-20"]),  # croniter refuses it
    ],
)
def test_what_croniter_drops_is_kept(expr, fires):
    start = datetime(2026, 11, 23, 12, tzinfo=UTC)

    assert [f"{fire:%m-%d}" for fire in cron(expr).fires(start, 4)] == fires


def test_a_wrapped_range_with_a_step_goes_on_counting():
    # croniter: 22 and 2
    found = cron("0 22-3/3 * * *", dialect="croniter").fires(datetime(2026, 1, 1, tzinfo=UTC), 2)

    assert [fire.hour for fire in found] == [1, 22]


@pytest.mark.parametrize("text", ["H H", "H/15 *", "H(10-20) H(1-5)", "H(0-29)/7 H"])
@pytest.mark.parametrize("name", ["a", "b", "nightly", "ü"])
def test_h_is_the_value_that_croniter_gives(text, name):
    from croniter import croniter

    start = datetime(2026, 11, 23, 12)
    theirs = croniter(f"{text} * * *", start, ret_type=datetime, hash_id=name)

    ours = cron(f"{text} * * *", hash_id=name).fires(start.replace(tzinfo=UTC), 9)

    assert [fire.replace(tzinfo=None) for fire in ours] == [theirs.get_next() for _ in range(9)]
