"""A call through a queue by hand, with the limit's promises: two scripts, two pushes, nothing else.

The one worker is known and idle, so a job is given to it where it is added; who waits is known too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack

from benchmarks.adapters.by_hand import (
    GROUP,
    JOB,
    LUA,
    STREAM,
    TTL_MS,
    called,
    connect,
    functions,
    new_ids,
    packed,
)
from benchmarks.gate import Gate

__all__ = ["Caller", "serve"]

_WORKER, _WORK, _DONE = "worker", "by-hand:work", "by-hand:done"


class Caller:
    """Calls functions of the worker and waits for what they return."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._results = self._client.pubsub(ignore_subscribe_messages=True)
        self._ids = new_ids()
        self._sha = ""

    async def prepare(self) -> None:
        """Make the stream and its group, load the script, listen."""
        self._sha = await self._client.script_load((LUA / "limit_call.lua").read_text())
        await self._client.execute_command("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")
        await self._results.subscribe(_DONE)
        await self._results.get_message(timeout=1)

    async def call(self, pair: tuple[int, int]) -> Any:
        """Call the no-op; its result."""
        await self._client.execute_command(
            *("EVALSHA", self._sha, 2, STREAM, JOB, _WORKER, _WORK),
            *(next(self._ids), packed("noop", pair), _DONE),
        )
        return msgpack.unpackb(await _next(self._results))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._results.aclose()
        await self._client.aclose()


async def serve(url: str, gate: Gate, until: Awaitable[object], ready: Callable[[], None]) -> None:
    """Answer calls until `until` ends; `ready` is called as soon as they are taken."""
    client, known = connect(url), functions(gate)
    calls = client.pubsub(ignore_subscribe_messages=True)
    sha = await client.script_load((LUA / "limit_answer.lua").read_text())
    await calls.subscribe(_WORK)
    await calls.get_message(timeout=1)

    async def answer() -> None:
        while True:
            entry_id, job_id, lease, payload = msgpack.unpackb(await _next(calls), raw=True)
            result = await called(known, payload)
            await client.execute_command(
                "EVALSHA", sha, 2, STREAM, JOB, TTL_MS, entry_id, job_id, lease, result
            )

    answering = asyncio.create_task(answer())
    ready()
    await until
    answering.cancel()
    await calls.aclose()
    await client.aclose()


async def _next(subscription: Any) -> bytes:
    while True:
        message = await subscription.get_message(timeout=None)
        if message is not None:
            return message["data"]
