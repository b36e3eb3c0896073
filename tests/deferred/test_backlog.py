"""How many calls may wait, and what happens to others."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from taskq import BacklogFull, Deferred, DeferredSettings, JobFailed, JobState, TaskQ
from taskq.core.options import WhenFull
from tests.support.server import TestServer
from tests.support.waiting import eventually


def full(url: str, when_full: WhenFull, namespace: str = "taskq") -> TaskQ:
    settings = DeferredSettings(concurrency=1, backlog=1, when_full=when_full)
    return TaskQ(url, namespace=namespace, deferred=settings)


@pytest.fixture
def go() -> asyncio.Event:
    return asyncio.Event()


async def test_one_call_too_many_is_rejected(go: asyncio.Event) -> None:
    q = full("redis://localhost:1", "reject")
    async with q.deferred:
        # Given one that runs and one that waits
        handles = [q.defer(go.wait) for _ in range(2)]

        # When there is another, from a coroutine or a thread
        with pytest.raises(BacklogFull, match="1 deferred calls wait, and backlog=1"):
            q.defer(go.wait)
        with pytest.raises(BacklogFull):
            await asyncio.to_thread(q.defer, go.wait)

        # Then the others go on
        assert q.deferred.stats().rejected == 2
        go.set()
        assert [await handle for handle in handles] == [True, True]


async def test_one_call_too_many_waits_for_room(go: asyncio.Event) -> None:
    q = full("redis://localhost:1", "wait")
    async with q.deferred:
        handles = [q.defer(go.wait) for _ in range(3)]
        accepted = asyncio.create_task(handles[2].accepted())
        let_in = threading.Event()

        def in_a_thread() -> bool:
            handle = q.defer(go.wait)
            let_in.set()
            return asyncio.run(handle.result())

        thread = asyncio.create_task(asyncio.to_thread(in_a_thread))
        await asyncio.wait({accepted}, timeout=0.05)
        assert not accepted.done()
        assert not let_in.is_set()
        assert q.deferred.stats().waiting == 2

        go.set()
        await accepted
        assert await thread
        assert all([await handle for handle in handles])


async def test_one_call_too_many_is_spilled_to_the_queue(
    q: TaskQ, server: TestServer, namespace: str, go: asyncio.Event
) -> None:
    spilling = full(server.url, "spill", namespace)

    @spilling.task
    async def double(number: int) -> int:
        return 2 * number

    async with spilling:
        handles = [spilling.defer(go.wait) for _ in range(2)]

        # A task becomes a job, under the same id
        spilled = double.defer(21)
        await spilled.accepted()
        assert spilled.job is not None
        assert spilled.job.id == spilled.id
        assert spilled.status is JobState.QUEUED

        # A plain function and what cannot travel are refused
        with pytest.raises(BacklogFull, match="is a plain function"):
            spilling.defer(go.wait)
        with pytest.raises(ValueError, match=r"args\[0\]"):
            double.defer(object())  # pyright: ignore[reportArgumentType]

        assert await spilling.run_until_empty() == 1
        assert await spilled == 42
        assert spilling.deferred.stats().spilled == 1
        go.set()
        for handle in handles:
            await handle


async def test_a_spilled_call_that_is_cancelled_on_its_way_never_runs(
    q: TaskQ, server: TestServer, namespace: str, go: asyncio.Event
) -> None:
    spilling = full(server.url, "spill", namespace)

    @spilling.task
    async def never() -> None:
        raise AssertionError

    async with spilling:
        handles: list[Deferred[Any]] = [spilling.defer(go.wait) for _ in range(2)]

        # When it is cancelled before it was sent, and before that was answered
        for turns in range(3):
            spilled = never.defer()
            for _ in range(turns):
                await asyncio.sleep(0)
            assert await spilled.cancel()
            assert spilled.status is JobState.CANCELLED
            handles.append(spilled)
        go.set()
        for handle in handles[:2]:
            await handle

    # Then it stays cancelled, and its job is too
    assert [handle.status for handle in handles[2:]] == [JobState.CANCELLED] * 3
    assert spilling.deferred.stats().spilled == 0
    async with spilling:
        assert await spilling.run_until_empty() == 0


async def test_what_cannot_be_spilled_fails_and_says_so(go: asyncio.Event) -> None:
    q = TaskQ(
        "redis://localhost:1",
        enqueue_deadline=0.1,
        deferred=DeferredSettings(concurrency=1, backlog=0, when_full="spill"),
    )

    @q.task
    async def work() -> None: ...

    async with q.deferred:
        handle = q.defer(go.wait)
        spilled = work.defer()
        with pytest.raises(OSError, match="nothing could be enqueued"):
            await spilled.accepted()
        with pytest.raises(JobFailed, match="ServerUnavailable"):
            await spilled
        go.set()
        await handle
    await q.aclose()


async def test_a_waiting_call_may_be_cancelled(go: asyncio.Event) -> None:
    q = full("redis://localhost:1", "wait")
    async with q.deferred:
        handles = [q.defer(go.wait) for _ in range(3)]
        assert handles[2].cancel()
        assert handles[1].cancel()
        assert [handle.status for handle in handles[1:]] == [JobState.CANCELLED] * 2
        go.set()
        assert await handles[0]
    await eventually(lambda: q.deferred.stats().pending == 0)
