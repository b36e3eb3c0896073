"""What both ways by hand share: redis-py with hiredis, job ids, and how a job is called."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack
import redis.asyncio

from benchmarks.gate import Gate

__all__ = [
    "GROUP",
    "JOB",
    "LUA",
    "RESULT",
    "STREAM",
    "TTL_MS",
    "Arguments",
    "Functions",
    "connect",
    "functions",
    "new_ids",
]

STREAM = "by-hand:jobs"
RESULT = "by-hand:result:"
JOB = "by-hand:job:"
GROUP = "g"
LUA = Path(__file__).parent / "lua"
TTL_MS = 3_600_000

Arguments = Sequence[tuple[int, int]]
Functions = dict[str, Callable[..., Coroutine[Any, Any, Any]]]


def connect(url: str) -> Any:
    """A redis-py client. Typed as Any: redis-py's own annotations leave too much open."""
    client: Any = redis.asyncio.Redis(
        unix_socket_path=url.removeprefix("unix://"), socket_timeout=None
    )
    return client


def new_ids() -> Iterator[str]:
    """Ids that are unique and cost next to nothing."""
    prefix = os.urandom(8).hex()
    return (f"{prefix}{number}" for number in itertools.count())


def functions(gate: Gate) -> Functions:
    """The functions a worker by hand knows, by name."""

    async def noop(a: int, b: int) -> None:
        gate.done += 1
        if gate.done >= gate.target:
            await gate.full()

    return {"noop": noop}


def entries_of(reply: Any) -> list[Any]:
    """The entries of the one stream that was read; their wrapping depends on the protocol."""
    if not reply:
        return []
    # RESP3 gives {stream: entries}, RESP2 [[stream, entries]].
    if hasattr(reply, "values"):
        return next(iter(reply.values()))
    return reply[0][1]


def packed(name: str, arguments: tuple[int, int]) -> bytes:
    """A call as it travels."""
    return msgpack.packb((name, arguments))


async def called(known: Functions, payload: bytes) -> bytes:
    """Do what `packed` asked for; the result as it is stored."""
    name, arguments = msgpack.unpackb(payload)
    return msgpack.packb(await known[name](*arguments))
