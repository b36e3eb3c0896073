"""Starting, pausing and stopping as a whole: APScheduler 3 and taskq side by side."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MISSED
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.schedulers import SchedulerAlreadyRunningError, SchedulerNotRunningError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from taskq import TaskQ, at, every
from tests.conformance.apscheduler.case import case
from tests.conformance.apscheduler.sides import RUNS, SECOND, Apscheduler, note, note_in_thread
from tests.support.waiting import eventually


def now() -> datetime:
    return datetime.now(UTC)


@case(
    "A27",
    "better",
    "Two schedulers on one store, and single dates",
    apscheduler="some run twice, and one of the schedulers dies while `running` stays true",
    taskq="each runs once, and both stay",
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_two_on_one_store_with_dates(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    look, both = RedisJobStore.get_due_jobs, threading.Barrier(2)

    def at_once(self: Any, when: datetime) -> Any:
        due = look(self, when)
        with contextlib.suppress(threading.BrokenBarrierError):
            # and one of them is a little slower
            if due and both.wait(5):
                time.sleep(0.2)
        return due

    with aps.started(paused=True) as one:
        for _ in range(6):
            one.add_job(note_in_thread, DateTrigger(now()), misfire_grace_time=None)
    # Given two that look at the same moment
    monkeypatch.setattr(RedisJobStore, "get_due_jobs", at_once)
    with aps.started(BackgroundScheduler) as one, aps.started(BackgroundScheduler) as two:
        schedulers = [one, two]
        await eventually(lambda: not all(each._thread.is_alive() for each in schedulers))
        await eventually(lambda: len(RUNS) >= 7)
        assert all(each.running for each in schedulers)

    async with q.worker(scheduler=False), q.scheduler() as one, q.scheduler() as two:
        due = now() + 0.3 * SECOND
        for number in range(6):
            await q.schedules.add(f"s{number}", at(due), task.s())
        await eventually(lambda: len(fires) == 6)
        leads = [each.term is not None for each in (one, two)]
    assert Counter(leads) == {True: 1, False: 1}
    assert len(fires) == 6


@case(
    "A33",
    "same",
    "`shutdown(wait=True)` while a thread runs a job",
    apscheduler="waits until it has ended",
    taskq="the same, for as long as `--grace`",
)
@case(
    "A35",
    "better",
    "`shutdown(wait=True)` while a coroutine runs",
    apscheduler="cancels it, and is still `running` when the call returns",
    taskq="waits for it as for a thread",
)
async def test_stopping_waits(aps: Apscheduler, q: TaskQ) -> None:
    begun, ended = threading.Event(), threading.Event()
    gate = threading.Event()

    def in_thread() -> None:
        begun.set()
        gate.wait(0.5)
        ended.set()

    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_job(in_thread, DateTrigger(now()))
    scheduler.start()
    # Given a scheduler that is not in the middle of submitting it, which would be its end
    await eventually(lambda: begun.is_set() and not scheduler.get_jobs())
    scheduler.shutdown(wait=True)
    assert ended.is_set()

    begun.clear()

    async def coroutine() -> None:
        begun.set()
        await asyncio.sleep(0.3)
        RUNS.append(now())

    with aps.started(stored=False) as asynchronous:
        asynchronous.add_job(coroutine, DateTrigger(now()))
        await eventually(begun.is_set)
        asynchronous.shutdown(wait=True)
        assert asynchronous.running
        await eventually(lambda: aps.events.count(EVENT_JOB_ERROR) == 1)
        await eventually(lambda: not asynchronous.running)
        assert RUNS == []

    for function in (in_thread, coroutine):
        begun.clear()
        ended.clear()
        work = q.task(name=f"shop.{function.__name__}")(function)
        async with q.worker():
            job = await work.enqueue()
            await eventually(begun.is_set)
        assert str(await job.status()) == "succeeded"
        assert ended.is_set() == (function is in_thread)
    assert len(RUNS) == 1


@case(
    "A34",
    "different",
    "`shutdown(wait=False)` while a job runs",
    apscheduler="returns at once, and the job runs on in its thread",
    taskq="without a grace the job goes back to the queue, and another worker runs it",
)
async def test_stopping_without_waiting(aps: Apscheduler, q: TaskQ) -> None:
    begun, gate = threading.Event(), threading.Event()

    def in_thread() -> None:
        begun.set()
        gate.wait(5)

    with aps.started(BackgroundScheduler, stored=False) as scheduler:
        scheduler.add_job(in_thread, DateTrigger(now()))
        await eventually(lambda: begun.is_set() and not scheduler.get_jobs())
        scheduler.shutdown(wait=False)
        assert not scheduler.running
        assert aps.events.count(EVENT_JOB_EXECUTED) == 0
        gate.set()
        await eventually(lambda: aps.events.count(EVENT_JOB_EXECUTED) == 1)

    runs: list[int] = []

    @q.task
    async def slow() -> None:
        runs.append(1)
        if len(runs) == 1:
            await asyncio.sleep(30)

    async with q.worker(grace=0):
        job = await slow.enqueue()
        await eventually(lambda: len(runs) == 1)
    assert str(await job.status()) in ("queued", "scheduled")
    async with q.worker():
        await job.result(timeout=5)
    assert len(runs) == 2


@case(
    "A36",
    "different",
    "Started twice, stopped twice, started again",
    apscheduler="the first two are errors; the third works, without the jobs it had in memory",
    taskq="any number of workers and schedulers may be started, in one process too; schedules stay",
)
async def test_starting_twice(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started(BackgroundScheduler, stored=False) as scheduler:
        scheduler.add_job(print, "interval", hours=1)
        with pytest.raises(SchedulerAlreadyRunningError):
            scheduler.start()
        scheduler.shutdown()
        with pytest.raises(SchedulerNotRunningError):
            scheduler.shutdown()
        scheduler.start()
        assert scheduler.get_jobs() == []

    async with q.scheduler(), q.scheduler(), q.worker(), q.worker():
        added = await q.schedules.add("s", every(hours=1), task.s())
    async with q.scheduler() as again:
        await eventually(lambda: again.term is not None)
        assert await q.schedules.get("s") == added


@case(
    "A37",
    "better",
    "The scheduler rests while a date passes",
    apscheduler="two seconds later it is missed",
    taskq="runs late when there is a scheduler again",
)
async def test_resting_while_a_date_passes(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    with aps.started() as scheduler:
        scheduler.pause()
        scheduler.add_job(note, DateTrigger(now() - 2 * SECOND))
        scheduler.resume()
        await eventually(lambda: aps.events.count(EVENT_JOB_MISSED) == 1)
        assert RUNS == []

    due = now() + SECOND
    await q.schedules.add("s", at(due), task.s())
    q._settings.offset.ms = 3_000
    async with q.worker():
        await eventually(lambda: len(fires) == 1)
    assert abs(fires[0] - due) < timedelta(milliseconds=1)


@case(
    "A38",
    "same",
    "`start(paused=True)`",
    apscheduler="no fires until `resume`",
    taskq="the same with `taskq worker --no-scheduler`, until one with a scheduler starts",
)
async def test_started_to_rest(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start(paused=True)
    scheduler.add_job(note, IntervalTrigger(seconds=0.1, timezone=UTC), id="s")
    await asyncio.sleep(0.3)
    assert RUNS == []
    scheduler.resume()
    await eventually(lambda: len(RUNS) >= 1)
    scheduler.shutdown(wait=False)

    await q.schedules.add("s", every(seconds=0.1), task.s())
    async with q.worker(scheduler=False):
        await asyncio.sleep(0.3)
        assert fires == []
        async with q.scheduler():
            await eventually(lambda: len(fires) >= 1)
