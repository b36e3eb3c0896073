"""What both ways by hand with scripts share: batches, and one always on its way."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from benchmarks.adapters.by_hand import (
    GROUP,
    LUA,
    STREAM,
    Arguments,
    connect,
    functions,
    new_ids,
    packed,
)
from benchmarks.gate import Gate

__all__ = ["BATCH", "BatchProducer", "BatchWorker"]

_BULK = 500
BATCH = 100


class BatchProducer:
    """Adds jobs, 500 a call: `script` gets `keys`, then an id and a payload for each."""

    def __init__(self, url: str, script: str, keys: tuple[str, ...]) -> None:
        self._client = connect(url)
        self._ids = new_ids()
        self._script = script
        self._keys = keys
        self._sha = ""

    async def prepare(self) -> None:
        """Make the stream and its group, and load the script."""
        self._sha = await self._client.script_load((LUA / self._script).read_text())
        await self._client.execute_command("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")

    async def one_by_one(self, arguments: Arguments) -> None:
        """Add each job when the one before is there."""
        for pair in arguments:
            await self._send([next(self._ids), packed("noop", pair)])

    async def bulk(self, arguments: Arguments) -> None:
        """Add jobs in batches; the next batch is packed while the server does the last one."""
        sending: asyncio.Task[Any] | None = None
        for at in range(0, len(arguments), _BULK):
            frames: list[str | bytes] = []
            for pair in arguments[at : at + _BULK]:
                frames.append(next(self._ids))
                frames.append(packed("noop", pair))
            if sending is not None:
                await sending
            sending = asyncio.create_task(self._send(frames))
            await asyncio.sleep(0)
        if sending is not None:
            await sending

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _send(self, frames: list[str | bytes]) -> None:
        await self._client.execute_command(
            "EVALSHA", self._sha, len(self._keys), *self._keys, *frames
        )


class BatchWorker(ABC):
    """Runs jobs in batches of 100, and fetches ahead while the last batch runs and is stored."""

    def __init__(self, url: str, gate: Gate) -> None:
        self.client = connect(url)
        self.functions = functions(gate)
        self._gate = gate
        self._ended: list[Any] = []
        self._left = 0
        self._all_ended = asyncio.Event()

    async def drain(self) -> None:
        """Run jobs until the gate has counted enough and the server has stored them all."""
        await self.prepare()
        gate = self._gate
        fetching = asyncio.create_task(self.fetch())
        storing: asyncio.Task[None] | None = None
        while gate.done < gate.target:
            jobs = await fetching
            fetching = asyncio.create_task(self.fetch())
            if not jobs:
                continue
            frames = await self._run(jobs)
            if storing is not None:
                await storing
            storing = asyncio.create_task(self.store(frames))
        await fetching
        if storing is not None:
            await storing
        await self.client.aclose()

    @abstractmethod
    async def prepare(self) -> None:
        """Load the scripts."""

    @abstractmethod
    async def fetch(self) -> list[Any]:
        """The next jobs."""

    @abstractmethod
    async def one(self, job: Any) -> tuple[Any, ...]:
        """Run one job; its part of what is stored."""

    @abstractmethod
    async def store(self, frames: list[Any]) -> None:
        """Store what a batch gave."""

    async def load(self, script: str) -> str:
        """The hash by which the server knows a script from now on."""
        return await self.client.script_load((LUA / script).read_text())

    async def _run(self, jobs: list[Any]) -> list[Any]:
        loop = asyncio.get_running_loop()
        self._ended = []
        self._left = len(jobs)
        self._all_ended.clear()
        tasks = [loop.create_task(self._one(job)) for job in jobs]
        await self._all_ended.wait()
        del tasks
        return self._ended

    async def _one(self, job: Any) -> None:
        self._ended += await self.one(job)
        self._left -= 1
        if not self._left:
            self._all_ended.set()
