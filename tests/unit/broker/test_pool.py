"""Brokers by event loop: any number of threads may each have a loop, and ask at the same time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from taskq import TaskQ
from taskq.broker.broker import Broker
from taskq.broker.pool import BrokerPool


async def ask(pool: BrokerPool) -> Broker:
    return pool.current()


class Watched(asyncio.SelectorEventLoop):
    """A loop beside which another thread uses the pool, just when this one is looked at."""

    pool: BrokerPool | None = None

    def is_closed(self) -> bool:
        pool, self.pool = self.pool, None
        if pool is not None:
            other = threading.Thread(target=asyncio.run, args=(ask(pool),))
            other.start()
            other.join()
        return super().is_closed()


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_loops_come_and_go_in_other_threads_while_one_is_looked_for(closed: int) -> None:
    # Given a pool that knows loops, some of which are closed
    pool = TaskQ("redis://localhost")._backend
    for _ in range(closed):
        asyncio.run(ask(pool))
    with asyncio.Runner(loop_factory=Watched) as runner:
        first, loop = runner.run(ask(pool)), runner.get_loop()

        # When another thread asks while this one does
        assert isinstance(loop, Watched)
        loop.pool = pool
        third = asyncio.run(ask(pool))

        # Then each has its own, and none is lost
        assert loop.pool is None
        assert runner.run(ask(pool)) is first
        assert third is not first


async def test_a_loop_keeps_its_broker() -> None:
    pool = TaskQ("redis://localhost")._backend

    assert pool.current() is pool.current()
