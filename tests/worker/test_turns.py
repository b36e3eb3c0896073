"""What becomes of a delivery between the fetch and its first step."""

from __future__ import annotations

import asyncio

import pytest
import redis

from taskq import JobState, TaskQ
from taskq.broker.consumer import Consumer
from taskq.core.job import Delivery
from tests.support.scripts import frame
from tests.support.waiting import eventually


async def test_a_job_that_waits_for_its_turn_to_begin_can_be_cancelled(
    q: TaskQ, look: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash jobs say one by one that they begin."""
    ran: list[int] = []
    asked, go = asyncio.Event(), asyncio.Event()
    begin = Consumer.begin

    async def slowly(consumer: Consumer, delivery: Delivery) -> bool:
        asked.set()
        await go.wait()
        return await begin(consumer, delivery)

    monkeypatch.setattr(Consumer, "begin", slowly)

    @q.task(name="note")
    async def note() -> None:
        ran.append(1)

    job = await note.enqueue()
    look.hset(q._settings.keys.job(job.id), mapping={"a": 1, "k": 1})
    async with q.worker() as worker:
        await asyncio.wait_for(asked.wait(), 10)
        await job.cancel()
        await eventually(lambda: worker.tally.started == 1)
        await asyncio.sleep(0)
        go.set()
        await eventually(lambda: worker.in_flight.known == 0)

    assert ran == []
    assert await job.status() is JobState.CANCELLED


async def test_what_was_handed_back_and_comes_again_runs_though_its_place_was_kept(
    q: TaskQ,
) -> None:
    """Handed back by the heartbeat's thread: the loop, which stood still, has not heard of it."""
    ran: list[str] = []
    go = asyncio.Event()

    @q.task(name="wait")
    async def wait(name: str) -> None:
        ran.append(name)
        if name == "first":
            await go.wait()

    async with q.worker(concurrency=1) as worker:
        await wait.enqueue("first")
        await eventually(lambda: ran == ["first"])
        await wait.enqueue("second")
        consumer, in_flight = worker._session.consumer, worker.in_flight
        [one] = await consumer.fetch(1, ["default"])
        in_flight.take([one])
        assert in_flight._claims.hand_back(one.entry, one.fence)
        assert await consumer.finish([frame("B", one)]) == [1]
        [again] = await consumer.fetch(1, ["default"])
        assert (again.entry, again.fence) == (one.entry, 2)

        in_flight.take([again])
        go.set()

        await eventually(lambda: ran == ["first", "second"])
        await eventually(lambda: in_flight.known == 0)
        assert worker.tally.adopted == 0
