"""The drain: what is deferred ends before anything is closed, or goes on in the queue."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from taskq import DeferredSettings, JobFailed, JobState, TaskQ
from tests.support.server import TestServer
from tests.support.waiting import eventually


def brief(url: str = "redis://localhost:1", namespace: str = "taskq", grace: float = 0.2) -> TaskQ:
    settings = DeferredSettings(grace=grace)
    return TaskQ(url, namespace=namespace, deferred=settings, enqueue_deadline=1.0)


async def test_what_runs_waits_and_follows_ends_first(alone: TaskQ) -> None:
    ended: list[str] = []

    async def second() -> None:
        ended.append("second")

    async def first() -> None:
        await asyncio.sleep(0.05)
        alone.defer(second)
        ended.append("first")

    alone.defer(first)
    alone.deferred.options(delay=0.1).defer(ended.append, "delayed")
    alone.deferred.options(key="k", debounce=60).defer(ended.append, "debounced")
    await alone.deferred.drain(5)

    assert sorted(ended) == ["debounced", "delayed", "first", "second"]


async def test_what_is_due_after_the_grace_is_not_waited_for() -> None:
    q = brief(grace=20)
    async with q.deferred:
        later = q.deferred.options(delay=60).defer(asyncio.sleep, 0)
        began = time.monotonic()

    assert time.monotonic() - began < 10
    with pytest.raises(JobFailed, match="is a plain function"):
        await later
    assert q.deferred.stats().lost == 1


async def test_the_grace_is_a_limit_and_what_is_lost_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    q, go, cleaned = brief(), threading.Event(), list[str]()

    @q.task(name="travels")
    async def travels() -> None:
        await asyncio.Event().wait()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("hang")

    async with q.deferred:
        handles = [q.defer(hang), q.defer(go.wait, 20), travels.defer()]
        await eventually(lambda: q.deferred.stats().running == 3)
    go.set()
    await q.aclose()

    assert cleaned == ["hang"]
    assert [handle.status for handle in handles] == [JobState.FAILED] * 3
    assert "travels" in caplog.text
    assert "is lost" in caplog.text
    assert q.deferred.stats().lost == 3


async def test_calls_that_wait_for_a_slot_do_not_begin_when_time_is_up(
    q: TaskQ, server: TestServer, namespace: str
) -> None:
    # Given a slot that is taken, and calls that wait for it
    settings = DeferredSettings(concurrency=1, grace=0.2)
    narrow = TaskQ(server.url, namespace=namespace, deferred=settings)
    began: list[int] = []

    @narrow.task(name="work")
    async def work(number: int) -> int:
        began.append(number)
        if number == 0 and began == [0]:
            await asyncio.Event().wait()
        return number

    async with narrow:
        handles = [work.defer(number) for number in range(3)]
        await eventually(lambda: began)

    # Then they begin in a worker, each once
    assert began == [0]
    async with narrow:
        assert await narrow.run_until_empty() == 3
        assert [await handle.result(timeout=5) for handle in handles] == [0, 1, 2]
    assert sorted(began) == [0, 0, 1, 2]


async def test_what_waits_for_room_goes_on_in_the_queue_but_what_was_cancelled(
    q: TaskQ, server: TestServer, namespace: str
) -> None:
    # Given calls outside of a full backlog, one of which was cancelled
    settings = DeferredSettings(concurrency=1, backlog=1, when_full="wait", grace=0.05)
    narrow = TaskQ(server.url, namespace=namespace, deferred=settings)
    hangs = True

    @narrow.task(name="work")
    async def work(number: int) -> int:
        if hangs:
            await asyncio.Event().wait()
        return number

    async with narrow:
        handles = [work.defer(number) for number in range(4)]
        assert await handles.pop(2).cancel()

    # Then the others, and they alone, are jobs
    hangs = False
    async with narrow:
        assert await narrow.run_until_empty() == 3
        assert [await handle.result(timeout=5) for handle in handles] == [0, 1, 3]


@pytest.mark.parametrize("durable", [True, False])
async def test_what_is_cancelled_on_its_way_to_the_queue_never_runs(
    q: TaskQ, server: TestServer, namespace: str, durable: bool
) -> None:
    brisk = brief(server.url, namespace)

    @brisk.task(name="never")
    async def never() -> None:
        raise AssertionError

    # Given a call that is being handed over
    async with brisk:
        handle = never.options(delay=60, durable=durable).defer()
        await handle.accepted()
        drain = asyncio.create_task(brisk.deferred.drain())
        while brisk.deferred.stats().pending:
            await asyncio.sleep(0)

        # When it is cancelled
        assert handle.cancel()
        await drain

        # Then it stays cancelled, and its job is too
        assert handle.status is JobState.CANCELLED
        assert await brisk.job(handle.id).status() is JobState.CANCELLED


async def test_it_may_be_opened_again(alone: TaskQ) -> None:
    for number in range(2):
        async with alone.deferred:
            handle = alone.defer(asyncio.sleep, 0, result=number)
        assert await handle == number
    assert alone.deferred.stats().succeeded == 2


def test_each_event_loop_has_its_turn() -> None:
    q = brief()

    async def main(number: int) -> int:
        async with q.deferred:
            return await q.defer(asyncio.sleep, 0, result=number)

    assert [asyncio.run(main(number)) for number in range(3)] == [0, 1, 2]


async def test_a_worker_waits_for_what_its_jobs_deferred(
    q: TaskQ, server: TestServer, namespace: str
) -> None:
    ended: list[str] = []

    async def after() -> None:
        await asyncio.sleep(0.05)
        ended.append("after")

    @q.task(name="work")
    async def work() -> None:
        q.defer(after)
        ended.append("work")

    await work.enqueue()
    await q.run_until_empty()

    assert ended == ["work", "after"]
