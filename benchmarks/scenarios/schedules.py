"""Schedules: how late many fires at once are, what resting ones cost, what adding one costs."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack, closing
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.measuring import Findings, Metrics, at_most
from benchmarks.plan import Plan
from benchmarks.server import Server
from taskq import TaskQ, at, cron, current_job

__all__ = ["schedules"]

FIRED, RESTING = "fires of one second", "all at rest"
_REST_SECONDS = 5.0
_AHEAD_SECONDS = 4.0
_TOGETHER = 100
_NEVER = cron("0 0 1 1 *")


async def schedules(plan: Plan) -> Findings:
    """Lateness of fires that come at once beside many others, and the cost of those others."""
    many = {"short": 1_000, "full": 10_000, "long": 100_000}[plan.mode]
    fires = min(many // 10, 1_000)
    findings = Findings(
        f"{many:,} schedules, {fires:,} of them fire at the same instant and their jobs run; "
        "leader and worker in one process"
    )
    few_row, many_row = "added beside 10", f"added beside {many:,}"
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        side = _Side(server)
        stack.push_async_callback(side.q.aclose)
        await side.fill(10)
        for number in range(plan.runs):
            findings.rows.setdefault(few_row, []).append(await side.add(f"few{number}"))
        await side.fill(many)
        for number in range(plan.runs):
            findings.rows.setdefault(many_row, []).append(await side.add(f"many{number}"))
        await stack.enter_async_context(side.q.worker(concurrency=100))
        for number in range(plan.runs):
            findings.rows.setdefault(FIRED, []).append(await side.fire(fires, number))
            findings.rows.setdefault(RESTING, []).append(await side.rest())
    findings.take(
        "schedule_p99_ms", f"p99 lateness of {fires:,} fires at once, ms", FIRED, "p99_ms",
        at_most(250),
    )  # fmt: skip
    findings.take(
        "schedule_idle_percent", f"{many:,} schedules at rest, % of a core (leader and server)",
        RESTING, "core_percent", at_most(1.0),
    )  # fmt: skip
    findings.compare(
        "schedule_add_growth", f"server CPU of adding one: beside {many:,}, in that beside 10",
        (many_row, "server_us"), (few_row, "server_us"), at_most(1.25),
    )  # fmt: skip
    return findings


class _Side:
    """One server with schedules on it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lateness: list[float] = []
        self._count = 0
        self._wanted = 0
        self._all = asyncio.Event()
        self.q = TaskQ(server.url)

        @self.q.task(name="bench.fired", result_ttl=0)
        async def fired() -> None:
            slot = current_job().scheduled_for
            assert slot is not None
            # Until it runs, by the clock of the machine that both share.
            self._lateness.append(time.time() - slot.timestamp())
            if len(self._lateness) == self._wanted:
                self._all.set()

        self.task = fired

    async def fill(self, count: int) -> None:
        """Have so many schedules that do not fire."""
        while self._count < count:
            some = range(self._count, min(self._count + _TOGETHER, count))
            add = self.q.schedules.add
            await asyncio.gather(*(add(f"rests{n}", _NEVER, self.task) for n in some))
            self._count = some.stop

    async def add(self, name: str) -> Metrics:
        """Add and remove some, one after the other."""
        await self._server.quiet()
        before, began = self._server.cpu(), time.perf_counter()
        for n in range(_TOGETHER * 2):
            await self.q.schedules.add(f"{name}-{n}", _NEVER, self.task)
        wall, cpu = time.perf_counter() - began, self._server.cpu() - before
        for n in range(_TOGETHER * 2):
            await self.q.schedules.remove(f"{name}-{n}")
        each = 1e6 / (_TOGETHER * 2)
        return {"add_us": wall * each, "server_us": cpu * each}

    async def fire(self, count: int, number: int) -> Metrics:
        """Have `count` schedules fire at one instant, and wait for their jobs."""
        self._lateness.clear()
        self._all.clear()
        self._wanted = count
        when = at((datetime.now(UTC) + timedelta(seconds=_AHEAD_SECONDS)).replace(microsecond=0))
        for first in range(0, count, _TOGETHER):
            names = [f"fires{number}-{n}" for n in range(first, min(first + _TOGETHER, count))]
            await asyncio.gather(*(self.q.schedules.add(n, when, self.task) for n in names))
        await self._all.wait()
        cuts = statistics.quantiles(self._lateness, n=100, method="inclusive")
        return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}

    async def rest(self) -> Metrics:
        """What a while without fires costs, the worker's own beats included."""
        await self._server.quiet()
        before: Any = self._server.cpu() + time.process_time()
        await asyncio.sleep(_REST_SECONDS)
        used = self._server.cpu() + time.process_time() - before
        return {"core_percent": 100 * used / _REST_SECONDS}
