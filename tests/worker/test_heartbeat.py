"""The heartbeat's line: while worker and server live, its loss never costs the lease."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest
import redis

from taskq import TaskQ, current_job
from taskq.broker.broker import Broker
from taskq.broker.leases import Leases
from taskq.core.errors import ServerUnavailable
from taskq.worker.heartbeat import Observer
from tests.support.proxy import Proxy
from tests.support.server import TestServer
from tests.support.waiting import eventually


async def test_a_heartbeat_line_that_falls_silent_costs_a_living_worker_no_job(
    q: TaskQ, server: TestServer, namespace: str
) -> None:
    release = asyncio.Event()
    async with Proxy(server.socket) as proxy:
        flaky = TaskQ(proxy.url, namespace=namespace)

        @flaky.task(name="wait")
        async def wait() -> int:
            await release.wait()
            return current_job().attempt

        # Given a job on a worker whose two lines pass a proxy, and another worker that observes
        async with flaky.worker() as worker, q.worker(["elsewhere"]) as observer:
            job = await wait.enqueue()
            await eventually(lambda: worker.in_flight.known == 1)
            before = await _beats(q, worker.name)
            # When all that is said on the line of its heartbeat vanishes from now on
            assert proxy.half_open(b"taskq-heart") == 1

            # Then a heartbeat lands before the lease is over
            async def landed_or_lost() -> bool:
                beats = await _beats(q, worker.name)
                return beats > before + 1 or not beats

            await eventually(landed_or_lost)
            assert await _beats(q, worker.name) > before
            release.set()
            assert await job.result(timeout=5) == 1
            assert worker.tally.lost == observer.tally.reaped == 0
        await flaky.aclose()


async def test_jobs_of_the_dead_that_cannot_be_taken_back_are_tried_once_a_heartbeat(
    q: TaskQ, look: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = 0

    async def reap(*_: Any, **__: Any) -> None:
        nonlocal tried
        tried += 1
        raise ServerUnavailable("not now")

    monkeypatch.setattr(Leases, "reap", reap)
    short = partial(Observer, 0.5, silent_after=0.2)
    monkeypatch.setattr("taskq.worker.heartbeat.Observer", short)
    look.zadd(q._settings.keys.workers, {"dead": -1})
    async with q.worker() as worker:

        async def beats() -> int:
            return await _beats(q, worker.name)

        await eventually(lambda: tried > 1)
        tried, before, began = 0, await beats(), time.monotonic()

        async def beat_thrice() -> bool:
            return await beats() >= before + 3

        await eventually(beat_thrice)
        assert 2 <= tried <= 4
        assert time.monotonic() - began > 1.5
        monkeypatch.undo()
    look.delete(q._settings.keys.workers)


async def _beats(q: TaskQ, name: str) -> int:
    """What the worker's counter says; 0 when it was declared dead."""
    broker = Broker(q._settings)
    counters = await broker.leases.heartbeats()
    await broker.aclose()
    return int(counters.get(name, 0))
