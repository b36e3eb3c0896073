"""APScheduler 3 and taskq, the installed ones: what becomes of stored schedules.

Where APScheduler fails its users, the failure is shown by running it, and taskq beside it. Both use
the same server.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
import redis
from apscheduler.events import (
    EVENT_JOB_ADDED,
    EVENT_JOB_MISSED,
    EVENT_JOB_REMOVED,
    EVENT_JOB_SUBMITTED,
)
from apscheduler.jobstores.base import ConflictingIdError
from apscheduler.jobstores.redis import RedisJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from taskq import ConfigError, ScheduleExists, TaskQ, at, cron, every
from taskq.broker.schedules import ScheduleStore
from tests.conformance.apscheduler.case import case
from tests.conformance.apscheduler.sides import RUNS, SECOND, Apscheduler, note, note_in_thread
from tests.support.waiting import eventually

MINUTE = timedelta(minutes=1)


@case(
    "A01",
    "better",
    "A date 5 s ago, with the default grace",
    apscheduler="never runs: one second late is too late, and the job is gone",
    taskq="runs at once",
)
async def test_a_date_just_past_is_dropped_by_apscheduler_and_run_by_taskq(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    past = datetime.now(UTC) - 5 * SECOND
    with aps.started() as scheduler:
        scheduler.add_job(note, DateTrigger(past))
        await eventually(lambda: aps.events.count(EVENT_JOB_MISSED) == 1)
        assert RUNS == []
        assert scheduler.get_jobs() == []
    told = [EVENT_JOB_ADDED, EVENT_JOB_SUBMITTED, EVENT_JOB_MISSED, EVENT_JOB_REMOVED]
    assert sorted(aps.events.codes()) == sorted(told)

    async with q.worker():
        await q.schedules.add("s", at(past), task.s())
        await eventually(lambda: len(fires) == 1)


@case(
    "A05",
    "same",
    "A fire each minute, 6 minutes without a process, `coalesce`",
    apscheduler="one run, for the latest fire; the phase stays",
)
async def test_after_a_pause_both_make_the_latest_and_keep_the_phase(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    # Given a fire each minute, and nobody for six
    start = datetime.now(UTC) - 6.3 * MINUTE
    with aps.started() as scheduler:
        trigger = IntervalTrigger(minutes=1, start_date=start, timezone=UTC)
        scheduler.add_job(
            note, trigger, id="s", coalesce=True, misfire_grace_time=None,
            next_run_time=start + MINUTE,
        )  # fmt: skip
        await eventually(lambda: len(RUNS) == 1)
        [submitted] = [e for e in aps.events if e.code == EVENT_JOB_SUBMITTED]
        assert submitted.scheduled_run_times == [start + 6 * MINUTE]
        assert scheduler.get_job("s").next_run_time == start + 7 * MINUTE

    trigger = every(minutes=1, anchor=datetime.now(UTC) - 0.3 * MINUTE)
    first = (await q.schedules.add("s", trigger, task.s())).next_fire
    assert first is not None
    q._settings.offset.ms = 6 * 60_000
    async with q.worker():
        await eventually(lambda: len(fires) >= 1)
    assert fires == [first + 5 * MINUTE]
    info = await q.schedules.get("s")
    assert info is not None
    assert info.next_fire == first + 6 * MINUTE


def gaps() -> list[timedelta]:
    """The times between runs."""
    return [later - earlier for earlier, later in pairwise(sorted(RUNS))]


@case(
    "A26",
    "better",
    "Two schedulers on one store",
    apscheduler="fire twice",
    taskq="each fire makes one job, however many there are",
)
async def test_two_on_one_store_fire_twice_and_taskq_once(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    with aps.started() as one:
        one.add_job(note_in_thread, IntervalTrigger(seconds=0.5, timezone=UTC), id="s")
    # Then one fire after another is made by both, within a moment of each other
    with aps.started(BackgroundScheduler), aps.started(BackgroundScheduler):
        await eventually(lambda: any(gap < 0.2 * SECOND for gap in gaps()), within=20)

    await q.schedules.add("s", every(seconds=0.3), task.s(), overlap="allow")
    async with q.worker(), q.scheduler(), q.scheduler():
        await eventually(lambda: len(fires) >= 6)

    assert Counter(fires).most_common(1)[0][1] == 1


@case(
    "A23",
    "better",
    "A restart that adds its interval again, `replace_existing`",
    apscheduler="the phase begins anew: frequent restarts starve long intervals",
    taskq="what is unchanged keeps its phase",
)
async def test_a_restart_with_replace_moves_the_phase_and_taskqs_does_not(
    aps: Apscheduler, q: TaskQ, task: Any
) -> None:
    def add(scheduler: AsyncIOScheduler) -> datetime:
        trigger = IntervalTrigger(hours=1, timezone=UTC)
        return scheduler.add_job(note, trigger, id="s", replace_existing=True).next_run_time

    with aps.started() as scheduler:
        first = add(scheduler)
    await asyncio.sleep(0.2)
    with aps.started() as scheduler:
        assert add(scheduler) - first >= timedelta(seconds=0.2)

    before = await q.schedules.add("s", every(hours=1), task.s(), replace=True)
    q._settings.offset.ms = 1_800_000
    assert await q.schedules.add("s", every(hours=1), task.s(), replace=True) == before


@case(
    "A21",
    "same",
    "An id that is there already",
    apscheduler="an error",
    taskq="the same error, unless the schedule says exactly the same",
)
async def test_the_same_id_again_is_refused_by_both(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started() as scheduler:
        scheduler.add_job(note, IntervalTrigger(hours=1, timezone=UTC), id="s")
        with pytest.raises(ConflictingIdError):
            scheduler.add_job(note, IntervalTrigger(hours=2, timezone=UTC), id="s")

    await q.schedules.add("s", every(hours=1), task.s())
    with pytest.raises(ScheduleExists):
        await q.schedules.add("s", every(hours=2), task.s())


@case(
    "A18",
    "better",
    "A trigger that never fires: 31 February, an end in the past",
    apscheduler="stays paused for ever",
    taskq="is refused",
)
async def test_a_trigger_that_never_fires_sits_there_for_ever_and_is_refused_by_taskq(
    aps: Apscheduler, q: TaskQ, task: Any
) -> None:
    over = datetime(2020, 1, 1, tzinfo=UTC)
    with aps.started() as scheduler:
        trigger = IntervalTrigger(days=1, start_date=over - SECOND, end_date=over, timezone=UTC)
        scheduler.add_job(note, trigger, id="s")
        assert scheduler.get_job("s").next_run_time is None

        february = CronTrigger(month=2, day=31, timezone=UTC)
        scheduler.add_job(note, february, id="t")
        assert scheduler.get_job("t").next_run_time is None

    with pytest.raises(ConfigError, match="would never fire"):
        await q.schedules.add("s", every(days=1, end=over), task.s())
    with pytest.raises(ConfigError):
        cron("0 0 31 2 *")


@case(
    "A30",
    "better",
    "A stored job that cannot be read",
    apscheduler="the next listing deletes it",
    taskq="it is paused with a reason, and kept",
)
async def test_what_cannot_be_read_is_deleted_by_apscheduler_and_paused_by_taskq(
    aps: Apscheduler, q: TaskQ, task: Any, look: redis.Redis, namespace: str
) -> None:
    jobs = f"{{{namespace}}}:aps:jobs"
    with aps.started() as scheduler:
        scheduler.add_job(note, IntervalTrigger(hours=1, timezone=UTC), id="s")
        look.hset(jobs, "s", b"rubbish")
        scheduler.get_jobs()
        assert not look.hexists(jobs, "s")

    await q.schedules.add("s", every(seconds=0.2), task.s())
    look.hset(f"{{{namespace}}}:schedule:s", "s", b"rubbish")
    async with q.scheduler():
        await eventually(lambda: _paused(q))
    assert [info.id for info in await q.schedules.list()] == ["s"]


async def _paused(q: TaskQ) -> bool:
    info = await q.schedules.get("s")
    return info is not None and info.paused


@case(
    "A40",
    "better",
    "One error of the store while it is updated",
    apscheduler="no job runs again, and `running` stays true",
    taskq="continues by itself",
)
async def test_after_one_error_of_the_store_apscheduler_is_deaf_and_taskq_goes_on(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    once: Callable[[], bool] = iter([True] + [False] * 100).__next__
    update = RedisJobStore.update_job

    def blip(self: Any, job: Any) -> None:
        if once():
            raise redis.exceptions.ConnectionError("the store had a moment")
        update(self, job)

    with aps.started() as scheduler:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda *_: None)
        monkeypatch.setattr(RedisJobStore, "update_job", blip)
        scheduler.add_job(note, IntervalTrigger(seconds=0.2, timezone=UTC), id="s")
        await asyncio.sleep(1.5)
        loop.set_exception_handler(None)
        # It runs, it says, and fires nothing any more
        assert scheduler.running
        assert len(RUNS) <= 1

    tick = ScheduleStore.tick
    again: Callable[[], bool] = iter([True] + [False] * 100).__next__

    async def failing(self: Any, *args: Any, **options: Any) -> Any:
        if again():
            raise ConnectionError("the store had a moment")
        return await tick(self, *args, **options)

    await q.schedules.add("s", every(seconds=0.2), task.s(), overlap="allow")
    monkeypatch.setattr(ScheduleStore, "tick", failing)
    monkeypatch.setattr("taskq.schedules.election.LONGEST_PAUSE", 0.2)
    async with q.worker():
        await eventually(lambda: len(fires) >= 3)
    assert Counter(fires).most_common(1)[0][1] == 1
