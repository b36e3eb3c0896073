"""Bare: the least that a stored result and a late acknowledgement need, by hand, in batches.

No states, no attempts, no fences: a queue that does only this has nothing to recover with.
"""

from __future__ import annotations

from typing import Any

from benchmarks.adapters.batches import BATCH, BatchProducer, BatchWorker
from benchmarks.adapters.by_hand import GROUP, RESULT, STREAM, TTL_MS, called, entries_of
from benchmarks.gate import Gate

__all__ = ["BareProducer", "BareWorker"]


class BareProducer(BatchProducer):
    """Adds jobs to the stream, payload and all."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "bare_bulk.lua", (STREAM,))


class BareWorker(BatchWorker):
    """Takes entries with the command itself; a result is a key of its own."""

    def __init__(self, url: str, gate: Gate) -> None:
        super().__init__(url, gate)
        # Its parser makes dictionaries that are not needed.
        self.client.response_callbacks.pop("XREADGROUP", None)
        self._finish = ""

    async def prepare(self) -> None:
        self._finish = await self.load("bare_finish.lua")

    async def fetch(self) -> list[Any]:
        reply = await self.client.execute_command(
            "XREADGROUP", "GROUP", GROUP, "worker", "COUNT", BATCH, "STREAMS", STREAM, ">"
        )
        return entries_of(reply)

    async def one(self, job: Any) -> tuple[Any, ...]:
        entry_id, fields = job
        return entry_id, fields[1], await called(self.functions, fields[3])

    async def store(self, frames: list[Any]) -> None:
        await self.client.execute_command(
            "EVALSHA", self._finish, 1, STREAM, RESULT, TTL_MS, *frames
        )
