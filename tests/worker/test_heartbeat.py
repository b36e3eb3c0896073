"""The heartbeat's line: while worker and server live, its loss never costs the lease."""

from __future__ import annotations

import asyncio

from taskq import TaskQ, current_job
from taskq.broker.broker import Broker
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
            await eventually(lambda: worker.holdings.known == 1)
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


async def _beats(q: TaskQ, name: str) -> int:
    """What the worker's counter says; 0 when it was declared dead."""
    broker = Broker(q.settings)
    counters = await broker.leases.heartbeats()
    await broker.aclose()
    return int(counters.get(name, 0))
