"""A worker process by hand: `python -m benchmarks.redis_worker URL LOOP`, orders on stdin."""

from __future__ import annotations

from collections.abc import Awaitable

from benchmarks.adapters.bare import BareWorker
from benchmarks.adapters.calls import serve
from benchmarks.adapters.limit import LimitWorker
from benchmarks.adapters.pipeline import PipelineWorker
from benchmarks.gate import Gate
from benchmarks.worker_child import Measured, Order, answer, follow_orders, timed

__all__ = ["RedisHands"]

_KINDS = {"bare": BareWorker, "limit": LimitWorker, "pipeline": PipelineWorker}


class RedisHands:
    """Does jobs with the adapter that the order names."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._gate = Gate()

    async def drain(self, order: Order) -> Measured:
        """Run so many jobs, until the server has all results."""
        self._gate.open(order["jobs"])
        return await timed(_KINDS[order["adapter"]](self._url, self._gate).drain())

    async def serve(self, order: Order, until: Awaitable[object]) -> None:
        """Answer calls by hand until stopped."""
        self._gate.open(1_000_000_000)
        await serve(self._url, self._gate, until, lambda: answer({}))


if __name__ == "__main__":
    follow_orders(RedisHands)
