"""taskq's side of what enqueues."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.adapters.by_hand import Arguments
from benchmarks.adapters.taskq_tasks import Tasks
from benchmarks.gate import Gate
from taskq import Task

__all__ = ["TaskqProducer"]

_GATHERED = 1000
_TOP_UP = 10_000


class TaskqProducer:
    """Enqueues no-op jobs with the calls that users have."""

    def __init__(self, url: str) -> None:
        self.tasks = Tasks(url, Gate())
        self.q = self.tasks.q

    async def prepare(self) -> None:
        """Be connected."""
        await self.q._backend.current().client.connect()

    async def one_by_one(self, arguments: Arguments) -> None:
        """Enqueue each job when the one before is there."""
        enqueue = self.tasks.noop.enqueue
        for a, b in arguments:
            await enqueue(a, b)

    async def gathered(self, arguments: Arguments) -> None:
        """Enqueue singly, a thousand at once."""
        enqueue = self.tasks.noop.enqueue
        for at in range(0, len(arguments), _GATHERED):
            await asyncio.gather(*[enqueue(a, b) for a, b in arguments[at : at + _GATHERED]])

    async def bulk(self, arguments: Arguments, task: Task[Any, Any] | None = None) -> str:
        """Enqueue all with one call, `task` instead of the no-op; the id of the last job."""
        sign = (task or self.tasks.noop).s
        return (await self.q.enqueue_many([sign(a, b) for a, b in arguments]))[-1].id

    async def top_up(self, count: int, *, delay: float | None = None) -> None:
        """Enqueue many jobs that are not measured, due now or after `delay` seconds."""
        sign = self.tasks.noop.options(delay=delay).s
        for at in range(0, count, _TOP_UP):
            await self.q.enqueue_many([sign(1, 2)] * min(_TOP_UP, count - at))

    async def aclose(self) -> None:
        """Close the connection."""
        await self.q.aclose()
