"""A worker process, seen from the one that measures."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

__all__ = ["WorkerProcess", "worker_process"]

ROOT = Path(__file__).resolve().parent.parent
_ANSWER_SECONDS = 600.0
_END_SECONDS = 20.0


class WorkerProcess:
    """A process that follows the orders of `worker_child`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders = process.stdin
        self._answers = process.stdout

    @classmethod
    async def spawn(cls, module: str, url: str, loop: str) -> WorkerProcess:
        """Start `python -m benchmarks.<module>`; returns before it is up."""
        pipe = asyncio.subprocess.PIPE
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"benchmarks.{module}", url, loop),
                stdin=pipe,
                stdout=pipe,
                cwd=ROOT,
            )
        )

    async def call(self, order: dict[str, Any]) -> dict[str, float]:
        """Give an order and wait for its answer."""
        self._orders.write(json.dumps(order).encode() + b"\n")
        await self._orders.drain()
        async with asyncio.timeout(_ANSWER_SECONDS):
            line = await self._answers.readline()
        if not line:
            raise RuntimeError(f"the worker process ended at {order}; its error stands above")
        return json.loads(line)

    async def aclose(self) -> None:
        """End it: it leaves when its orders end, and is killed when it does not."""
        self._orders.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def worker_process(module: str, url: str, loop: str) -> AsyncGenerator[WorkerProcess]:
    """A worker process for the time of a block."""
    process = await WorkerProcess.spawn(module, url, loop)
    try:
        yield process
    finally:
        await process.aclose()
