"""A worker that leaves: what runs may end, the rest goes to others, and nothing stays behind."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
import redis

from taskq import JobState, TaskQ, current_job
from taskq.broker.broker import Broker
from taskq.broker.keys import Keys
from tests.support.waiting import eventually
from tests.worker import sample_tasks


async def test_running_jobs_may_end(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> str:
        started.set()
        await go.wait()
        return "done"

    job = await wait.enqueue()
    worker = q.worker()
    running = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    await asyncio.sleep(0)
    assert not running.done()

    go.set()
    await asyncio.wait_for(running, 5)
    info = await job.info()
    assert (info.state, info.attempt, info.result) == (JobState.SUCCEEDED, 1, "done")


async def test_what_does_not_end_within_the_grace_is_handed_back_at_once(q: TaskQ) -> None:
    started, interrupted = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> str:
        if current_job().attempt > 1:
            return f"attempt {current_job().attempt}"
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()
        return ""

    job = await wait.enqueue()
    async with q.worker(grace=0.05):
        await started.wait()

    # Then it is queued again, before any lease could run out, and no retry was used up
    assert interrupted.is_set()
    info = await job.info()
    assert (info.state, info.failures, info.crashes) == (JobState.QUEUED, 0, 0)
    assert [record.outcome for record in info.attempts] == ["released"]
    # And the next worker runs it, though it allows one attempt only
    await q.run_until_empty()
    assert await job.result(timeout=5) == "attempt 2"


async def test_what_a_task_makes_of_its_interruption_is_no_failure(q: TaskQ) -> None:
    started = asyncio.Event()

    @q.task(name="query")
    async def query() -> str:
        if current_job().attempt > 1:
            return "done"
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As the client of a database does
            raise OSError("query cancelled by the user") from None
        return ""

    job = await query.enqueue()
    async with q.worker(grace=0.05):
        await started.wait()

    assert await job.status() is JobState.QUEUED
    await q.run_until_empty()
    assert await job.result(timeout=5) == "done"


async def test_a_coroutine_that_refuses_to_end_does_not_keep_its_job(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="stubborn")
    async def stubborn() -> str:
        if current_job().attempt > 1:
            return "second"
        started.set()
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return "first"

    job = await stubborn.enqueue()
    before = time.monotonic()
    async with q.worker(grace=0.05):
        await started.wait()
    assert time.monotonic() - before < 4

    assert await job.status() is JobState.QUEUED
    await q.run_until_empty()
    assert await job.result(timeout=5) == "second"
    go.set()


async def test_a_thread_that_goes_on_does_not_keep_its_job(q: TaskQ) -> None:
    started, go = threading.Event(), threading.Event()

    @q.task(name="blocked")
    def blocked() -> str:
        if current_job().attempt > 1:
            return "second"
        started.set()
        assert go.wait(20)
        return "first"

    job = await blocked.enqueue()
    async with q.worker(grace=0.05):
        await asyncio.to_thread(started.wait, 10)

    assert await job.status() is JobState.QUEUED
    await q.run_until_empty()
    assert await job.result(timeout=5) == "second"
    go.set()


async def test_a_process_does_not_outlive_its_worker(q: TaskQ, tmp_path: Path) -> None:
    tasks = sample_tasks.register(q)
    started = tmp_path / "started"

    job = await tasks.hang.enqueue(str(started))
    async with q.worker(grace=0.05):
        pid = await eventually(lambda: started.exists() and started.read_text(), within=20)

    assert not Path(f"/proc/{pid}").exists()
    assert await job.status() is JobState.QUEUED
    await job.cancel()
    await q.run_until_empty()


async def test_jobs_that_had_not_started_are_handed_back_uncounted(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await go.wait()

    @q.task(name="note")
    async def note(number: int) -> int:
        ran.append(current_job().attempt)
        return number

    await wait.enqueue()
    jobs = [await note.enqueue(number) for number in range(3)]
    worker = q.worker(concurrency=1)
    running = asyncio.create_task(worker.run())
    await started.wait()
    # Given that this worker holds them already, behind the one that runs
    broker = Broker(q._settings)
    worker.in_flight.take(await broker.consumer(worker.name).fetch(3, ["default"]))
    await broker.aclose()
    assert {await job.status() for job in jobs} == {JobState.RUNNING}

    worker.stop()
    # Then others get them while the running one still ends
    await eventually(lambda: _all_queued(q, [job.id for job in jobs]))
    assert not running.done()
    assert ran == []
    go.set()
    await running

    await q.run_until_empty()
    assert ran == [1, 1, 1]


async def _all_queued(q: TaskQ, ids: list[str]) -> bool:
    return {await q.job(job_id).status() for job_id in ids} == {JobState.QUEUED}


async def test_nothing_starts_once_a_worker_leaves(q: TaskQ) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    ran: list[int] = []

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await go.wait()

    @q.task(name="note")
    async def note() -> None:
        ran.append(1)

    await wait.enqueue()
    worker = q.worker()
    running = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    await eventually(lambda: worker.fetcher.paused)

    # Enqueued after that, with free slots and all
    jobs = [await note.enqueue() for _ in range(20)]
    assert {await job.status() for job in jobs} == {JobState.QUEUED}
    go.set()
    await running
    assert ran == []
    assert await q.run_until_empty() == 20


async def test_what_is_handed_to_a_worker_that_leaves_goes_back_at_once(
    q: TaskQ, other: TaskQ, look: redis.Redis, namespace: str
) -> None:
    """It may look idle to the server still: its last word was lost with a line."""
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await go.wait()

    @other.task(name="one")
    async def one() -> str:
        return current_job().worker

    worker = q.worker()
    leaving = asyncio.create_task(worker.run())
    await wait.enqueue()
    await started.wait()
    worker.stop()
    await eventually(lambda: worker.in_flight._closed)
    await eventually(lambda: not look.exists(Keys(namespace).idle + "default"))
    look.sadd(Keys(namespace).idle + "default", worker.name)

    async with other.worker() as living:
        # (the one that listens better is chosen by chance)
        jobs = [await one.enqueue() for _ in range(10)]
        assert {await job.result(timeout=5) for job in jobs} == {living.name}
        assert not leaving.done()
    go.set()
    await leaving
    assert {record.outcome for job in jobs for record in (await job.info()).attempts} == {
        "succeeded"
    }


async def test_stopping_twice_ends_it_now(q: TaskQ) -> None:
    started = asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    job = await wait.enqueue()
    worker = q.worker(grace=600)
    running = asyncio.create_task(worker.run())
    await started.wait()
    worker.stop()
    worker.stop()

    await asyncio.wait_for(running, 5)
    assert await job.status() is JobState.QUEUED
    await job.cancel()
    await q.run_until_empty()


async def test_an_error_in_the_block_drains_as_well(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    async def fail_inside() -> None:
        async with q.worker():
            await (await one.enqueue()).result(timeout=5)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail_inside()

    assert await q.run_until_empty() == 0


async def test_an_idle_worker_leaves_at_once(q: TaskQ) -> None:
    took: list[float] = []
    for _ in range(5):
        async with q.worker(["default"]) as worker:
            await eventually(worker.fetcher.found_nothing.is_set)
            before = time.monotonic()
        took.append(time.monotonic() - before)

    # None waits for the end of its fetch, which is a second away
    assert min(took) < 0.5


async def test_a_worker_leaves_no_trace_on_the_server(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    before = len(look.client_list())
    async with q.worker(["default", "never-used"]) as worker:
        await (await one.enqueue()).result(timeout=5)
        await eventually(lambda: look.zscore(Keys(namespace).workers, worker.name))

    keys = Keys(namespace)
    for key in (keys.workers, keys.held, keys.serves, keys.worker_info + worker.name):
        assert not look.exists(key), key
    for queue in ("default", "never-used"):
        assert not look.sismember(keys.idle + queue, worker.name)
    groups = look.xinfo_groups(keys.lane("default", 5))
    assert [group["consumers"] for group in groups] == [0]
    await eventually(lambda: len(look.client_list()) <= before + 1)


async def test_a_worker_can_be_entered_again(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    for _ in range(2):
        async with q.worker():
            assert await (await one.enqueue()).result(timeout=5) == 1


async def test_a_worker_ends_after_so_many_jobs(q: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "taskq.worker")

    @q.task(name="one")
    async def one() -> int:
        return 1

    await q.enqueue_many([one.s() for _ in range(5)])
    worker = q.worker(max_jobs=5)
    await asyncio.wait_for(worker.run(), 10)

    assert worker.tally.succeeded == 5
    assert "recycling this worker: it ended 5 attempts" in caplog.text


async def test_a_worker_ends_when_it_has_grown_too_large(
    q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "taskq.worker")

    await asyncio.wait_for(q.worker(max_memory=1024 * 1024).run(), 10)

    assert "recycling this worker: it holds" in caplog.text


async def test_workers_that_come_and_go_run_every_job_once(q: TaskQ) -> None:
    runs: list[int] = []
    over = asyncio.Event()

    @q.task(name="note")
    async def note(number: int) -> int:
        await asyncio.sleep(0)
        runs.append(number)
        return number

    async def come_and_go() -> None:
        while not over.is_set():
            async with q.worker(concurrency=3):
                await asyncio.sleep(0.005)

    comings = [asyncio.create_task(come_and_go()) for _ in range(3)]
    jobs = [await note.enqueue(number) for number in range(400)]
    results = await asyncio.gather(*(job.result(timeout=20) for job in jobs))
    over.set()
    await asyncio.gather(*comings)

    assert results == list(range(400))
    assert sorted(runs) == list(range(400))
    assert {(await job.info()).attempt for job in jobs} == {1}
