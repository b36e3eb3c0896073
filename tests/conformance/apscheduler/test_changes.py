"""Adding, changing, pausing, listing and removing: APScheduler 3 and taskq side by side."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Lock
from typing import Any

import pytest
from apscheduler.events import EVENT_JOB_ADDED, EVENT_JOB_MODIFIED, EVENT_JOB_SUBMITTED
from apscheduler.jobstores.base import ConflictingIdError, JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from taskq import (
    CallError,
    ConfigError,
    ScheduleNotFound,
    TaskQ,
    UnknownOption,
    at,
    every,
)
from tests.conformance.apscheduler.case import case
from tests.conformance.apscheduler.sides import RUNS, SECOND, Apscheduler, note
from tests.support.server import TestServer
from tests.support.waiting import eventually

HOUR = timedelta(hours=1)


def hourly(**options: Any) -> IntervalTrigger:
    return IntervalTrigger(hours=1, timezone=UTC, **options)


@case(
    "A04",
    "different",
    "A job without a trigger",
    apscheduler="runs at once",
    taskq="a schedule has a trigger; `await task.enqueue()` runs the task at once",
)
async def test_without_a_trigger(aps: Apscheduler, q: TaskQ) -> None:
    with aps.started(stored=False) as scheduler:
        scheduler.add_job(note)
        await eventually(lambda: len(RUNS) == 1)
        assert scheduler.get_jobs() == []

    @q.task
    async def plain() -> str:
        return "ran"

    with pytest.raises(TypeError):
        await q.schedules.add("s", plain.s())  # pyright: ignore[reportCallIssue]
    async with q.worker():
        assert await (await plain.enqueue()).result(timeout=5) == "ran"


@case(
    "A11",
    "different",
    "`misfire_grace_time` of 0 or 1.5, `max_instances` of 0",
    apscheduler="TypeError for all three; None is no limit",
    taskq="0 makes those in time, 1.5 is 1.5 s, None is no limit; no runs at all is refused",
)
async def test_graces_and_instances_that_are_refused(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started(stored=False) as scheduler:
        wrong: Any
        for wrong in ({"misfire_grace_time": 0}, {"misfire_grace_time": 1.5}, {"max_instances": 0}):
            with pytest.raises(TypeError):
                scheduler.add_job(note, hourly(), **wrong)
        assert scheduler.add_job(note, hourly(), misfire_grace_time=None)

    for misfire in (0, 1.5, None):
        added = await q.schedules.add(f"s{misfire}", every(hours=1), task.s(), misfire=misfire)
        assert added.policy.misfire == misfire
    with pytest.raises(ConfigError, match="overlap"):
        await q.schedules.add("s", every(hours=1), task.s(), overlap=0)


@case(
    "A15",
    "same",
    "Paused, and resumed before its next fire",
    apscheduler="kept in the store; continues with the fire it had",
)
async def test_a_pause_keeps_the_grid(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started() as scheduler:
        before = scheduler.add_job(note, hourly(), id="s").next_run_time
        scheduler.pause_job("s")
        assert scheduler.get_job("s").next_run_time is None
        assert scheduler.resume_job("s").next_run_time == before

    first = await q.schedules.add("s", every(hours=1), task.s())
    assert (await q.schedules.pause("s")).paused
    resumed = await q.schedules.resume("s")
    assert (resumed.state, resumed.next_fire) == ("active", first.next_fire)


@case(
    "A16",
    "different",
    "Resumed when no fire is left",
    apscheduler="None, and the job is removed",
    taskq="an error that says what to do, and the schedule stays: deleting must be asked for",
)
async def test_resuming_what_is_over(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    soon = datetime.now(UTC) + HOUR
    with aps.started(stored=False) as scheduler:
        scheduler.add_job(
            note, hourly(start_date=soon - 4 * HOUR, end_date=soon - 2 * HOUR), id="t"
        )
        assert scheduler.resume_job("t") is None
        assert scheduler.get_job("t") is None

    await q.schedules.add("s", at(soon), task.s(), paused=True)
    q._settings.offset.ms = 2 * 3_600_000
    with pytest.raises(ConfigError, match="no fire time after now"):
        await q.schedules.resume("s")
    info = await q.schedules.get("s")
    assert info is not None
    assert info.paused


@case(
    "A17",
    "same",
    "Added paused, `next_run_time=None`",
    apscheduler="listed, and never fires",
    taskq="the same, `paused=True`",
)
async def test_added_paused(aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]) -> None:
    with aps.started(stored=False) as scheduler:
        trigger = IntervalTrigger(seconds=0.05, timezone=UTC)
        scheduler.add_job(note, trigger, id="s", next_run_time=None)
        await asyncio.sleep(0.3)
        assert [job.id for job in scheduler.get_jobs()] == ["s"]
        assert RUNS == []

    await q.schedules.add("s", every(seconds=0.1), task.s(), paused=True)
    await q.schedules.add("t", every(seconds=0.1), task.s())
    async with q.worker():
        await eventually(lambda: len(fires) >= 2)
    infos = {info.id: info.fired for info in await q.schedules.list()}
    assert infos["s"] == 0 < infos["t"]


@case(
    "A19",
    "same",
    "Another trigger, and other options",
    apscheduler="`reschedule_job` counts from now, `modify_job` leaves the next fire",
    taskq="the same: `reschedule`, `modify`",
)
async def test_rescheduling_and_modifying(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started() as scheduler:
        before = scheduler.add_job(note, hourly(), id="s").next_run_time
        scheduler.modify_job("s", max_instances=3)
        assert scheduler.get_job("s").next_run_time == before
        later = scheduler.reschedule_job("s", trigger="interval", seconds=20).next_run_time
        assert 18 * SECOND < later - datetime.now(UTC) <= 20 * SECOND
        assert aps.events.count(EVENT_JOB_MODIFIED) == 2

    first = await q.schedules.add("s", every(hours=1), task.s())
    assert (await q.schedules.modify("s", overlap=3)).next_fire == first.next_fire
    moved = (await q.schedules.reschedule("s", every(seconds=20))).next_fire
    assert moved is not None
    assert 18 * SECOND < moved - datetime.now(UTC) <= 20 * SECOND


@case(
    "A20",
    "same",
    "An option that does not exist, another id, one wrong option of two",
    apscheduler="an error, and nothing has changed",
)
async def test_a_wrong_modification(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started() as scheduler:
        scheduler.add_job(note, hourly(), id="s", max_instances=1)
        with pytest.raises(AttributeError):
            scheduler.modify_job("s", instances=3)
        with pytest.raises(ValueError, match="ID"):
            scheduler.modify_job("s", id="t")
        with pytest.raises(TypeError):
            scheduler.modify_job("s", max_instances=3, misfire_grace_time=0)
        assert scheduler.get_job("s").max_instances == 1

    before = await q.schedules.add("s", every(hours=1), task.s())
    with pytest.raises(UnknownOption):
        await q.schedules.modify("s", instances=3)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError):
        await q.schedules.modify("s", id="t")  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError):
        await q.schedules.modify("s", overlap=3, jitter=-1)
    assert await q.schedules.get("s") == before


@case(
    "A22",
    "same",
    "Another trigger in place of one, `replace_existing=True`",
    apscheduler="one job, its next fire computed from now",
    taskq="the same, `replace=True`",
)
async def test_replacing(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    with aps.started() as scheduler:
        scheduler.add_job(note, hourly(), id="s")
        scheduler.add_job(note, "interval", hours=2, id="s", replace_existing=True)
        [job] = scheduler.get_jobs()
        assert job.next_run_time - datetime.now(UTC) > 1.9 * HOUR
        assert aps.events.count(EVENT_JOB_ADDED) == 2

    await q.schedules.add("s", every(hours=1), task.s())
    await q.schedules.add("s", every(hours=2), task.s(), replace=True)
    [info] = await q.schedules.list()
    assert info.next_fire is not None
    assert info.next_fire - datetime.now(UTC) > 1.9 * HOUR


@case(
    "A24",
    "better",
    "A program starts whose id is stored already, without `replace_existing`",
    apscheduler="`start()` raises, and no job runs",
    taskq="a worker compares what the code declares with what is stored",
)
@case(
    "A25",
    "better",
    "A job without an id, and three starts",
    apscheduler="three copies of it in the store",
    taskq="one: the id is the task's name",
)
async def test_starting_again(
    aps: Apscheduler, server: TestServer, namespace: str, q: TaskQ
) -> None:
    async def started(**options: Any) -> None:
        scheduler = AsyncIOScheduler(jobstores={"default": (store := aps.store())}, timezone=UTC)
        scheduler.add_job(note, hourly(), **options)
        try:
            scheduler.start()
        finally:
            if scheduler.running:
                scheduler.shutdown(wait=False)
            await asyncio.sleep(0.02)
            store.redis.close()

    for _ in range(3):
        await started()
    await started(id="s")
    with pytest.raises(ConflictingIdError):
        await started(id="s")
    with aps.started() as scheduler:
        assert len(scheduler.get_jobs()) == 3 + 1

    for _ in range(3):
        app = TaskQ(server.url, namespace=namespace)

        @app.schedule(every(hours=1))
        @app.task(name="shop.report")
        async def report() -> None: ...

        async with app.scheduler() as leader:
            await eventually(lambda: leader.term is not None)
        await app.aclose()
    assert [info.id for info in await q.schedules.list()] == ["shop.report"]


@case(
    "A28",
    "better",
    "Added through another process",
    apscheduler="a scheduler without due jobs does not notice it",
    taskq="runs in time",
)
async def test_added_from_elsewhere(
    aps: Apscheduler, q: TaskQ, server: TestServer, namespace: str, task: Any, fires: list[datetime]
) -> None:
    with aps.started() as idle, aps.started() as other:
        other.pause()
        # Given both at rest
        await asyncio.sleep(0.05)
        other.add_job(note, DateTrigger(datetime.now(UTC) + 0.1 * SECOND), misfire_grace_time=None)
        await asyncio.sleep(0.6)
        assert RUNS == []
        # It is in the store: only nobody looks
        idle.wakeup()
        await eventually(lambda: len(RUNS) == 1)

    async with q.worker(), TaskQ(server.url, namespace=namespace) as elsewhere:
        declared = elsewhere.task(name="shop.note")(note)
        await elsewhere.schedules.add("s", at(datetime.now(UTC)), declared.s())
        await eventually(lambda: len(fires) == 1)


@case(
    "A29",
    "same",
    "A lambda, a partial, a nested function, an argument that cannot be stored",
    apscheduler="an error when it is added",
    taskq="the same: what runs is a task with a name, and arguments are data",
)
@case(
    "A58",
    "same",
    "The scheduler itself as an argument",
    apscheduler="TypeError",
    taskq="the same: an error that names the argument",
)
async def test_what_cannot_be_stored(aps: Apscheduler, q: TaskQ) -> None:
    def nested() -> None: ...

    @q.task
    async def takes(what: Any) -> None: ...

    with aps.started() as scheduler:
        for function in (lambda: None, partial(print, 1), nested):
            with pytest.raises(ValueError, match=r"reference"):
                scheduler.add_job(function, hourly())
        for argument in (scheduler, Lock()):
            with pytest.raises(TypeError):
                scheduler.add_job(print, hourly(), args=(argument,))

    what: Any
    for what in (lambda: None, partial(print, 1), nested):
        with pytest.raises((ConfigError, CallError)):
            await q.schedules.add("s", every(hours=1), what)
    for argument in (q, Lock()):
        with pytest.raises((CallError, ValueError)):
            await q.schedules.add("s", every(hours=1), takes.s(argument))
    assert await q.schedules.list() == []


@case(
    "A31",
    "same",
    "Removed while it runs",
    apscheduler="the run ends normally",
)
async def test_removed_while_it_runs(aps: Apscheduler, q: TaskQ) -> None:
    gate, begun, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        begun.set()
        await gate.wait()
        ended.set()

    with aps.started(stored=False) as scheduler:
        scheduler.add_job(slow, hourly(), id="s", next_run_time=datetime.now(UTC))
        await begun.wait()
        scheduler.remove_job("s")
        gate.set()
        await asyncio.wait_for(ended.wait(), 5)

    for event in (gate, begun, ended):
        event.clear()
    work = q.task(name="shop.slow")(slow)
    await q.schedules.add("s", at(datetime.now(UTC)), work.s())
    async with q.worker():
        await asyncio.wait_for(begun.wait(), 5)
        await q.schedules.add("s", every(hours=1), work.s(), replace=True)
        await q.schedules.remove("s")
        gate.set()
        await asyncio.wait_for(ended.wait(), 5)


@case(
    "A32",
    "same",
    "An id that is not there",
    apscheduler="removing is an error, getting gives None",
)
async def test_unknown_ids(aps: Apscheduler, q: TaskQ) -> None:
    with aps.started() as scheduler:
        assert scheduler.get_job("nobody") is None
        with pytest.raises(JobLookupError):
            scheduler.remove_job("nobody")

    assert await q.schedules.get("nobody") is None
    with pytest.raises(ScheduleNotFound):
        await q.schedules.remove("nobody")


@case(
    "A39",
    "same",
    "An interval whose first run is now, `next_run_time=now`",
    apscheduler="runs at once, then a period later",
    taskq="the same, `every(..., immediate=True)`",
)
async def test_the_first_run_now(
    aps: Apscheduler, q: TaskQ, task: Any, fires: list[datetime]
) -> None:
    now = datetime.now(UTC)
    with aps.started(stored=False) as scheduler:
        scheduler.add_job(note, hourly(start_date=now + HOUR), id="s", next_run_time=now)
        await eventually(lambda: len(RUNS) == 1)
        assert scheduler.get_job("s").next_run_time == now + HOUR

    async with q.worker():
        added = await q.schedules.add("s", every(hours=1, immediate=True), task.s())
        await eventually(lambda: len(fires) == 1)
    info = await q.schedules.get("s")
    assert info is not None
    assert fires == [added.next_fire]
    assert info.next_fire == fires[0] + HOUR


@case(
    "A42",
    "better",
    "An executor that does not exist",
    apscheduler="accepted; at its first fire the job leaves the store, with a line in the log",
    taskq="refused where the task is defined",
)
async def test_unknown_executors(aps: Apscheduler, q: TaskQ) -> None:
    with aps.started() as scheduler:
        now = datetime.now(UTC)
        scheduler.add_job(note, hourly(), id="s", executor="misspelt", next_run_time=now)
        await eventually(lambda: scheduler.get_job("s") is None)
        assert aps.events.count(EVENT_JOB_SUBMITTED) == 0

    with pytest.raises(ConfigError, match="executor"):
        q.task(executor="misspelt")(note)  # pyright: ignore[reportCallIssue, reportArgumentType]


@case(
    "A57",
    "different",
    "`export_jobs` and `import_jobs`",
    apscheduler="a file with the jobs, of a started scheduler only",
    taskq="no such file: schedules of the code are in the code, others on the server, where any "
    "process reads them",
)
async def test_schedules_are_read_by_any_process(
    aps: Apscheduler, q: TaskQ, task: Any, server: TestServer, namespace: str, tmp_path: Any
) -> None:
    path = str(tmp_path / "jobs.json")
    with pytest.raises(RuntimeError):
        AsyncIOScheduler(timezone=UTC).export_jobs(path)
    with aps.started() as scheduler:
        scheduler.add_job(note, hourly(), id="s")
        scheduler.export_jobs(path)
        before = scheduler.get_job("s").next_run_time
        scheduler.remove_job("s")
        scheduler.import_jobs(path)
        assert scheduler.get_job("s").next_run_time == before

    added = await q.schedules.add("s", every(hours=1), task.s())
    async with TaskQ(server.url, namespace=namespace) as elsewhere:
        assert await elsewhere.schedules.get("s") == added


@case(
    "A59",
    "same",
    "The list of all",
    apscheduler="by the next fire, paused ones last",
)
@case(
    "A60",
    "same",
    "Fires less than a second apart",
    apscheduler="stay apart in the store",
    taskq="the same, to the millisecond",
)
async def test_the_list(aps: Apscheduler, q: TaskQ, task: Any) -> None:
    base = datetime.now(UTC).replace(microsecond=0) + HOUR
    shifts = {"a": 3, "b": 1, "c": 2}
    with aps.started() as scheduler:
        for name, shift in shifts.items():
            when = base + timedelta(milliseconds=shift)
            scheduler.add_job(note, DateTrigger(when), id=name)
        scheduler.add_job(note, hourly(), id="p", next_run_time=None)
        assert [job.id for job in scheduler.get_jobs()] == ["b", "c", "a", "p"]
        assert scheduler.get_job("c").next_run_time == base + timedelta(milliseconds=2)

    for name, shift in shifts.items():
        when = base + timedelta(milliseconds=shift)
        await q.schedules.add(name, at(when), task.s())
    await q.schedules.add("p", every(minutes=1), task.s(), paused=True)
    infos = await q.schedules.list()
    assert [info.id for info in infos] == ["b", "c", "a", "p"]
    assert infos[1].next_fire == base + timedelta(milliseconds=2)
