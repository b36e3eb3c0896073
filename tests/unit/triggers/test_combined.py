"""`any_of` and `all_of`: unions, meetings, and searches that come to an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq import all_of, any_of, at, every
from taskq.core.errors import ConfigError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def minutes_after(trigger, n):
    return [(fire - NOON) // timedelta(minutes=1) for fire in trigger.fires(NOON, n)]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_any_of_fires_with_each_and_once_where_they_meet(periods):
    trigger = any_of(*(every(minutes=period, anchor=NOON) for period in periods))

    wanted = [minute for minute in range(1, 400) if any(minute % p == 0 for p in periods)]

    assert minutes_after(trigger, 7) == wanted[:7]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=3))
def test_all_of_fires_where_all_meet(periods):
    trigger = all_of(*(every(minutes=period, anchor=NOON) for period in periods))

    meetings = (m for m in range(1, 90_000) if all(m % p == 0 for p in periods))

    assert minutes_after(trigger, 3) == list(islice(meetings, 3))


def test_parts_without_an_anchor_share_the_schedules():
    assert minutes_after(any_of(every(minutes=10), every(minutes=7)), 4) == [7, 10, 14, 20]
    assert minutes_after(all_of(every(minutes=10), every(minutes=4)), 2) == [20, 40]
    assert all_of(every(minutes=10), every(minutes=4)).next(NOON) == NOON + timedelta(minutes=20)


def test_all_of_what_never_meets_is_an_error_and_no_hang():
    odd = every(minutes=2, anchor=NOON + timedelta(minutes=1))

    with pytest.raises(ConfigError, match="do not fire together from 2026-11-23 12:00 UTC"):
        all_of(every(minutes=2, anchor=NOON), odd).next(NOON)


def test_all_of_ends_with_its_first_part_that_ends():
    assert all_of(every(hours=1, anchor=NOON), at(NOON)).next(NOON) is None


def test_any_of_begins_with_the_earliest_even_a_late_one():
    assert any_of(every(hours=1), at(NOON - timedelta(hours=3))).begin(NOON) == NOON - timedelta(
        hours=3
    )


def test_the_jitter_is_the_largest_of_the_parts():
    assert any_of(every(hours=1, jitter=3), every(hours=2, jitter=7)).jitter == 7


@pytest.mark.parametrize("parts", [(), ("0 8 * * *",), [every(hours=1)] * 33])
def test_only_a_few_triggers_can_be_combined(parts):
    with pytest.raises(ConfigError, match=r"combine"):
        any_of(*parts)


def test_combinations_are_not_deep():
    trigger = every(hours=1)
    for _ in range(8):
        trigger = all_of(trigger)

    assert trigger.next(NOON) == NOON + timedelta(hours=1)
    with pytest.raises(ConfigError, match="9 levels deep"):
        any_of(trigger)
