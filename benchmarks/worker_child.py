"""Inside a worker process: orders come as lines on stdin, answers go as lines to stdout.

Orders, as JSON: `{"do": "drain", "jobs": N, ...}` runs N jobs and measures itself;
`{"do": "serve", ...}` works until the next line comes. The process ends with its stdin.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.loops import run
from benchmarks.processor import seconds_waited

__all__ = ["Hands", "Measured", "Order", "follow_orders", "timed"]

Order = dict[str, Any]
Measured = dict[str, float]

_STATM = Path("/proc/self/statm")


class Hands(Protocol):
    """What does the work in a worker process."""

    async def drain(self, order: Order) -> Measured:
        """Run `order["jobs"]` jobs; what `timed` measured of it."""
        ...

    async def serve(self, order: Order, until: Awaitable[object]) -> None:
        """Work until `until` ends; print the answer `{}` as soon as jobs are taken."""
        ...


def follow_orders(make: Callable[[str], Hands]) -> None:
    """Run the orders that come on stdin. The command line is the server's URL and the loop."""
    url, loop = sys.argv[1:3]
    # Warnings of the worker about jobs that wait behind the last one do not matter here.
    logging.basicConfig(level=logging.ERROR)
    run(lambda: _follow(make(url)), loop)


def answer(measured: Measured) -> None:
    """Send one answer."""
    print(json.dumps(measured), flush=True)


async def timed(work: Awaitable[object]) -> Measured:
    """Await `work`; seconds of wall time, CPU time and waiting for a processor; bytes of memory."""
    gc.collect()
    waited, cpu, wall = seconds_waited(), time.process_time(), time.perf_counter()
    await work
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "waited": seconds_waited() - waited,
        "rss": _resident(),
    }


async def _follow(hands: Hands) -> None:
    while line := await asyncio.to_thread(sys.stdin.readline):
        order: Order = json.loads(line)
        if order["do"] == "drain":
            answer(await hands.drain(order))
        else:
            await hands.serve(order, asyncio.to_thread(sys.stdin.readline))
            answer({})


def _resident() -> float:
    try:
        return float(int(_STATM.read_text().split()[1]) * resource.getpagesize())
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)
