"""What a tick does with late fires: misfire, coalesce, overlap, jitter and what is next."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from taskq import ConfigError, at, cron, every
from taskq.broker.schedules import DueSchedule, Firing
from taskq.codec.envelope import unpack_envelope
from taskq.core.job import Fire
from taskq.schedules.planner import job_id, plan
from taskq.schedules.policy import Policy
from taskq.schedules.spec import Spec, from_ms, to_ms

START = datetime(2026, 1, 1, tzinfo=UTC)
T0 = to_ms(START)
SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000


def spec(trigger: Any = None, **policy: Any) -> Spec:
    trigger = trigger or every(minutes=10, anchor=START)
    return Spec(
        task="t", payload=b"p", trigger=trigger, queue="mail", priority=7, policy=Policy(**policy)
    )


def fired(given: Spec, late: int, *, first: int = T0, waits: bool = False) -> Firing:
    return plan(DueSchedule("s", "r", first, None, waits), given, first + late)


def slots(firing: Firing) -> list[int]:
    """The fire times that are made, in minutes from the first."""
    return [(job.slot - T0) // MINUTE for job in firing.jobs]


def test_a_fire_in_time_is_made_and_the_next_follows():
    planned = fired(spec(), 0)

    assert (slots(planned), planned.left_out) == ([0], 0)
    assert planned.following == T0 + 10 * MINUTE
    assert planned.until == T0 + 10 * MINUTE
    assert planned.lane == "mail/7"


def test_before_its_time_a_plan_is_made_as_of_its_time():
    assert fired(spec(), -2_000) == fired(spec(), 0)


@pytest.mark.parametrize(
    ("policy", "late_minutes", "made", "left_out"),
    [
        # the latest of those that were missed, by default
        ({}, 5, [0], 0),
        ({}, 35, [30], 3),
        ({"coalesce": "earliest"}, 35, [0], 3),
        ({"coalesce": "all"}, 35, [0, 10, 20, 30], 0),
        ({"coalesce": "all", "max_catchup": 2}, 35, [20, 30], 2),
        # none that is too late
        ({"misfire": 600}, 35, [30], 3),
        ({"misfire": 240}, 35, [], 4),
        ({"misfire": 0}, 0, [0], 0),
        # up to a second is in time
        ({"misfire": 0}, 1 / 60, [0], 0),
        ({"misfire": 0.01}, 1 / 60, [0], 0),
        ({"misfire": 0}, 1.001 / 60, [], 1),
        ({"misfire": 0}, 1, [], 1),
        ({"misfire": None}, 35, [30], 3),
        ({"misfire": 900, "coalesce": "earliest"}, 35, [20], 3),
        ({"misfire": 900, "coalesce": "all"}, 35, [20, 30], 2),
        ({"misfire": 60, "coalesce": "earliest"}, 35, [], 4),
        # and of a long time only a day's
        ({"coalesce": "all", "max_catchup": 1000}, 60 * 48, list(range(1440, 2881, 10)), 144),
    ],
)
def test_late_fires(policy: dict[str, Any], late_minutes: float, made: list[int], left_out: int):
    planned = fired(spec(**policy), round(late_minutes * MINUTE))

    assert (slots(planned), planned.left_out) == (made, left_out)
    assert planned.following == T0 + (late_minutes // 10 + 1) * 10 * MINUTE


def test_a_short_period_is_late_for_one_period_at_most():
    short = spec(every(seconds=10, anchor=START))

    planned = fired(short, 9 * SECOND)
    assert planned.until == T0 + 10 * SECOND
    assert len(planned.jobs) == 1
    # However late it is seen, the latest is less than a period late
    assert [job.slot - T0 for job in fired(short, 65 * SECOND).jobs] == [60 * SECOND]


def test_a_fire_that_waits_for_its_last_run_is_not_late_because_of_it():
    strict = spec(misfire=0, overlap="queue_one")

    assert slots(fired(strict, 5 * MINUTE)) == []
    assert slots(fired(strict, 5 * MINUTE, waits=True)) == [0]


def test_a_long_silence_costs_no_long_walk(monkeypatch: pytest.MonkeyPatch):
    # Given a fire a second, and nobody for a year
    given = spec(every(seconds=1, anchor=START))
    following = Spec.following
    asked: list[int] = []

    def counted(self: Spec, slot: int) -> int | None:
        asked.append(slot)
        return following(self, slot)

    monkeypatch.setattr(Spec, "following", counted)

    planned = fired(given, 365 * DAY + 500)

    assert [job.slot - T0 for job in planned.jobs] == [365 * DAY]
    assert planned.following == T0 + 365 * DAY + SECOND
    assert planned.left_out >= 50
    assert "not counted" in planned.why
    assert len(asked) < 100


def test_a_long_silence_catches_up_with_the_latest():
    planned = fired(spec(every(seconds=1, anchor=START), coalesce="all", misfire=None), 10 * DAY)

    assert [job.slot for job in planned.jobs] == [
        T0 + 10 * DAY - n * SECOND for n in range(99, -1, -1)
    ]


@pytest.mark.parametrize("wanted", [1, 3, 100])
@pytest.mark.parametrize(
    ("expr", "hours"),
    [
        # heaps of fires, and long gaps between them
        ("* * 8 * * *", 20),
        ("* * 8 * * *", 8.5),
        ("*/7 1,2 8 1,3 * *", 24 * 50),
        ("0 0 0 1 1 *", 24 * 365 * 70),
        ("*/2 * * * * *", 3),
    ],
)
def test_after_a_long_silence_the_latest_fires_are_the_latest(expr: str, hours: float, wanted: int):
    trigger = cron(expr, seconds="first")
    given = spec(trigger, coalesce="all", max_catchup=wanted, misfire=None)
    first, now = given.begin(T0), T0 + int(hours * HOUR)
    assert first is not None

    planned = plan(DueSchedule("s", "r", first, None, False), given, now)

    # By counting all of a day
    slots: list[int] = []
    slot = given.following(max(first, now - DAY) - 1)
    while slot is not None and slot <= now:
        slots.append(slot)
        slot = given.following(slot)
    assert [job.slot for job in planned.jobs] == slots[-wanted:]
    assert planned.following == slot


def test_the_last_fire_is_followed_by_none():
    once = spec(at(START))

    assert fired(once, 0).following is None
    assert fired(once, 3 * DAY).until is None
    assert slots(fired(once, 3 * DAY)) == [0]


class Fails(type(every(seconds=1))):
    """Every ten minutes, and from the third fire on nobody knows."""

    def _next(self, after: datetime) -> datetime | None:
        if after >= START + timedelta(minutes=20):
            raise RuntimeError("it is broken")
        return super()._next(after)


@pytest.mark.parametrize(
    ("policy", "first", "made"),
    [
        ({}, 20, [20]),
        ({}, 0, [20]),
        ({"coalesce": "all"}, 0, [0, 10, 20]),
        ({"coalesce": "earliest"}, 0, [0]),
        ({"coalesce": "earliest", "misfire": 300}, 0, [20]),
        ({"misfire": 60}, 0, []),
    ],
)
def test_what_is_due_is_made_though_what_follows_cannot_be_computed(
    policy: dict[str, Any], first: int, made: list[int]
):
    failing = spec(Fails(timedelta(minutes=10), START), **policy)
    due = DueSchedule("s", "r", T0 + first * MINUTE, None, False)

    planned = plan(due, failing, T0 + 25 * MINUTE)

    assert slots(planned) == made
    assert planned.following is None
    assert planned.broken == "RuntimeError: it is broken"


def test_an_end_is_the_last_moment_of_a_fire():
    ending = spec(end=T0 + 20 * MINUTE)

    assert fired(ending, 0, first=T0 + 10 * MINUTE).following == T0 + 20 * MINUTE
    assert fired(ending, 0, first=T0 + 20 * MINUTE).following is None


def test_a_start_is_the_first_moment_of_a_fire():
    starting = spec(start=T0 + 25 * MINUTE)

    assert starting.begin(T0) == T0 + 30 * MINUTE
    assert spec(start=T0 + 30 * MINUTE).begin(T0) == T0 + 30 * MINUTE


def test_an_instant_within_a_millisecond_is_never_early():
    odd = spec(at(START + timedelta(microseconds=1_500)))

    assert odd.begin(T0) == T0 + 2
    assert odd.following(T0 + 2) is None


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (None, ("skip", 1)),
        ("skip", ("skip", 1)),
        ("queue_one", ("wait", 1)),
        ("allow", ("allow", 1)),
        ("cancel_previous", ("cancel", 1_000_000)),
        (3, ("skip", 3)),
    ],
)
def test_overlaps(overlap: Any, expected: tuple[str, int]):
    planned = fired(spec(overlap=overlap), 0)

    assert (planned.overlap, planned.limit) == expected


def test_catching_up_with_all_runs_one_after_another():
    assert fired(spec(coalesce="all"), 0).overlap == "wait"


def test_jitter_is_late_never_early_and_always_the_same():
    jittery = spec(every(minutes=10, anchor=START, jitter=60))
    late = [
        fired(jittery, 0, first=T0 + n * 10 * MINUTE).jobs[0].due - T0 - n * 10 * MINUTE
        for n in range(200)
    ]

    assert 0 <= min(late) < 5_000
    assert 55_000 < max(late) <= 60_000
    assert late[0] == fired(jittery, 0).jobs[0].due - T0
    # And the grid of fire times does not move with it
    assert fired(jittery, 0).following == T0 + 10 * MINUTE


def test_jitter_ends_before_the_next_fire():
    wide = spec(every(seconds=5, anchor=START), jitter=20.0)

    dues = [fired(wide, 0, first=T0 + n * 5_000).jobs[0].due - T0 for n in range(200)]

    assert all(n * 5_000 <= due < (n + 1) * 5_000 for n, due in enumerate(dues))


def test_a_job_carries_its_fire():
    [job] = fired(spec(cron("0 8 * * *")), 0, first=to_ms(START.replace(hour=8))).jobs

    assert job.id == "s@2026-01-01T08:00:00Z"
    envelope = unpack_envelope(job.envelope)
    assert envelope.fire == Fire("s", job.slot)
    assert envelope.task == "t"


def test_ids_of_jobs_tell_every_millisecond():
    assert job_id("s", T0 + 5) == "s@2026-01-01T00:00:00.005Z"
    assert from_ms(T0) == START


def test_fires_too_large_for_one_call_go_on_with_the_next():
    given = replace(spec(coalesce="all"), payload=b"x" * 1_500_000)
    left, made, ticks = T0, list[int](), 0
    while left <= T0 + 45 * MINUTE:
        planned = fired(given, T0 + 45 * MINUTE - left, first=left)
        assert sum(len(job.envelope) for job in planned.jobs) <= 4_194_304
        # The plan holds until then, though the next fire is due already
        assert planned.until == T0 + 50 * MINUTE
        assert planned.left_out == 0
        made += slots(planned)
        left, ticks = planned.following or 0, ticks + 1

    assert made == [0, 10, 20, 30, 40]
    assert ticks == 3


def test_a_trigger_that_stands_still_is_an_error_and_no_endless_loop():
    class Still(type(every(seconds=1))):
        def _next(self, after: datetime) -> datetime | None:
            return after

    with pytest.raises(ConfigError, match="does not get past"):
        spec(Still(timedelta(seconds=1))).following(T0)
