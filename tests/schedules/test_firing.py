"""Schedules that fire: in time, late, over a run that goes on, changed, broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgpack
import pytest
import redis

from taskq import JobContext, JobState, TaskQ, all_of, any_of, at, cron, current_job, every
from taskq.broker.keys import Keys
from taskq.schedules.planner import plan
from taskq.schedules.scheduler import Scheduler
from taskq.schedules.spec import from_ms, to_ms
from tests.support.waiting import eventually

Now = Callable[[], datetime]
Later = Callable[[float], None]


class Runs:
    """What a task noted of its runs, and a gate they wait at when it is closed."""

    def __init__(self) -> None:
        self.jobs: list[JobContext] = []
        self.open = asyncio.Event()
        self.open.set()

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def fires(self) -> list[datetime | None]:
        return [job.scheduled_for for job in self.jobs]


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def task(q: TaskQ, runs: Runs) -> Any:
    @q.task(name="shop.note")
    async def note(text: str = "") -> str:
        runs.jobs.append(current_job())
        await runs.open.wait()
        return text

    return note


@pytest.fixture
async def scheduler(q: TaskQ, task: Any) -> AsyncIterator[Scheduler]:
    """A worker that runs the jobs, and one scheduler, which leads."""
    async with q.worker(["default"], scheduler=False), q.scheduler() as scheduler:
        await eventually(lambda: scheduler.term is not None)
        yield scheduler


async def test_a_fire_is_a_job_that_knows_its_schedule(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler
) -> None:
    added = await q.schedules.add("s", every(seconds=0.2), task.s("hello"))

    await eventually(lambda: len(runs) >= 2)

    first = runs.jobs[0]
    assert first.schedule_id == "s"
    assert first.scheduled_for == added.next_fire
    assert first.lateness is not None
    assert timedelta(0) <= first.lateness < timedelta(seconds=5)
    info = await q.job(first.id).info()
    assert (info.schedule_id, info.scheduled_for) == ("s", first.scheduled_for)
    assert info.args == ("hello",)
    # And the next one is a period later
    assert runs.fires[1] == added.next_fire + timedelta(seconds=0.2)


async def test_a_job_that_no_schedule_made_knows_none(
    task: Any, runs: Runs, scheduler: Scheduler
) -> None:
    job = await task.enqueue()
    await job.result(timeout=5)

    assert (runs.jobs[0].schedule_id, runs.jobs[0].scheduled_for) == (None, None)
    assert runs.jobs[0].lateness is None
    assert (await job.info()).schedule_id is None


async def test_a_change_is_noticed_at_once(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now
) -> None:
    # Given a leader with nothing to do for an hour
    await q.schedules.add("s", every(hours=1), task.s())
    await asyncio.sleep(0.2)

    began = asyncio.get_running_loop().time()
    await q.schedules.add("soon", at(now()), task.s())
    await eventually(lambda: len(runs) == 1)

    # Its own look would come half a second later on average; far less than that is a push
    print(f"ran {asyncio.get_running_loop().time() - began:.3f} s after it was added")
    assert runs.jobs[0].lateness is not None
    assert runs.jobs[0].lateness < timedelta(seconds=0.4)


async def test_a_past_instant_runs_at_once_and_leaves_no_schedule(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now
) -> None:
    await q.schedules.add("late", at(now() - timedelta(days=5)), task.s("x"))

    await eventually(lambda: len(runs) == 1)
    await eventually(lambda: _gone(q, "late"))
    # And its result is there
    assert await q.job(runs.jobs[0].id).result(timeout=5) == "x"


async def _gone(q: TaskQ, schedule: str) -> bool:
    return await q.schedules.get(schedule) is None


async def test_a_past_instant_may_replace_a_trigger_that_has_fired_since(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now
) -> None:
    await q.schedules.add("s", every(seconds=0.2), task.s("grid"))
    await eventually(lambda: len(runs) >= 2)
    past = now() - timedelta(days=1)

    await q.schedules.add("s", at(past), task.s("once"), replace=True)

    await eventually(lambda: _gone(q, "s"))
    await eventually(lambda: runs.jobs[-1].scheduled_for == _in_ms(past))


async def test_a_fire_of_the_trigger_before_is_not_made_again(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now, look: redis.Redis, keys: Keys
) -> None:
    # Given a schedule that began in the past, whose jobs are forgotten
    past = now() - timedelta(hours=1)
    grid = every(seconds=0.2)
    begins = any_of(at(past), grid)
    await q.schedules.add("s", begins, task.s(), coalesce="earliest", misfire=None, result_ttl=0)
    await eventually(lambda: len(runs) >= 2)
    assert runs.fires[0] == _in_ms(past)
    await eventually(lambda: look.exists(f"{keys.jobs}{runs.jobs[0].id}") == 0)

    # When its end is changed, it begins there again
    await q.schedules.modify("s", end=now() + timedelta(hours=1))
    count = len(runs)
    await eventually(lambda: len(runs) >= count + 2)

    assert runs.fires.count(_in_ms(past)) == 1


def _in_ms(instant: datetime) -> datetime:
    return from_ms(to_ms(instant))


async def test_an_instant_too_long_past_is_left_out(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    await q.schedules.add("late", at(now() - timedelta(hours=5)), task.s(), misfire=60)

    await eventually(lambda: _gone(q, "late"))

    # The server tells a look before the leader hears of it
    await eventually(lambda: "schedule late left out 1 fire: misfire" in caplog.text)
    assert len(runs) == 0


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({}, [60]),
        ({"coalesce": "earliest"}, [10]),
        ({"coalesce": "all"}, [10, 20, 30, 40, 50, 60]),
        ({"coalesce": "all", "overlap": "allow", "max_catchup": 2}, [50, 60]),
        ({"misfire": timedelta(minutes=1)}, []),
    ],
    ids=str,
)
async def test_after_an_hour_without_a_scheduler(
    q: TaskQ, task: Any, runs: Runs, later: Later, now: Now, look: redis.Redis, keys: Keys,
    caplog: pytest.LogCaptureFixture, options: dict[str, Any], made: list[int],
) -> None:  # fmt: skip
    # Given a fire each ten minutes, and nobody who makes it
    start = now()
    await q.schedules.add("s", every(minutes=10, anchor=start), task.s(), **options)
    later(65 * 60)

    # When somebody comes
    async with q.worker():
        await eventually(lambda: _next_is(q, "s", start + timedelta(minutes=70)))
        await eventually(lambda: len(runs) >= len(made))

    # Then what was missed is made as was said, and what was left out is counted and told
    minutes = [round((fire - start).total_seconds() / 60) for fire in runs.fires if fire]
    assert minutes == made
    info = await q.schedules.get("s")
    assert info is not None
    assert (info.fired, info.skipped) == (len(made), 6 - len(made))
    assert ("schedule s left out" in caplog.text) is (len(made) < 6)
    counters = [look.hgetall(key) for key in look.keys(keys.stats + "*")]
    assert sum(int(found.get(b"default:fired", 0)) for found in counters) == len(made)


async def _next_is(q: TaskQ, schedule: str, expected: datetime) -> bool:
    info = await q.schedules.get(schedule)
    assert info is not None
    assert info.next_fire is not None
    return abs(info.next_fire - expected) < timedelta(seconds=1)


# -------------------------------------------------------------------------------------- overlaps


async def _fires(scheduler: Scheduler, count: int) -> None:
    """Wait until so many fires were decided."""
    tally = scheduler.tally
    await eventually(lambda: tally.fired + tally.skipped >= count)


async def test_a_run_that_goes_on_is_skipped_over(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, look: redis.Redis, keys: Keys
) -> None:
    ear = look.pubsub()
    ear.subscribe(keys.skip_channel)
    runs.open.clear()
    await q.schedules.add("s", every(seconds=0.15), task.s())
    await _fires(scheduler, 4)

    # Then there is one run, and the others are told
    assert len(runs) == 1
    message = await eventually(lambda: _message(ear))
    assert msgpack.unpackb(message)[0::2] == ["s", 1]
    info = await q.schedules.get("s")
    assert info is not None
    assert info.skip_reason == "overlap"
    assert info.running == (runs.jobs[0].id,)
    # And when it ends, the next one begins
    runs.open.set()
    await eventually(lambda: len(runs) >= 2)
    ear.close()


def _message(ear: Any) -> bytes | None:
    found = ear.get_message(timeout=0)
    return found["data"] if found and found["type"] == "message" else None


async def test_one_fire_waits_for_a_run_that_goes_on(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler
) -> None:
    runs.open.clear()
    await q.schedules.add("s", every(seconds=0.3), task.s(), overlap="queue_one")
    await eventually(lambda: _waits(q))

    assert len(runs) == 1
    runs.open.set()
    await eventually(lambda: len(runs) >= 2)
    # One of those that came meanwhile, not all of them
    fires = [fire for fire in runs.fires[:2] if fire]
    assert fires[1] - fires[0] >= timedelta(seconds=0.3)


async def _waits(q: TaskQ) -> bool:
    info = await q.schedules.get("s")
    return info is not None and info.waiting


async def test_runs_may_overlap(q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler) -> None:
    runs.open.clear()
    await q.schedules.add("s", every(seconds=0.1), task.s(), overlap="allow")

    await eventually(lambda: len(runs) >= 4)
    runs.open.set()


async def test_so_many_runs_may_overlap(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler
) -> None:
    runs.open.clear()
    await q.schedules.add("s", every(seconds=0.1), task.s(), overlap=2)
    await _fires(scheduler, 5)

    assert len(runs) == 2
    runs.open.set()


async def test_a_fire_may_cancel_the_run_before_it(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler
) -> None:
    runs.open.clear()
    await q.schedules.add("s", every(seconds=0.3), task.s(), overlap="cancel_previous")
    await eventually(lambda: len(runs) >= 3)

    states = [await q.job(job.id).status() for job in runs.jobs[:2]]

    assert states == [JobState.CANCELLED] * 2
    runs.open.set()


async def test_a_run_by_hand_counts_as_a_run(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler
) -> None:
    runs.open.clear()
    added = await q.schedules.add("s", every(seconds=0.4), task.s("x"))
    job = await q.schedules.run_now("s")
    await _fires(scheduler, 1)

    # Its own fire was skipped, because this one runs
    assert [run.id for run in runs.jobs] == [job.id]
    info = await q.schedules.get("s")
    assert info is not None
    assert added.next_fire is not None
    assert info.last_fire is not None
    assert info.last_fire >= added.next_fire
    runs.open.set()
    assert await job.result(timeout=5) == "x"


# -------------------------------------------------------------------- jitter, expiry, bad schedules


async def test_jitter_makes_a_job_late_on_purpose(
    q: TaskQ, task: Any, scheduler: Scheduler, now: Now, look: redis.Redis, keys: Keys
) -> None:
    # An hour of it, so that it does not run within this test
    await q.schedules.add("s", at(now()), task.s(), jitter=timedelta(hours=1))

    await eventually(lambda: look.zcard(keys.due) == 1)
    [job_id] = look.zrange(keys.due, 0, -1)
    assert isinstance(job_id, bytes)
    assert await q.job(job_id.decode()).status() == JobState.SCHEDULED


async def test_a_broken_schedule_is_paused_and_the_others_go_on(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, look: redis.Redis, keys: Keys,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # Given a schedule that nobody can read, due before all others
    await q.schedules.add("broken", every(seconds=0.2), task.s(), paused=True)
    look.hset(keys.schedule_prefix + "broken", "s", b"\xc1 rubbish")
    await q.schedules.pause("broken")
    look.hdel(keys.schedule_prefix + "broken", "p")
    look.zadd(keys.schedules, {"broken": 1})
    # And some whose keys are no schedules at all, or have nonsense in them
    look.zadd(keys.schedules, {"nothing": 2, "text": 3})
    look.set(keys.schedule_prefix + "text", "text")
    await q.schedules.add("nonsense", every(seconds=0.2), task.s())
    look.hset(keys.schedule_prefix + "nonsense", mapping={"l": "nonsense"})
    await q.schedules.add("never", every(seconds=0.2), task.s())
    look.hset(keys.schedule_prefix + "never", mapping={"n": "nonsense"})
    await q.schedules.add("well", every(seconds=0.2), task.s())

    await eventually(lambda: len(runs) >= 2)

    for name in ("nonsense", "never"):
        await eventually(lambda name=name: any(job.schedule_id == name for job in runs.jobs))
    info = await q.schedules.get("broken")
    assert info is not None
    assert info.paused
    assert "not a schedule that this taskq can read" in str(info.pause_reason)
    assert "schedule broken is paused" in caplog.text
    assert scheduler.term == 1


async def _paused(q: TaskQ, schedule: str) -> bool:
    info = await q.schedules.get(schedule)
    return info is not None and info.paused


async def test_ninety_schedules_after_two_hours_without_anybody(
    q: TaskQ, task: Any, runs: Runs, later: Later, now: Now
) -> None:
    start = now()
    for number in range(90):
        await q.schedules.add(f"s{number}", every(minutes=1, anchor=start), task.s())
    later(7_200 + 30)

    # Each comes once, for the latest of its fires, and nothing more
    async with q.worker():
        await eventually(lambda: len(runs) >= 90)
        await asyncio.sleep(0.5)

    assert len(runs) == 90
    assert {round((fire - start).total_seconds()) for fire in runs.fires if fire} == {7_200}


async def test_the_last_fire_that_can_be_computed_is_made_before_the_pause(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # Given two that fire together soon, and then not for so long that nobody searches for it
    soon = now() + timedelta(seconds=0.5)
    once = (every(seconds=s, anchor=soon, immediate=True) for s in (1.0007, 1.0001))
    added = await q.schedules.add("s", all_of(*once), task.s())
    assert await q.schedules.preview("s", 3) == [added.next_fire]

    await eventually(lambda: _paused(q, "s"))

    await eventually(lambda: len(runs) == 1)
    info = await q.schedules.get("s")
    assert info is not None
    assert (info.fired, info.last_fire, info.next_fire) == (1, added.next_fire, None)
    assert "do not fire together" in str(info.pause_reason)
    await eventually(lambda: "schedule s is paused, because it cannot be fired" in caplog.text)
    assert scheduler.tally.paused == 1


async def test_more_late_schedules_than_are_planned_within_a_period_all_fire(
    q: TaskQ, task: Any, runs: Runs, later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given plans that are out of date within a second, and take over a second to make together
    def slowly(*given: Any) -> Any:
        time.sleep(0.01)
        return plan(*given)

    monkeypatch.setattr("taskq.schedules.leader.plan", slowly)
    names = {f"s{number}" for number in range(120)}
    await asyncio.gather(*(q.schedules.add(name, every(seconds=1), task.s()) for name in names))
    later(3_600)

    async with q.worker():
        await eventually(lambda: {job.schedule_id for job in runs.jobs} == names)


async def test_a_change_is_noticed_while_many_are_planned(
    q: TaskQ, task: Any, runs: Runs, later: Later, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*given: Any) -> Any:
        time.sleep(0.01)
        return plan(*given)

    for number in range(300):
        await q.schedules.add(f"s{number}", every(hours=1), task.s())
    later(7_200)
    monkeypatch.setattr("taskq.schedules.leader.plan", slowly)

    async with q.worker():
        await eventually(lambda: len(runs) >= 1)
        # Given one that is due before all that are left
        await q.schedules.add("first", at(now() - timedelta(days=1)), task.s())
        await eventually(lambda: any(job.schedule_id == "first" for job in runs.jobs))

    assert len(runs) < 300


async def test_a_schedule_of_a_task_nobody_here_knows_is_fired(
    q: TaskQ, task: Any, server: Any, namespace: str, scheduler: Scheduler, look: redis.Redis,
    keys: Keys,
) -> None:  # fmt: skip
    other = TaskQ(server.url, namespace=namespace)

    @other.task(name="other.task", queue="elsewhere")
    async def elsewhere() -> None: ...

    await other.schedules.add("s", every(seconds=0.2), elsewhere.s())

    await eventually(lambda: look.xlen(keys.lane("elsewhere", 5)) >= 1)
    await other.aclose()


async def test_sealed_schedules_fire_and_forged_ones_are_paused(
    server: Any, namespace: str, q: TaskQ, look: redis.Redis, keys: Keys
) -> None:
    signed = TaskQ(server.url, namespace=namespace, signing_keys=["0123456789" * 4])
    ran: list[str] = []

    @signed.task(name="shop.signed")
    async def note(text: str) -> None:
        ran.append(text)

    await signed.schedules.add("mine", every(seconds=0.2), note.s("mine"))
    spec = look.hget(keys.schedule_prefix + "mine", "s")
    # Given somebody copied the schedule under another id
    look.hset(keys.schedule_prefix + "copy", mapping={"v": "x", "s": spec, "n": 5, "a": 1, "m": 1})
    look.zadd(keys.schedules, {"copy": 5})
    async with signed.worker():
        await eventually(lambda: len(ran) >= 2)
        info = await signed.schedules.get("copy")

    assert info is not None
    assert "the seal" in str(info.pause_reason)
    await signed.aclose()


@pytest.fixture
async def yearly(server: Any, namespace: str, q: TaskQ) -> AsyncIterator[TaskQ]:
    """A signed schedule that fires each New Year's Day, and a worker that leads."""
    del q  # it removes what is left
    app = TaskQ(server.url, namespace=namespace, signing_keys=["0123456789" * 4])

    @app.task(name="shop.bonus")
    async def bonus() -> None: ...

    await app.schedules.add("bonus", cron("0 0 1 1 *", tz="UTC"), bonus.s())
    async with app.worker():
        yield app
    await app.aclose()


