"""durable=True: the queue has the call as well, and runs it if this process cannot."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis

from taskq import (
    Deferred,
    DeferredSettings,
    JobCancelled,
    JobFailed,
    JobState,
    Retry,
    TaskQ,
    current_job,
)
from tests.support.server import TestServer
from tests.support.waiting import eventually


@pytest.fixture
def brief(q: TaskQ, server: TestServer, namespace: str) -> TaskQ:
    """A TaskQ whose leases are as short as may be; q looks at what it leaves behind."""
    return TaskQ(server.url, namespace=namespace, deferred=DeferredSettings(lease=1.0, grace=0.2))


async def test_it_is_stored_before_it_runs_and_settled_after(brief: TaskQ) -> None:
    go = asyncio.Event()

    @brief.task
    async def work(number: int) -> int:
        await go.wait()
        return number

    async with brief:
        # Given a durable call that runs
        handle = work.options(durable=True).defer(7)
        await handle.accepted()
        await eventually(lambda: handle.status is JobState.RUNNING)

        # Then the queue has it, and holds it back
        job = brief.job(handle.id)
        assert await job.status() is JobState.SCHEDULED
        assert brief.deferred.stats().durable == 1
        assert await brief.run_until_empty() == 0

        # When it ends here, it has ended there
        go.set()
        assert await handle == 7
        assert await job.result(timeout=5) == 7
        assert handle.job is None


async def test_it_is_held_longer_than_a_lease(brief: TaskQ) -> None:
    @brief.task
    async def long() -> int:
        await asyncio.sleep(2.0)
        return current_job().attempt

    async with brief, brief.worker():
        handle = long.options(durable=True).defer()
        assert await handle.result(timeout=10) == 1
        assert await brief.job(handle.id).result(timeout=5) == 1
        assert handle.job is None


async def test_failures_and_cancelling_are_told_to_the_queue(brief: TaskQ) -> None:
    @brief.task(retry=Retry(max_attempts=2, backoff=0.0))
    async def broken() -> None:
        raise ValueError("no")

    @brief.task
    async def hang() -> None:
        await asyncio.Event().wait()

    async with brief:
        failing, hanging = (task.options(durable=True).defer() for task in (broken, hang))
        with pytest.raises(JobFailed):
            await failing
        await eventually(lambda: hanging.status is JobState.RUNNING)
        assert await hanging.cancel()

        with pytest.raises(JobFailed, match="ValueError: no"):
            await brief.job(failing.id).result(timeout=5)
        with pytest.raises(JobCancelled):
            await brief.job(hanging.id).result(timeout=5)


async def test_it_can_be_cancelled_from_elsewhere(brief: TaskQ) -> None:
    ended = asyncio.Event()

    @brief.task
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with brief:
        handle = hang.options(durable=True).defer()
        await handle.accepted()
        assert await brief.job(handle.id).cancel()

        with pytest.raises(JobCancelled):
            await handle.result(timeout=10)
        assert ended.is_set()


async def test_it_is_merged_into_nothing_that_is_less_durable(brief: TaskQ) -> None:
    ran: list[int] = []

    @brief.task
    async def work(number: int) -> None:
        ran.append(number)

    async with brief:
        # Given calls of one key that wait, the second of which is durable
        keyed = work.options(key="k", delay=0.2)
        plain = keyed.defer(1)
        durable = keyed.options(durable=True).defer(2)
        await durable.accepted()

        # Then the queue has that
        assert await brief.job(durable.id).status() is JobState.SCHEDULED

        # And it runs for a plain one too, but not with arguments that the queue does not know
        assert keyed.defer(3).id == durable.id
        debounced = work.options(key="k", debounce=0.01).defer(4)
        assert len({plain.id, durable.id, debounced.id}) == 3
        for handle in (plain, durable, debounced):
            await handle
        assert ran == [1, 2, 4]


async def test_what_cannot_be_durable_is_refused(brief: TaskQ) -> None:
    @brief.task
    async def work(value: object) -> None: ...

    async def plain() -> None: ...

    async with brief:
        with pytest.raises(ValueError, match="plain function, which no worker would find"):
            brief.deferred.options(durable=True).defer(plain)
        with pytest.raises(ValueError, match=r"args\[0\]"):
            work.options(durable=True).defer(object())


async def test_without_its_server_it_runs_and_says_that_it_is_not_durable() -> None:
    q = TaskQ("redis://localhost:1", enqueue_deadline=0.1)

    @q.task
    async def work() -> int:
        return 1

    async with q.deferred:
        handle = work.options(durable=True).defer()
        with pytest.raises(ConnectionError):
            await handle.accepted()
        assert await handle == 1
    await q.aclose()


async def test_it_is_accepted_when_it_is_stored_wherever_it_was_deferred() -> None:
    # Given a server that cannot be reached, and no room
    settings = DeferredSettings(concurrency=1, backlog=0, when_full="wait")
    q = TaskQ("redis://localhost:1", enqueue_deadline=0.1, deferred=settings)
    go = asyncio.Event()

    @q.task
    async def work() -> int:
        return 1

    async with q.deferred:
        q.defer(go.wait)
        keyed = work.options(durable=True, key="k")

        # When there is room for a call that waited, and another of a thread is merged into it
        outside = keyed.defer()
        accepted = asyncio.create_task(outside.accepted())
        await asyncio.sleep(0)
        go.set()
        await eventually(lambda: q.deferred.stats().submitted == 2)
        merged = asyncio.create_task(
            asyncio.to_thread(lambda: asyncio.run(keyed.defer().accepted()))
        )

        # Then each is told that it is not stored
        for told in (accepted, merged):
            with pytest.raises(ConnectionError):
                await told
        assert await outside == 1
    await q.aclose()


async def test_one_of_a_thread_is_not_accepted_before_the_loop_has_heard_of_it(
    brief: TaskQ,
) -> None:
    told: list[str] = []

    @brief.task
    async def work() -> int:
        return 1

    def in_a_thread() -> None:
        handle = work.options(durable=True).defer()
        try:
            asyncio.run(asyncio.wait_for(handle.accepted(), 0.05))
        except TimeoutError:
            told.append("not yet")
        handles.append(handle)

    # Given a loop that does nothing else until the thread has waited
    async with brief:
        handles: list[Deferred[int]] = []
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()

        assert told == ["not yet"]
        await handles[0].accepted()
        assert await handles[0] == 1


async def test_an_id_that_is_taken_is_the_job_that_has_it(brief: TaskQ) -> None:
    @brief.task
    async def work(number: int) -> int:
        return number

    async with brief:
        await work.options(id="once").enqueue(1)
        handle = work.options(id="once", durable=True).defer(2)
        await handle.accepted()
        assert await brief.run_until_empty() == 1
        assert await handle.result(timeout=5) == 1


async def test_at_the_end_of_the_drain_it_goes_on_in_the_queue(brief: TaskQ) -> None:
    seen: list[tuple[int, int, int]] = []

    @brief.task(retry=Retry(max_attempts=3, backoff=0.0))
    async def work() -> str:
        job = current_job()
        seen.append((job.attempt, job.failures, job.fence))
        if job.attempt == 1:
            raise OSError
        if job.attempt == 2:
            await asyncio.Event().wait()
        return "done"

    # Given a durable call and a common one, each in its second attempt
    async with brief:
        handles = [work.options(durable=True).defer(), work.defer()]
        await eventually(lambda: len(seen) == 4)
    assert brief.deferred.stats().spilled == 2

    # When a worker takes them over
    async with brief:
        assert await brief.run_until_empty() == 2

        # Then attempts and failures go on, and the fence is the server's
        assert seen[4:] == [(3, 1, 1)] * 2
        assert [await handle.result(timeout=5) for handle in handles] == ["done", "done"]


async def test_a_process_that_was_silent_changes_nothing_of_what_a_worker_took_over(
    q: TaskQ, server: TestServer, namespace: str, look: redis.Redis
) -> None:
    # Given a durable call that runs in one process, which says nothing for longer than its lease
    silent = TaskQ(server.url, namespace=namespace, deferred=DeferredSettings(lease=5.0))
    go = asyncio.Event()

    @silent.task(name="work")
    async def here() -> str:
        await go.wait()
        return "here"

    @q.task(name="work", retry=Retry(max_attempts=2, backoff=60.0, jitter=False))
    async def elsewhere() -> str:
        raise OSError("not yet")

    async with silent:
        handle = here.options(durable=True, id="chosen").defer()
        await handle.accepted()
        await eventually(lambda: handle.status is JobState.RUNNING)

        # When a worker runs the job, which fails there and waits for its retry
        q._settings.offset.ms += 6000
        assert await q.run_until_empty() == 1
        job = q.job(handle.id)
        due = look.zscore(q._settings.keys.due, handle.id)
        assert await job.status() is JobState.SCHEDULED

        # Then the silent process moves nothing: neither when it holds the job ...
        await eventually(lambda: handle.job is not None, within=5)
        assert look.zscore(q._settings.keys.due, handle.id) == due

        # ... nor when its own run comes to an end
        go.set()
    assert await job.status() is JobState.SCHEDULED
    assert (await job.info()).failures == 1
    await job.cancel()


async def test_the_end_of_one_that_was_silent_is_refused(
    q: TaskQ, server: TestServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    # Given the same, where the run ends before its process has looked at the job again
    silent = TaskQ(server.url, namespace=namespace, deferred=DeferredSettings(lease=600.0))
    go = asyncio.Event()

    @silent.task(name="work")
    async def here() -> str:
        await go.wait()
        return "here"

    @q.task(name="work", retry=Retry(max_attempts=2, backoff=60.0, jitter=False))
    async def elsewhere() -> str:
        raise OSError("not yet")

    async with silent:
        handle = here.options(durable=True).defer()
        await handle.accepted()
        q._settings.offset.ms += 601_000
        assert await q.run_until_empty() == 1

        go.set()
        assert await handle == "here"

    # Then the job is the worker's
    assert "it may have run twice" in caplog.text
    assert await q.job(handle.id).status() is JobState.SCHEDULED
    await q.job(handle.id).cancel()


APPLICATION = """
import asyncio, sys
from taskq import TaskQ, DeferredSettings, current_job

