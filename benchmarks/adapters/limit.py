"""The limit: what taskq promises of an attempt, by hand, in batches, and nothing else.

A job is a hash, its id travels in a stream. The fetch marks it running, with its worker and the
number of its attempt; the finish refuses a stale one, stores the result for its time and
acknowledges: what a dead worker held can be found and given to another, and its late word is
refused. No priorities, cancels, expiry, retries, waits or beats. It shows what redis-py, hiredis
and the server can do for these promises.
"""

from __future__ import annotations

from typing import Any

from benchmarks.adapters.batches import BATCH, BatchProducer, BatchWorker
from benchmarks.adapters.by_hand import JOB, STREAM, TTL_MS, called
from benchmarks.gate import Gate

__all__ = ["LimitProducer", "LimitWorker"]

_WORKER = "worker"


class LimitProducer(BatchProducer):
    """Adds jobs: a hash and an entry each."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "limit_bulk.lua", (STREAM, JOB))


class LimitWorker(BatchWorker):
    """Takes and ends jobs with a script each."""

    def __init__(self, url: str, gate: Gate) -> None:
        super().__init__(url, gate)
        self._fetch = self._finish = ""

    async def prepare(self) -> None:
        self._fetch = await self.load("limit_fetch.lua")
        self._finish = await self.load("limit_finish.lua")

    async def fetch(self) -> list[Any]:
        return await self.client.execute_command(
            "EVALSHA", self._fetch, 2, STREAM, JOB, _WORKER, BATCH
        )

    async def one(self, job: Any) -> tuple[Any, ...]:
        entry_id, job_id, lease, payload = job
        return entry_id, job_id, lease, await called(self.functions, payload)

    async def store(self, frames: list[Any]) -> None:
        answers: list[int] = await self.client.execute_command(
            "EVALSHA", self._finish, 2, STREAM, JOB, TTL_MS, *frames
        )
        if 0 in answers:
            raise RuntimeError("an outcome was refused, and there is no other worker")