@pytest.mark.parametrize(
    "instant", ["2026-03-01", "2026-01-01", "2025-01-01", "1990-01-01", "1969-12-31", "nonsense"]
)
async def test_a_fire_that_the_sealed_trigger_does_not_give_is_not_made(
    yearly: TaskQ, look: redis.Redis, keys: Keys, instant: str, now: Now,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    # Given a server whose writer chooses when a schedule fires
    key = keys.schedule_prefix + "bonus"
    year = now().year
    slot: Any = instant
    if instant != "nonsense":
        slot = to_ms(datetime.fromisoformat(instant.replace("2026", str(year))).astimezone(UTC))
    look.hset(key, mapping={"v": "mine", "n": slot, "w": "1"})
    look.hdel(key, "l")
    look.zadd(keys.schedules, {"bonus": 1})
    look.publish(keys.schedule_channel, "changed")

    # Then no job is made of it, and it goes on as its trigger says
    due = datetime(year + 1, 1, 1, tzinfo=UTC)
    await eventually(lambda: look.zscore(keys.schedules, "bonus") == to_ms(due))
    assert "is not one of its trigger's" in caplog.text
    assert list(look.scan_iter(match=keys.jobs + "*")) == []
    info = await yearly.schedules.get("bonus")
    assert info is not None
    assert (info.next_fire, info.fired, info.paused) == (due, 0, False)


async def test_a_paused_schedule_that_is_listed_as_due_stays_paused(
    yearly: TaskQ, look: redis.Redis, keys: Keys
) -> None:
    await yearly.schedules.pause("bonus")
    look.zadd(keys.schedules, {"bonus": 1})
    look.publish(keys.schedule_channel, "changed")

    await eventually(lambda: look.zscore(keys.schedules, "bonus") == float("inf"))
    assert list(look.scan_iter(match=keys.jobs + "*")) == []


# ------------------------------------------------------------------------------------ the clock


async def test_an_hour_ahead_fires_once_and_an_hour_back_fires_nothing_twice(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, now: Now, later: Later
) -> None:
    start = now()
    await q.schedules.add("s", every(minutes=1, anchor=start), task.s())

    later(3600)
    await eventually(lambda: len(runs) == 1)
    await eventually(lambda: _next_is(q, "s", start + timedelta(minutes=61)))
    later(-3600)
    await asyncio.sleep(1.2)

    # Then it waits until the clock has caught up, and the leader is the same
    assert len(runs) == 1
    assert (scheduler.term, scheduler.tally.terms) == (1, 1)
    later(3660)
    await eventually(lambda: len(runs) == 2)
    assert len(set(runs.fires)) == 2


async def test_the_leaders_own_clock_is_never_asked(
    q: TaskQ, task: Any, runs: Runs, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moved in (3600.0, -3600.0):
        real = time.time
        monkeypatch.setattr(time, "time", lambda real=real, moved=moved: real() + moved)
        count = len(runs)
        await q.schedules.add(f"s{int(moved < 0)}", every(seconds=0.2), task.s())
        await eventually(lambda count=count: len(runs) >= count + 3)
        monkeypatch.setattr(time, "time", real)

    # To the millisecond, which none may be.
    late = [job.lateness for job in runs.jobs]
    assert all(by is not None and timedelta(0) <= by < timedelta(seconds=5) for by in late), late
    assert scheduler.tally.skipped == 0
