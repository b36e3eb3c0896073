"""Workers beside each other: none keeps jobs that another one could run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis

from taskq import JobState, TaskQ
from taskq.broker.keys import Keys
from taskq.worker.worker import Worker
from tests.support.waiting import eventually


@asynccontextmanager
async def worker_in_a_thread(
    q: TaskQ, queues: list[str], concurrency: int
) -> AsyncIterator[Worker]:
    """A worker with an event loop of its own, which its jobs may block."""
    ready, over = threading.Event(), threading.Event()
    found: list[Worker] = []

    async def work() -> None:
        async with q.worker(queues, concurrency=concurrency, scheduler=False) as worker:
            found.append(worker)
            ready.set()
            await asyncio.to_thread(over.wait)
        await q.aclose()

    thread = threading.Thread(target=asyncio.run, args=(work(),), daemon=True)
    thread.start()
    try:
        assert await asyncio.to_thread(ready.wait, 10)
        yield found[0]
    finally:
        over.set()
        await asyncio.to_thread(thread.join, 20)


async def test_jobs_of_a_worker_whose_loop_is_blocked_run_on_one_that_is_free(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    started, release = threading.Event(), threading.Event()

    @q.task(name="block", queue="block")
    async def block() -> None:
        started.set()
        release.wait(30)

    @q.task(name="where")
    async def where() -> int:
        return threading.get_ident()

    try:
        # Given a worker that waits for jobs of the default queue, and whose loop a job blocks
        async with worker_in_a_thread(q, ["default", "block"], concurrency=10) as blocked:
            await block.enqueue()
            assert await asyncio.to_thread(started.wait, 10)
            # When a job was handed to it, and others wait in its hands
            handed = await where.enqueue()
            assert await handed.status() is JobState.RUNNING

            # Then another one runs it, long before the loop goes on
            async with q.worker(["default"]):
                assert await handed.result(timeout=10) == threading.get_ident()
                # And new ones are not handed to the blocked one
                assert await (await where.enqueue()).result(timeout=2) == threading.get_ident()
            assert not look.sismember(Keys(namespace).idle + "default", blocked.name)
            release.set()

            # And when the loop goes on, it is there again
            assert await (await where.enqueue()).result(timeout=10) != threading.get_ident()
            assert blocked.tally.fenced == 0
    finally:
        release.set()


async def test_what_a_blocked_loop_has_fetched_and_not_started_goes_back_to_its_place(
    q: TaskQ,
) -> None:
    started, release = threading.Event(), threading.Event()
    order: list[int] = []

    @q.task(name="block")
    async def block() -> None:
        started.set()
        release.wait(30)

    @q.task(name="note")
    async def note(number: int) -> None:
        order.append(number)

    # Given twenty jobs behind one that blocks, all fetched together
    jobs = await q.enqueue_many([block.s(), *(note.s(number) for number in range(20))])
    try:
        async with worker_in_a_thread(q, ["default"], concurrency=50) as blocked:
            assert await asyncio.to_thread(started.wait, 10)
            later = await note.enqueue(99)

            # Then they run elsewhere, before what was enqueued later
            async with q.worker(concurrency=1):
                await later.result(timeout=10)
                assert order == [*range(20), 99]
            release.set()
            await jobs[0].result(timeout=10)
            assert blocked.tally.started == 1
    finally:
        release.set()
    assert {(await job.info()).attempt for job in jobs} == {1}


async def test_a_worker_takes_of_each_kind_what_it_can_start(q: TaskQ) -> None:
    release = threading.Event()
    running: dict[int, int] = {}

    @q.task(name="slow")
    def slow() -> None:
        release.wait(30)

    jobs = await q.enqueue_many([slow.s() for _ in range(12)])
    try:
        # Given a worker with many slots and few threads
        async with q.worker(concurrency=100, threads=4) as first:
            await eventually(lambda: first.in_flight.running == 4)
            async with q.worker(concurrency=100, threads=4) as second:
                await eventually(lambda: second.in_flight.running == 4)

                # Then the rest waits for whoever has a thread
                states = [await job.status() for job in jobs]
                running[0] = states.count(JobState.RUNNING)
                assert states.count(JobState.QUEUED) == 4
                release.set()
                for job in jobs:
                    await job.result(timeout=10)
        assert running == {0: 8}
    finally:
        release.set()


async def test_coroutines_run_though_all_threads_are_taken(q: TaskQ) -> None:
    release = threading.Event()

    @q.task(name="slow")
    def slow() -> None:
        release.wait(30)

    @q.task(name="quick")
    async def quick() -> str:
        return "in time"

    jobs = await q.enqueue_many([slow.s() for _ in range(20)])
    behind = await quick.enqueue()
    try:
        async with q.worker(concurrency=10, threads=2):
            assert await behind.result(timeout=10) == "in time"
            release.set()
            for job in jobs:
                await job.result(timeout=10)
    finally:
        release.set()


async def test_a_thread_that_comes_free_is_given_the_next_job_at_once(q: TaskQ) -> None:
    @q.task(name="nap")
    def nap() -> float:
        time.sleep(0.02)
        return time.monotonic()

    jobs = await q.enqueue_many([nap.s() for _ in range(30)])
    began = time.monotonic()
    async with q.worker(threads=1):
        ended = [await job.result(timeout=20) for job in jobs]

    # An idle worker looks by itself every five seconds: it did not have to.
    assert max(ended) - began < 5.0


async def test_neither_coroutines_nor_threads_starve_each_other(q: TaskQ) -> None:
    order: list[str] = []

    @q.task(name="coroutine")
    async def coroutine() -> None:
        order.append("coroutine")

    @q.task(name="thread")
    def thread() -> None:
        order.append("thread")

    await q.enqueue_many([coroutine.s() for _ in range(30)])
    await q.enqueue_many([thread.s() for _ in range(30)])

    await q.run_until_empty(concurrency=1, threads=1)

    # Of one priority they take turns, whichever came first
    assert {"coroutine", "thread"} == set(order[:6])


async def test_a_bulk_wakes_every_idle_worker_there_is(
    q: TaskQ, look: redis.Redis, namespace: str
) -> None:
    keys = Keys(namespace)
    ears = [look.pubsub() for _ in range(64)]
    for number, ear in enumerate(ears):
        ear.subscribe(f"{keys.wake_channel}w{number}")
        ear.get_message(timeout=5)
        look.sadd(keys.idle + "default", f"w{number}")

    await q.enqueue_many([q.remote("t").s() for _ in range(64)])

    heard = [ear.get_message(timeout=5) for ear in ears]
    assert all(message and message["data"] == b"work" for message in heard)
    for ear in ears:
        ear.close()
    await q.run_until_empty(unknown_limit=1)
