"""The tasks of the benchmarks, for the process that enqueues them and the one that runs them."""

from __future__ import annotations

import asyncio

from benchmarks.gate import Gate
from taskq import TaskQ

__all__ = ["Tasks"]


class Tasks:
    """A TaskQ with a few tasks that do nothing; each passes the gate once it ran."""

    def __init__(self, url: str, gate: Gate) -> None:
        self.q = TaskQ(url)

        async def noop(a: int, b: int) -> None:
            gate.done += 1
            if gate.done >= gate.target:
                await gate.full()

        async def nap(seconds: float) -> None:
            await asyncio.sleep(seconds)
            await noop(0, 0)

        self.noop = self.q.task(name="noop")(noop)
        self.noop_with_timeout = self.q.task(name="noop_with_timeout", timeout=60)(noop)
        self.noop_without_result = self.q.task(name="noop_without_result", result_ttl=0)(noop)
        self.nap = self.q.task(name="nap")(nap)
