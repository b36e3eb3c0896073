"""A worker process of taskq: `python -m benchmarks.taskq_worker URL LOOP`, orders on stdin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager

from benchmarks.adapters.taskq_tasks import Tasks
from benchmarks.gate import Gate
from benchmarks.worker_child import Measured, Order, answer, follow_orders, timed

__all__ = ["TaskqHands"]


class TaskqHands:
    """Does jobs as any program would that has `async with q.worker(...)`."""

    def __init__(self, url: str) -> None:
        self._gate = Gate()
        self._tasks = Tasks(url, self._gate)

    async def drain(self, order: Order) -> Measured:
        """Run so many jobs with a worker that is made for it.

        It is over when the server has the outcome of `order["last"]`, the job that was enqueued
        last; without such an id, when the last job has run.
        """
        self._gate.open(order["jobs"])
        async with self._tasks.q as q:
            # Jobs behind the last one stand still at the gate; they are handed back at once.
            worker = q.worker(concurrency=order["concurrency"], grace=0.0)
            leave = asyncio.Event()
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            work = asyncio.create_task(self._work(worker, order.get("last"), done, leave))
            try:
                return await timed(done)
            finally:
                leave.set()
                await work

    async def serve(self, order: Order, until: Awaitable[object]) -> None:
        """Work until stopped."""
        self._gate.open(1_000_000_000)
        async with self._tasks.q.worker(concurrency=order["concurrency"]):
            answer({})
            await until

    async def _work(
        self,
        worker: AbstractAsyncContextManager[object],
        last: str | None,
        done: asyncio.Future[None],
        leave: asyncio.Event,
    ) -> None:
        try:
            async with worker:
                await self._gate.reached.wait()
                if last is not None:
                    await self._tasks.q.job(last).result()
                done.set_result(None)
                await leave.wait()
        except Exception as error:
            if done.done():
                raise
            done.set_exception(error)


if __name__ == "__main__":
    follow_orders(TaskqHands)