q = TaskQ(namespace=sys.argv[1] if len(sys.argv) > 1 else "x", deferred=DeferredSettings(lease=1.0))

@q.task(name="work")
async def work(path: str) -> None:
    with open(path, "a") as file:
        print(current_job().fence, file=file, flush=True)
    await asyncio.Event().wait()

async def main(path: str) -> None:
    async with q:
        handle = work.options(durable=True).defer(path)
        await handle.accepted()
        print(handle.id, flush=True)
        await handle

asyncio.run(main(sys.argv[2]))
"""


def start(namespace: str, path: Path, url: str) -> tuple[subprocess.Popen[str], str]:
    """A process that runs a durable call, and the call's id."""
    process = subprocess.Popen(
        [sys.executable, "-c", APPLICATION, namespace, str(path)],
        env=os.environ | {"TASKQ_URL": url},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.faults
async def test_it_survives_kill_9(
    q: TaskQ, server: TestServer, namespace: str, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"

    @q.task(name="work")
    async def work(path: str) -> int:
        return len(Path(path).read_text().splitlines())

    # Given a process that is killed while it runs a durable call
    process, job_id = await asyncio.to_thread(start, namespace, ran, server.url)
    await eventually(lambda: ran.exists() and ran.read_text())
    process.send_signal(signal.SIGKILL)
    process.communicate()

    # Then a worker runs it once its lease is over
    async with q, q.worker():
        assert await q.job(job_id).result(timeout=20) == 1
