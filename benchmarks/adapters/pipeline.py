"""The obvious way by hand: redis-py pipelines with three commands a job, and no scripts."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.adapters.by_hand import (
    GROUP,
    RESULT,
    STREAM,
    TTL_MS,
    Arguments,
    Functions,
    called,
    connect,
    entries_of,
    functions,
    new_ids,
    packed,
)
from benchmarks.gate import Gate

__all__ = ["PipelineProducer", "PipelineWorker"]

_BULK = 500
_BATCH = 100


class PipelineProducer:
    """Adds jobs: one XADD each, or a pipeline of 500 of them."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._ids = new_ids()

    async def prepare(self) -> None:
        """Make the stream and its group."""
        await self._client.xgroup_create(STREAM, GROUP, "0", mkstream=True)

    async def one_by_one(self, arguments: Arguments) -> None:
        """Add each job when the one before is there."""
        for pair in arguments:
            await self._client.xadd(STREAM, {"i": next(self._ids), "p": packed("noop", pair)})

    async def bulk(self, arguments: Arguments) -> None:
        """Add jobs, a pipeline at a time."""
        for at in range(0, len(arguments), _BULK):
            pipeline = self._client.pipeline(transaction=False)
            for pair in arguments[at : at + _BULK]:
                pipeline.xadd(STREAM, {"i": next(self._ids), "p": packed("noop", pair)})
            await pipeline.execute()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class PipelineWorker:
    """Reads 100 jobs, runs them, stores and acknowledges them in one pipeline, and goes on."""

    def __init__(self, url: str, gate: Gate) -> None:
        self._client = connect(url)
        self._gate = gate
        self._functions: Functions = functions(gate)

    async def drain(self) -> None:
        """Run jobs until the gate has counted enough and the server has stored them all."""
        while self._gate.done < self._gate.target:
            reply = await self._client.xreadgroup(GROUP, "worker", {STREAM: ">"}, count=_BATCH)
            entries = entries_of(reply)
            if entries:
                await self._run(entries)
        await self._client.aclose()

    async def _run(self, entries: list[Any]) -> None:
        tasks = [
            asyncio.create_task(called(self._functions, fields[b"p"])) for _, fields in entries
        ]
        results = await asyncio.gather(*tasks)
        pipeline = self._client.pipeline(transaction=False)
        for (entry_id, fields), result in zip(entries, results, strict=True):
            pipeline.set(RESULT + fields[b"i"].decode(), result, px=TTL_MS)
            pipeline.xack(STREAM, GROUP, entry_id)
            pipeline.xdel(STREAM, entry_id)
        await pipeline.execute()
