"""An attempt that runs longer than its timeout is ended, as far as its kind allows."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from taskq import JobFailed, JobState, Retry, TaskQ, current_job
from taskq.worker import slots
from tests.support.waiting import eventually
from tests.worker import sample_tasks


async def test_a_coroutine_is_interrupted_where_it_waits(q: TaskQ) -> None:
    interrupted: list[str] = []

    @q.task(name="slow", timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupted.append(current_job().id)
            raise

    job = await slow.enqueue()
    await q.run_until_empty()

    assert interrupted == [job.id]
    with pytest.raises(JobFailed, match=r"ran longer than its timeout of 0\.05 s") as caught:
        await job.result(timeout=5)
    assert caught.value.error_type == "TimeoutError"
    assert "await asyncio.Event().wait()" in caught.value.traceback
    assert (await job.info()).attempts[0].outcome == "timeout"


@dataclass
class Heavy:
    """It takes longer to make than the jobs below may take."""

    size: int

    def __post_init__(self) -> None:
        time.sleep(0.06)


@pytest.mark.parametrize("executor", ["loop", "thread"])
async def test_the_time_to_load_the_arguments_counts(q: TaskQ, executor: str) -> None:
    ran: list[int] = []

    async def in_loop(heavy: Heavy) -> None:
        ran.append(heavy.size)

    def in_thread(heavy: Heavy) -> None:
        ran.append(heavy.size)

    function: Any = in_loop if executor == "loop" else in_thread
    task = q.task(name="load", timeout=0.05)(function)

    job = await task.enqueue({"size": 1})
    await q.run_until_empty()

    assert (await job.info()).attempts[0].outcome == "timeout"
    assert ran == []


async def test_a_job_that_ends_in_time_is_left_alone(q: TaskQ) -> None:
    @q.task(name="quick", timeout=60)
    async def quick() -> int:
        return 1

    @q.task(name="plain", timeout=60)
    def plain() -> int:
        return 2

    jobs = [await quick.enqueue(), await plain.enqueue()]
    await q.run_until_empty()

    assert [await job.result(timeout=5) for job in jobs] == [1, 2]


async def test_a_timeout_of_the_user_s_own_is_an_error_like_any_other(q: TaskQ) -> None:
    @q.task(name="impatient", timeout=60)
    async def impatient() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    job = await impatient.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert (info.error_type, info.attempts[0].outcome) == ("TimeoutError", "error")


async def test_cleaning_up_after_the_interruption_is_waited_for(q: TaskQ) -> None:
    cleaned = asyncio.Event()

    @q.task(name="careful", timeout=0.02)
    async def careful() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            cleaned.set()

    job = await careful.enqueue()
    await q.run_until_empty()

    assert cleaned.is_set()
    assert (await job.info()).attempts[0].outcome == "timeout"


async def test_a_coroutine_that_swallows_its_interruption_is_abandoned(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slots, "CANCEL_GRACE_SECONDS", 0.05)
    go = asyncio.Event()

    @q.task(name="stubborn", timeout=0.02)
    async def stubborn() -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    @q.task(name="next")
    async def following() -> str:
        return "ran"

    job = await stubborn.enqueue()
    async with q.worker(concurrency=1) as worker:
        with pytest.raises(JobFailed, match="longer than its timeout"):
            await job.result(timeout=5)

        # Then its slot is free, and counted until it really ends
        assert await (await following.enqueue()).result(timeout=5) == "ran"
        assert worker.tally.leaked == 1
        go.set()
        await eventually(lambda: worker.tally.leaked == 0)

    # Its late result changes nothing
    assert await job.status() is JobState.FAILED
    assert "stubborn still runs" in caplog.text


async def test_a_thread_is_given_up_at_once_and_counted(q: TaskQ) -> None:
    go = threading.Event()
    interrupted_late: list[str] = []

    @q.task(name="blocked", timeout=0.05)
    def blocked() -> None:
        assert go.wait(20)
        interrupted_late.append("the thread went on")

    @q.task(name="free")
    def free() -> str:
        return "ran"

    job = await blocked.enqueue()
    async with q.worker(threads=1) as worker:
        with pytest.raises(JobFailed, match="longer than its timeout"):
            await job.result(timeout=5)
        assert interrupted_late == []

        # A leaked thread takes nobody's place, and is counted until it returns
        assert worker.recycling.leaked == 1
        assert await (await free.enqueue()).result(timeout=5) == "ran"
        go.set()
        await eventually(lambda: worker.recycling.leaked == 0)

    assert interrupted_late == ["the thread went on"]
    assert await job.status() is JobState.FAILED


async def test_a_worker_with_too_many_leaked_threads_makes_way(
    q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "taskq.worker")
    go = threading.Event()

    @q.task(name="blocked", timeout=0.02)
    def blocked() -> None:
        assert go.wait(20)

    await q.enqueue_many([blocked.s() for _ in range(3)])
    worker = q.worker(leak_limit=3)
    await asyncio.wait_for(worker.run(), 10)

    assert worker.recycling.leaked == 3
    assert "threads that cannot be stopped" in caplog.text
    go.set()
    await eventually(lambda: worker.recycling.leaked == 0)


async def test_waiting_for_a_thread_is_not_counted(q: TaskQ) -> None:
    release = threading.Event()

    @q.task(name="first")
    def first() -> None:
        assert release.wait(20)

    @q.task(name="second", timeout=0.2)
    def second() -> str:
        return "had its time"

    @q.task(name="sandglass", timeout=0.3)
    async def sandglass() -> None:
        await asyncio.Event().wait()

    running = await first.enqueue()
    job = await second.enqueue()
    async with q.worker(threads=1):
        await eventually(lambda: _is_running(q, running.id))
        # Given that it waits for the only thread longer than its timeout
        with pytest.raises(JobFailed):
            await (await sandglass.enqueue()).result(timeout=5)
        release.set()
        assert await job.result(timeout=5) == "had its time"


async def _is_running(q: TaskQ, job_id: str) -> bool:
    return await q.job(job_id).status() is JobState.RUNNING


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


async def test_a_process_is_killed(q: TaskQ, tmp_path: Path) -> None:
    tasks = sample_tasks.register(q, timeout=0.5)
    started = tmp_path / "started"

    job = await tasks.hang.enqueue(str(started))
    async with q.worker(processes=1):
        with pytest.raises(JobFailed, match=r"timeout of 0\.5 s"):
            await job.result(timeout=20)
        await eventually(lambda: not is_alive(int(started.read_text())))

        # The next job has a fresh one
        assert await (await tasks.pid.enqueue()).result(timeout=20) != int(started.read_text())

    assert (await job.info()).attempts[0].outcome == "timeout"


async def test_a_soft_timeout_is_raised_inside_and_leaves_time_to_save(
    q: TaskQ, tmp_path: Path
) -> None:
    tasks = sample_tasks.register(q, soft_timeout=0.2, timeout=30)

    job = await tasks.save_when_time_is_up.enqueue(str(tmp_path / "started"))
    await q.run_until_empty()

    assert await job.result(timeout=5) == "saved"


async def test_a_soft_timeout_that_is_not_caught_is_a_timeout(q: TaskQ) -> None:
    tasks = sample_tasks.register(q, soft_timeout=0.1)

    job = await tasks.run_into_the_soft_limit.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert (info.state, info.error_type) == (JobState.FAILED, "SoftTimeout")
    assert info.attempts[0].outcome == "timeout"
    assert "the soft limit of 0.1 s passed" in (info.error or "")


async def test_the_hard_limit_ends_what_ignores_the_soft_one(q: TaskQ) -> None:
    tasks = sample_tasks.register(q, soft_timeout=0.1, timeout=0.4)

    job = await tasks.ignore_the_soft_limit.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert (info.state, info.error_type) == (JobState.FAILED, "TimeoutError")


async def test_timeouts_are_retried_by_the_policy(q: TaskQ) -> None:
    @q.task(name="slow", timeout=0.02, retry=Retry(max_attempts=3, backoff=0))
    async def slow() -> int:
        if current_job().attempt < 3:
            await asyncio.Event().wait()
        return current_job().attempt

    @q.task(name="unwanted", timeout=0.02, retry=Retry(max_attempts=3, backoff=0, on=(KeyError,)))
    async def unwanted() -> None:
        await asyncio.Event().wait()

    tasks = sample_tasks.register(q, soft_timeout=0.1, retry=Retry(max_attempts=2, backoff=0))
    jobs = [await slow.enqueue(), await unwanted.enqueue()]
    soft = await tasks.run_into_the_soft_limit.enqueue()
    await q.run_until_empty()

    assert await jobs[0].result(timeout=5) == 3
    assert (await jobs[1].info()).attempt == 1
    assert await soft.result(timeout=5) == "attempt 2"
    outcomes = [record.outcome for record in (await jobs[0].info()).attempts]
    assert outcomes == ["timeout", "timeout", "succeeded"]
