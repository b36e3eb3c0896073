"""Cancelling a job, wherever it is in its life and whoever runs it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
import redis

from taskq import JobCancelled, JobNotFound, JobState, Retry, TaskQ, current_job
from taskq.broker.broker import Broker
from taskq.broker.keys import Keys
from taskq.worker import heartbeat as heartbeat
from taskq.worker import slots
from tests.support.waiting import eventually
from tests.worker import sample_tasks


async def test_a_queued_job_never_runs(q: TaskQ) -> None:
    ran: list[int] = []

    @q.task(name="run")
    async def run(number: int) -> None:
        ran.append(number)

    jobs = [await run.enqueue(number) for number in range(3)]

    # Given no worker
    assert await jobs[1].cancel() is True
    assert await jobs[1].status() is JobState.CANCELLED

    # Then it holds for those that come later
    await q.run_until_empty()
    assert ran == [0, 2]
    with pytest.raises(JobCancelled, match="was cancelled"):
        await jobs[1].result(timeout=5)
    assert (await jobs[1].info()).attempts == ()


async def test_a_scheduled_job_never_becomes_due(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    ran: list[int] = []

    @q.task(name="run")
    async def run() -> None:
        ran.append(1)

    job = await run.options(delay=60, expires=120).enqueue()
    assert await job.cancel() is True

    q._settings.offset.ms += 90_000
    await q.run_until_empty()
    assert ran == []
    assert await job.status() is JobState.CANCELLED
    assert not look.exists(Keys(namespace).due, Keys(namespace).expiry)


async def test_a_job_that_waits_for_its_next_attempt_gets_none(q: TaskQ) -> None:
    runs: list[int] = []

    @q.task(name="flaky", retry=Retry(max_attempts=5, backoff=60, jitter=False))
    async def flaky() -> None:
        runs.append(current_job().attempt)
        raise OSError("busy")

    job = await flaky.enqueue()
    await q.run_until_empty()
    assert await job.status() is JobState.SCHEDULED

    assert await job.cancel() is True
    q._settings.offset.ms += 600_000
    await q.run_until_empty()

    assert runs == [1]
    info = await job.info()
    assert info.state is JobState.CANCELLED
    assert [record.outcome for record in info.attempts] == ["error"]


async def test_a_running_coroutine_is_interrupted_where_it_waits(q: TaskQ) -> None:
    started, cleaned = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    job = await wait.enqueue()
    async with q.worker():
        await started.wait()
        assert await job.cancel() is True
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)

    assert cleaned.is_set()
    info = await job.info()
    assert (info.state, info.attempt) == (JobState.CANCELLED, 1)
    assert info.attempts[0].outcome == "cancelled"
    assert info.cancel_requested


async def test_cleaning_up_is_not_interrupted_again(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given beats that repeat the wish all the while
    monkeypatch.setattr(heartbeat, "HEARTBEAT_SECONDS", 0.02)
    started, cleaned = asyncio.Event(), asyncio.Event()

    @q.task(name="careful")
    async def careful() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            cleaned.set()

    job = await careful.enqueue()
    async with q.worker():
        await started.wait()
        await asyncio.gather(*(job.cancel() for _ in range(3)))
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)

    assert cleaned.is_set()


async def test_a_cancel_comes_from_any_program(q: TaskQ, other: TaskQ) -> None:
    started = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await wait.enqueue()
    async with q.worker():
        await started.wait()
        assert await other.job(job.id).cancel() is True
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)


async def test_a_cancelled_job_is_not_retried(q: TaskQ) -> None:
    started = asyncio.Event()
    runs: list[int] = []

    @q.task(name="wait", retry=Retry(max_attempts=5, backoff=0, on=(BaseException,)))
    async def wait() -> None:
        runs.append(1)
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # What it raises on its way out is not what ends it
            raise OSError("half done") from None

    job = await wait.enqueue()
    async with q.worker():
        await started.wait()
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)

    assert runs == [1]


async def test_what_a_task_makes_of_its_cancellation_is_no_failure(q: TaskQ) -> None:
    started = asyncio.Event()

    @q.task(name="query")
    async def query() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As the client of a database does
            raise OSError("query cancelled by the user") from None

    job = await query.enqueue()
    async with q.worker():
        await started.wait()
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)


async def test_the_slot_of_a_cancelled_job_is_free_for_the_next(q: TaskQ) -> None:
    started = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    @q.task(name="following")
    async def following() -> str:
        return "ran"

    job, after = await wait.enqueue(), await following.enqueue()
    async with q.worker(concurrency=1):
        await started.wait()
        await job.cancel()
        assert await after.result(timeout=5) == "ran"


async def test_a_job_in_a_thread_is_given_up_at_once(q: TaskQ) -> None:
    started, go = threading.Event(), threading.Event()

    @q.task(name="block")
    def block() -> None:
        started.set()
        assert go.wait(20)

    job = await block.enqueue()
    async with q.worker() as worker:
        await asyncio.to_thread(started.wait, 10)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
        assert worker.recycling.leaked == 1
        go.set()
        await eventually(lambda: worker.recycling.leaked == 0)

    assert await job.status() is JobState.CANCELLED


async def test_a_job_in_a_process_is_killed(q: TaskQ, tmp_path: Path) -> None:
    tasks = sample_tasks.register(q)
    started = tmp_path / "started"

    job = await tasks.hang.enqueue(str(started))
    async with q.worker():
        pid = int(await eventually(lambda: started.exists() and started.read_text(), within=20))
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
        await eventually(lambda: not os.path.exists(f"/proc/{pid}"))


async def test_a_coroutine_that_does_not_listen_is_cancelled_all_the_same(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "CANCEL_GRACE_SECONDS", 0.05)
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="stubborn")
    async def stubborn() -> str:
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    job = await stubborn.enqueue()
    async with q.worker() as worker:
        await started.wait()
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
        go.set()
        await eventually(lambda: worker.tally.leaked == 0)

    assert await job.status() is JobState.CANCELLED


async def test_a_job_fetched_and_not_started_is_cancelled_in_its_buffer(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await go.wait()

    @q.task(name="behind")
    async def behind() -> None:
        ran.append(1)

    await wait.enqueue()
    job = await behind.enqueue()
    async with q.worker(concurrency=1) as worker:
        await started.wait()
        # Given that this worker holds it, though it has no slot for it
        broker = Broker(q._settings)
        worker.in_flight.take(await broker.consumer(worker.name).fetch(1, ["default"]))
        await broker.aclose()
        assert await job.status() is JobState.RUNNING
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)
        go.set()

    assert ran == []


async def test_a_cancel_whose_notice_was_lost_is_found_by_the_next_beat(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    started = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await wait.enqueue()
    async with q.worker() as worker:
        await started.wait()
        # Given a worker that hears no messages
        await worker._broker.client.unsubscribe(Keys(namespace).wake_channel + worker.name)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job.result(timeout=5)

    assert not look.exists(Keys(namespace).cancels + worker.name)


async def test_the_wish_outlives_the_worker(q: TaskQ, look: redis.Redis, namespace: str) -> None:
    ran: list[int] = []

    @q.task(name="wait")
    async def wait() -> None:
        ran.append(1)

    # Given a job whose worker is gone without a word
    job = await wait.enqueue()
    broker = Broker(q._settings)
    await broker.leases.register("lost", b"", 1, ["default"])
    assert len(await broker.consumer("lost").fetch(1, ["default"])) == 1

    # When it is cancelled meanwhile
    assert await job.cancel() is True
    assert await job.status() is JobState.RUNNING
    await broker.leases.reap("lost", broker.reap_policy)
    await broker.aclose()

    # Then nobody runs it again
    with pytest.raises(JobCancelled):
        await job.result(timeout=5)
    await q.run_until_empty()
    assert ran == []
    assert not look.exists(Keys(namespace).cancels + "lost")


async def test_what_is_over_cannot_be_cancelled(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    await q.run_until_empty()

    assert await job.cancel() is False
    assert await job.result(timeout=5) == 1

    twice = await one.enqueue()
    assert [await twice.cancel(), await twice.cancel()] == [True, False]
    await q.run_until_empty()


async def test_what_never_was_cannot_be_cancelled(q: TaskQ) -> None:
    with pytest.raises(JobNotFound, match="does not know job 'no-such-job'"):
        await q.job("no-such-job").cancel()


async def test_who_waits_for_a_job_is_told_that_it_was_cancelled(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    waiting = asyncio.create_task(job.result(timeout=10))
    await asyncio.sleep(0)
    await job.cancel()

    with pytest.raises(JobCancelled):
        await waiting
    await q.run_until_empty()
