"""The limit: the least that a stored result and a late acknowledgement need, by hand, in batches.

No states, no attempts, no fences, no beats, no retries: a queue that does only this has nothing to
recover with. It shows what redis-py, hiredis and the server can do, and nothing more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from benchmarks.adapters.by_hand import (
    GROUP,
    RESULT,
    STREAM,
    TTL_MS,
    Arguments,
    called,
    connect,
    entries_of,
    functions,
    new_ids,
    packed,
)
from benchmarks.gate import Gate

__all__ = ["LimitProducer", "LimitWorker"]

_LUA = Path(__file__).parent / "lua"
_BULK = 500
_BATCH = 100


class LimitProducer:
    """Adds jobs: one XADD each, or one script for 500."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._ids = new_ids()
        self._sha = ""

    async def prepare(self) -> None:
        """Make the stream and its group, and load the script."""
        self._sha = await self._client.script_load((_LUA / "bulk.lua").read_text())
        await self._client.execute_command("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")

    async def one_by_one(self, arguments: Arguments) -> None:
        """Add each job when the one before is there."""
        for pair in arguments:
            payload = packed("noop", pair)
            await self._client.execute_command(
                "XADD", STREAM, "*", "i", next(self._ids), "p", payload
            )

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
        await self._client.execute_command("EVALSHA", self._sha, 1, STREAM, *frames)


class LimitWorker:
    """Runs jobs in batches of 100, and fetches ahead while the last batch runs and is stored."""

    def __init__(self, url: str, gate: Gate) -> None:
        self._client = connect(url)
        # Its parser makes dictionaries nobody needs.
        self._client.response_callbacks.pop("XREADGROUP", None)
        self._gate = gate
        self._functions = functions(gate)
        self._sha = ""
        self._ended: list[bytes] = []
        self._left = 0
        self._all_ended = asyncio.Event()

    async def drain(self) -> None:
        """Run jobs until the gate has counted enough and the server has stored them all."""
        self._sha = await self._client.script_load((_LUA / "finish.lua").read_text())
        gate = self._gate
        fetching = asyncio.create_task(self._fetch())
        storing: asyncio.Task[Any] | None = None
        while gate.done < gate.target:
            entries = await fetching
            fetching = asyncio.create_task(self._fetch())
            if not entries:
                continue
            frames = await self._run(entries)
            if storing is not None:
                await storing
            storing = asyncio.create_task(self._store(frames))
        await fetching
        if storing is not None:
            await storing
        await self._client.aclose()

    async def _fetch(self) -> list[Any]:
        reply = await self._client.execute_command(
            "XREADGROUP", "GROUP", GROUP, "worker", "COUNT", _BATCH, "STREAMS", STREAM, ">"
        )
        return entries_of(reply)

    async def _run(self, entries: list[Any]) -> list[bytes]:
        loop = asyncio.get_running_loop()
        self._ended = []
        self._left = len(entries)
        self._all_ended.clear()
        tasks = [loop.create_task(self._one(entry)) for entry in entries]
        await self._all_ended.wait()
        del tasks
        return self._ended

    async def _one(self, entry: list[Any]) -> None:
        entry_id, fields = entry
        result = await called(self._functions, fields[3])
        self._ended += (entry_id, fields[1], result)
        self._left -= 1
        if not self._left:
            self._all_ended.set()

    async def _store(self, frames: list[bytes]) -> None:
        await self._client.execute_command("EVALSHA", self._sha, 1, STREAM, RESULT, TTL_MS, *frames)
