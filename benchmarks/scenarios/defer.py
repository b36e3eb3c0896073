"""What a deferred call costs beside a bare asyncio task, in this process and without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from benchmarks.measuring import Findings, Metrics, at_most, interleaved
from benchmarks.plan import Plan
from taskq import TaskQ

__all__ = ["defer"]

ONE, BARE_ONE = "f.defer(), awaited", "create_task(), awaited"
MANY, BARE_MANY = "1,000 f.defer(), then awaited", "1,000 create_task(), then awaited"
NAP, BARE_NAP = "1,000 x 100 ms, deferred", "1,000 x 100 ms, create_task()"
AT_ONCE = 1000

Start = Callable[[], Awaitable[object]]


async def defer(plan: Plan) -> Findings:
    """A coroutine that does nothing, one after the other and many at once; and one that sleeps."""
    calls = plan.count(5_000, 20_000, 50_000)
    findings = Findings(
        f"{calls:,} calls in this process, {plan.loop}; a nap is one round of 1,000"
    )
    q = TaskQ("redis://localhost:1")

    @q.task(name="noop")
    async def noop() -> None: ...

    async def bare() -> None: ...

    async def nap() -> None:
        await asyncio.sleep(0.1)

    def bare_task() -> Awaitable[object]:
        return asyncio.get_running_loop().create_task(bare())

    async with q.deferred:
        sides: dict[str, Callable[[], Awaitable[Metrics]]] = {
            ONE: lambda: _in_turn(calls, noop.defer),
            BARE_ONE: lambda: _in_turn(calls, bare_task),
            MANY: lambda: _at_once(calls, noop.defer),
            BARE_MANY: lambda: _at_once(calls, bare_task),
            NAP: lambda: _at_once(AT_ONCE, lambda: q.defer(nap)),
            BARE_NAP: lambda: _at_once(AT_ONCE, lambda: asyncio.create_task(nap())),
        }
        await interleaved(plan, findings, sides)
    _compare(findings)
    return findings


async def _in_turn(calls: int, start: Start) -> Metrics:
    began = time.perf_counter()
    for _ in range(calls):
        await start()
    return _metrics(began, calls)


async def _at_once(calls: int, start: Start) -> Metrics:
    began = time.perf_counter()
    for _ in range(max(1, calls // AT_ONCE)):
        for started in [start() for _ in range(AT_ONCE)]:
            await started
    return _metrics(began, calls)


def _metrics(began: float, calls: int) -> Metrics:
    wall = time.perf_counter() - began
    return {"call_us": wall / calls * 1e6, "round_ms": wall * 1e3}


def _compare(findings: Findings) -> None:
    metric = "call_us"
    findings.compare(
        "defer_of_create_task",
        "defer: one call and its await, of create_task and its await",
        (ONE, metric),
        (BARE_ONE, metric),
        at_most(3),
    )
    findings.compare(
        "defer_many_of_create_task",
        "defer: 1,000 at once, of create_task",
        (MANY, metric),
        (BARE_MANY, metric),
    )
    findings.take(
        "defer_nap_ms", "defer: 1,000 that sleep 100 ms, ms", NAP, "round_ms", at_most(300)
    )
