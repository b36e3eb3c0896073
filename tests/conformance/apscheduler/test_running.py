"""What becomes of due and late fires and of what they run: APScheduler 3 and taskq side by side."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_JOB_SUBMITTED,
)
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from taskq import ConfigError, JobFailed, TaskQ, at, every
from taskq.broker.keys import Keys
from taskq.broker.schedules import ScheduleStore
from tests.conformance.apscheduler.case import case
from tests.conformance.apscheduler.sides import RUNS, SECOND, Apscheduler, note
from tests.support.waiting import eventually

MINUTE = timedelta(minutes=1)


def now() -> datetime:
    return datetime.now(UTC)


@case(
    "A02",
    "same",
    "A date five days ago, with no limit of grace",
    apscheduler="runs once, and is gone",
    taskq="the same, and no limit is the default",
)
@case(
    "A03",
    "same",
    "A date half a second ago",
    apscheduler="runs once: its second of grace is not over",
)
@pytest.mark.parametrize(
    ("ago", "grace"), [(timedelta(days=5), {"misfire_grace_time": None}), (0.5 * SECOND, {})]
)
async def test_past_dates_run_once(
    ago: timedelta, grace: Any, aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    with aps.started() as scheduler:
        scheduler.add_job(note, DateTrigger(now() - ago), id="s", **grace)
        await eventually(lambda: aps.events.count(EVENT_JOB_EXECUTED) == 1)
        assert scheduler.get_jobs() == []
        assert len(RUNS) == 1

    async with q.worker():
        await q.schedules.add("s", at(now() - ago), task.s())
        await eventually(lambda: len(fires) == 1)
        assert await q.schedules.get("s") is None


def six_missed(aps: Apscheduler, scheduler: Any, **options: Any) -> list[datetime]:
    """Six fires of an interval of a minute for which nobody was there; gives them."""
    start = now() - 6.3 * MINUTE
    slots = [start + n * MINUTE for n in range(1, 7)]
    trigger = IntervalTrigger(minutes=1, start_date=start, timezone=UTC)
    scheduler.add_job(
        note, trigger, id="s", coalesce=False, next_run_time=slots[0], max_instances=1, **options
    )
    return slots


async def six_missed_of(q: TaskQ, task: Any, **options: Any) -> list[datetime]:
    """The same in taskq."""
    anchor = now() - 0.3 * MINUTE
    trigger = every(minutes=1, anchor=anchor)
    added = await q.schedules.add("s", trigger, task.s(), coalesce="all", **options)
    assert added.next_fire is not None
    q._settings.offset.ms = 6 * 60_000
    return [added.next_fire + n * MINUTE for n in range(6)]


@case(
    "A06",
    "same",
    "A fire each minute, 6 minutes without a process, `coalesce=False`, no limit of grace",
    apscheduler="all six run, one after another",
    taskq="the same, `coalesce='all'`; each is a job of its own",
)
@case(
    "A10",
    "different",
    "These six, with `max_instances=1`",
    apscheduler="are one instance",
    taskq="are six jobs: `overlap=1` is refused with `coalesce='all'`, `queue_one` makes one after "
    "another",
)
async def test_all_that_was_missed(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    with aps.started() as scheduler:
        slots = six_missed(aps, scheduler, misfire_grace_time=None)
        await eventually(lambda: len(RUNS) == 6)
        submitted: Any = [e for e in aps.events if e.code == EVENT_JOB_SUBMITTED]
        assert [event.scheduled_run_times for event in submitted] == [slots]

    with pytest.raises(ConfigError, match="queue_one"):
        await six_missed_of(q, task, misfire=None, overlap=1)
    slots = await six_missed_of(q, task, misfire=None)
    async with q.worker():
        await eventually(lambda: len(fires) == 6)
    assert fires == slots


@case(
    "A07",
    "same",
    "The same, with a grace of three minutes",
    apscheduler="three are missed, three run, in order",
    taskq="the same, `misfire=180`; the missed ones are counted",
)
async def test_those_that_are_not_too_late(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    with aps.started() as scheduler:
        six_missed(aps, scheduler, misfire_grace_time=180)
        await eventually(lambda: aps.events.count(EVENT_JOB_EXECUTED) == 3)
        assert aps.events.count(EVENT_JOB_MISSED) == 3

    slots = await six_missed_of(q, task, misfire=180)
    async with q.worker():
        await eventually(lambda: len(fires) == 3)
    info = await q.schedules.get("s")
    assert info is not None
    assert (fires, info.skipped) == (slots[3:], 3)


@case(
    "A08",
    "different",
    "A run that waits for others in the pool",
    apscheduler="its grace passes meanwhile: it was due in time, and is missed",
    taskq="`misfire` applies until the job is made; `expires=` limits its wait in the queue",
)
async def test_waiting_for_a_place(aps: Apscheduler, q: TaskQ, fires: list[datetime]) -> None:
    pool = {"default": ThreadPoolExecutor(1)}
    with aps.started(stored=False, executors=pool) as scheduler:
        for _ in range(3):
            scheduler.add_job(time.sleep, DateTrigger(now()), args=[1.2])
        await eventually(lambda: aps.events.count(EVENT_JOB_MISSED) == 2)
        assert aps.events.count(EVENT_JOB_EXECUTED) == 1

    @q.task
    async def slow() -> None:
        await asyncio.sleep(0.6)
        fires.append(now())

    async with q.worker(concurrency=1):
        due = now()
        for number in range(3):
            await q.schedules.add(f"s{number}", at(due), slow.s(), misfire=1)
        await eventually(lambda: len(fires) == 3)
    # The last began later than `misfire` allows fires to be
    assert fires[-1] - due > 1.8 * SECOND


@case(
    "A09",
    "same",
    "A run that takes longer than its interval, `max_instances=1`",
    apscheduler="fires meanwhile are left out, reported, and never made up for",
    taskq="the same with `overlap='skip'`, and counted; `queue_one` makes up for one",
)
async def test_a_run_longer_than_its_interval(
    aps: Apscheduler, q: TaskQ, fires: list[datetime]
) -> None:
    gate = asyncio.Event()

    async def slow() -> None:
        RUNS.append(now())
        await gate.wait()

    with aps.started(stored=False) as scheduler:
        scheduler.add_job(slow, IntervalTrigger(seconds=0.1, timezone=UTC), max_instances=1)
        await eventually(lambda: aps.events.count(EVENT_JOB_MAX_INSTANCES) >= 2)
        assert len(RUNS) == 1
        gate.set()
        await eventually(lambda: len(RUNS) >= 3)
        told: dict[int, set[datetime]] = {
            EVENT_JOB_MAX_INSTANCES: set(),
            EVENT_JOB_SUBMITTED: set(),
        }
        for event in aps.events:
            if event.code in told:
                told[event.code].update(getattr(event, "scheduled_run_times"))  # noqa: B009
        assert told[EVENT_JOB_MAX_INSTANCES].isdisjoint(told[EVENT_JOB_SUBMITTED])

    gate.clear()
    work = q.task(name="shop.slow")(slow)
    RUNS.clear()
    await q.schedules.add("s", every(seconds=0.1), work.s())

    async def skipped() -> bool:
        info = await q.schedules.get("s")
        return info is not None and info.skipped >= 2

    async with q.worker():
        await eventually(skipped)
        assert len(RUNS) == 1
        gate.set()
        await eventually(lambda: len(RUNS) >= 2)


@case(
    "A12",
    "same",
    "A run that raises an exception",
    apscheduler="an event with the error and its traceback; the next fire comes",
    taskq="the same: the job has failed with both, and the next fire comes",
)
@case(
    "A13",
    "same",
    "A run that calls `sys.exit`",
    apscheduler="fails like any other run",
)
@pytest.mark.parametrize("way", ["raise", "exit"])
async def test_a_run_that_raises(way: str, aps: Apscheduler, q: TaskQ) -> None:
    def fail() -> None:
        RUNS.append(now())
        if way == "exit":
            sys.exit(3)
        raise LookupError("no such shop")

    with aps.started(stored=False) as scheduler:
        scheduler.add_job(fail, IntervalTrigger(seconds=0.1, timezone=UTC))
        await eventually(lambda: aps.events.count(EVENT_JOB_ERROR) >= 2)
        event: Any = next(e for e in aps.events if e.code == EVENT_JOB_ERROR)
        assert isinstance(event.exception, SystemExit if way == "exit" else LookupError)
        assert "in fail" in event.traceback

    RUNS.clear()
    failing = q.task(name="shop.fail", retry=0)(fail)
    await q.schedules.add("s", every(seconds=0.1), failing.s())
    async with q.worker():
        await eventually(lambda: len(RUNS) >= 2)
        job = await failing.enqueue()
        with pytest.raises(JobFailed, match="SystemExit" if way == "exit" else "no such shop") as e:
            await job.result(timeout=5)
        assert "in fail" in e.value.traceback


@case(
    "A14",
    "different",
    "A listener that raises",
    apscheduler="it is logged, and the others are called",
    taskq="there are no listeners; middleware is part of the attempt, and its error is the job's; "
    "other jobs go on",
)
async def test_a_listener_that_raises(aps: Apscheduler, q: TaskQ) -> None:
    def broken(_: Any) -> None:
        raise LookupError

    with aps.started(stored=False) as scheduler:
        scheduler.add_listener(broken)
        scheduler._listeners.reverse()
        scheduler.add_job(note, DateTrigger(now()))
        await eventually(lambda: aps.events.count(EVENT_JOB_EXECUTED) == 1)

    @q.middleware
    async def breaks(job: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        if job.task == "shop.bad":
            raise LookupError("broken middleware")
        return await call_next(job)

    async def name() -> str:
        return "ran"

    bad, good = (q.task(name=f"shop.{which}", retry=0)(name) for which in ("bad", "good"))
    async with q.worker():
        with pytest.raises(JobFailed, match="broken middleware"):
            await (await bad.enqueue()).result(timeout=5)
        assert await (await good.enqueue()).result(timeout=5) == "ran"


@case(
    "A41",
    "same",
    "An error of the store when it is asked for what is due",
    apscheduler="asks again after `jobstore_retry_interval`, 10 s",
    taskq="the same, after a moment that grows to seconds",
)
async def test_an_error_of_the_store_that_is_asked(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = RedisJobStore.get_due_jobs, ScheduleStore.due
    left = {"theirs": 2, "ours": 2}

    def failing(self: Any, *args: Any) -> Any:
        left["theirs"] -= 1
        if left["theirs"] >= 0:
            raise redis.exceptions.ConnectionError("the store had a moment")
        return theirs(self, *args)

    async def failing_too(self: Any, *args: Any, **options: Any) -> Any:
        left["ours"] -= 1
        if left["ours"] >= 0:
            raise ConnectionError("the store had a moment")
        return await ours(self, *args, **options)

    monkeypatch.setattr(RedisJobStore, "get_due_jobs", failing)
    with aps.started(jobstore_retry_interval=0.1) as scheduler:
        scheduler.add_job(note, DateTrigger(now()), misfire_grace_time=None)
        await eventually(lambda: len(RUNS) == 1)

    monkeypatch.setattr(ScheduleStore, "due", failing_too)
    monkeypatch.setattr("taskq.schedules.election.LONGEST_PAUSE", 0.2)
    await q.schedules.add("s", at(now()), task.s())
    async with q.worker():
        await eventually(lambda: len(fires) == 1)
    assert max(left.values()) < 0


@case(
    "A43",
    "better",
    "A coroutine that blocks the event loop for longer than a second",
    apscheduler="jobs that are due meanwhile are missed",
    taskq="jobs that are due meanwhile run late",
)
async def test_a_blocked_loop(aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]) -> None:
    async def block(seconds: float) -> None:
        # What everybody is told not to do
        time.sleep(seconds)  # noqa: ASYNC251

    begin = now() + 0.05 * SECOND
    with aps.started(stored=False) as scheduler:
        scheduler.add_job(block, DateTrigger(begin), args=[1.2])
        scheduler.add_job(note, DateTrigger(begin + 0.05 * SECOND))
        await eventually(lambda: aps.events.count(EVENT_JOB_MISSED) == 1)
        assert RUNS == []

    blocking = q.task(name="shop.block")(block)
    async with q.worker():
        begin = now() + 0.3 * SECOND
        await q.schedules.add("a", at(begin), blocking.s(1.2))
        await q.schedules.add("b", at(begin + 0.05 * SECOND), task.s())
        await eventually(lambda: len(fires) == 1)


@case(
    "A44",
    "better",
    "A lambda or plain function that returns a coroutine",
    apscheduler="reported as executed; the coroutine never runs",
    taskq="the coroutine runs, and the job has its result",
)
async def test_a_coroutine_nobody_awaits(aps: Apscheduler, q: TaskQ) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        with aps.started(stored=False) as scheduler:
            scheduler.add_job(lambda: note(), DateTrigger(now()))
            await eventually(lambda: aps.events.count(EVENT_JOB_EXECUTED) == 1)
            aps.events.clear()
        assert RUNS == []

        @q.task(retry=0)
        def gives() -> Any:
            return note()

        async with q.worker():
            await (await gives.enqueue()).result(timeout=5)
        assert len(RUNS) == 1


@case(
    "A45",
    "same",
    "A plain function under an asyncio scheduler",
    apscheduler="runs in a thread",
)
async def test_plain_functions_run_in_threads(aps: Apscheduler, q: TaskQ) -> None:
    threads: list[threading.Thread] = []

    def where() -> None:
        threads.append(threading.current_thread())

    with aps.started(stored=False) as scheduler:
        scheduler.add_job(where, DateTrigger(now()))
        await eventually(lambda: len(threads) == 1)
    work = q.task(name="shop.where")(where)
    await q.schedules.add("s", at(now()), work.s())
    async with q.worker():
        await eventually(lambda: len(threads) == 2)
    assert threading.main_thread() not in threads


@case(
    "A49",
    "same",
    "Jitter",
    apscheduler="up to so many seconds late, never early",
    taskq="the same",
)
async def test_jitter_is_never_early(
    q: TaskQ, task: Any, look: redis.Redis, namespace: str
) -> None:
    base = now() + 5 * MINUTE
    theirs = IntervalTrigger(minutes=10, start_date=base, timezone=UTC, jitter=10)
    drawn = [theirs.get_next_fire_time(None, now()) - base for _ in range(200)]
    assert min(drawn) >= timedelta(0)
    assert 5 * SECOND < max(drawn) <= 10 * SECOND

    # Given more of it, so that none runs within this test, and an end that is the fire time itself
    due = now() + 2 * SECOND
    async with q.scheduler():
        for number in range(30):
            await q.schedules.add(f"s{number}", at(due), task.s(), jitter=3600, end=due)
        jobs = Keys(namespace).due
        await eventually(lambda: look.zcard(jobs) == 30)
    found: Any = look.zrange(jobs, 0, -1, withscores=True)
    late = [instant / 1000 - due.timestamp() for _, instant in found]
    assert min(late) >= -0.001  # stored in milliseconds
    assert 1800 < max(late) <= 3600
