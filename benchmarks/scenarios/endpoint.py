"""What background tasks cost an endpoint: its latency beside them, its throughput with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path

from benchmarks.measuring import Findings, Metrics, at_least, at_most, interleaved
from benchmarks.plan import Plan

__all__ = ["endpoint"]

ALONE, BESIDE = "an endpoint", "the same beside 1,000 pending tasks"
OURS, THEIRS = "one add_task, taskq's", "one add_task, FastAPI's"
CONNECTIONS = 10


async def endpoint(plan: Plan) -> Findings:
    """A uvicorn with each kind of tasks, in processes of their own, and a bare asyncio client."""
    requests = plan.count(1_000, 5_000, 20_000)
    findings = Findings(f"{requests:,} requests over {CONNECTIONS} connections, h11")
    async with _serving("taskq") as ours, _serving("fastapi") as theirs:

        async def beside() -> Metrics:
            await _ask(ours, "/fill", 1, 1)
            metrics = await _ask(ours, "/plain", requests)
            await _ask(ours, "/empty", 1, 1)
            return metrics

        sides: dict[str, Callable[[], Awaitable[Metrics]]] = {
            ALONE: lambda: _ask(ours, "/plain", requests),
            BESIDE: beside,
            OURS: lambda: _ask(ours, "/one", requests),
            THEIRS: lambda: _ask(theirs, "/one", requests),
        }
        await interleaved(plan, findings, sides)
    findings.compare(
        "endpoint_beside_tasks",
        "endpoint: p99 beside 1,000 pending tasks, of that without",
        (BESIDE, "p99_ms"),
        (ALONE, "p99_ms"),
        at_most(1.5),
    )
    findings.compare(
        "endpoint_add_task",
        "endpoint: requests/s with one add_task, of FastAPI's",
        (OURS, "requests_per_s"),
        (THEIRS, "requests_per_s"),
        at_least(1),
    )
    return findings


@contextlib.asynccontextmanager
async def _serving(kind: str) -> AsyncGenerator[str, None]:
    """The path of the socket on which the application answers."""
    with tempfile.TemporaryDirectory(prefix="tqb") as folder:
        path = f"{folder}/s"
        options = ["--uds", path, "--http", "h11", "--log-level", "error", "--no-access-log"]
        process = subprocess.Popen(  # noqa: ASYNC220 - before anything is measured
            [sys.executable, "-m", "uvicorn", *options, "benchmarks.web_app:app"],
            env=os.environ | {"KIND": kind},
        )
        try:
            while not Path(path).exists():  # noqa: ASYNC240
                await asyncio.sleep(0.05)
                if process.poll() is not None:
                    raise RuntimeError("the web server did not start")
            await asyncio.sleep(0.2)
            yield path
        finally:
            process.terminate()
            process.wait(20)


async def _ask(path: str, where: str, requests: int, connections: int = CONNECTIONS) -> Metrics:
    took: list[float] = []
    left = iter(range(requests))
    message = f"GET {where} HTTP/1.1\r\nHost: app\r\n\r\n".encode()

    async def ask() -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in left:
            began = time.perf_counter()
            writer.write(message)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(len(b"null"))
            took.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(connections)))
    wall = time.perf_counter() - began
    took.sort()
    return {
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[int(len(took) * 0.99)] * 1e3,
        "requests_per_s": requests / wall,
    }
