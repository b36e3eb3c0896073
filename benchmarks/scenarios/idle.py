"""What idle workers cost the server, and whether that grows with their number."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, closing

from benchmarks.measuring import Findings, Metrics, at_most
from benchmarks.plan import Plan
from benchmarks.server import Server
from taskq import TaskQ

__all__ = ["idle"]

_SETTLE_SECONDS = 8.0
_STARTED_AT_ONCE = 25
_SENT = ("evalsha", "eval", "ping")
"""What workers send; what scripts call is not a command of theirs."""


async def idle(plan: Plan) -> Findings:
    """Bytes, commands and server CPU of one idle worker a second, by the number of workers."""
    numbers = [10] if plan.mode == "short" else [10, 500]
    seconds = 3.0 if plan.mode == "short" else 10.0
    findings = Findings(
        f"idle workers on one queue, {seconds:g} s, all in this process, schedulers standing by"
    )
    for number in numbers:
        findings.rows[f"{number} workers"] = [await _measured(number, seconds)]
    most = f"{numbers[-1]} workers"
    for name, text, bound in (
        ("idle_bytes", "bytes an idle worker moves a second", 2_000.0),
        ("idle_commands", "commands an idle worker sends a second", 6.0),
    ):
        findings.take(name, f"{text}, of {most}", most, name, at_most(bound))
    if len(numbers) > 1:
        few = f"{numbers[0]} workers"
        text = f"server CPU of an idle worker: {numbers[-1]} beside {numbers[0]} workers"
        findings.compare("idle_growth", text, (most, "idle_cpu"), (few, "idle_cpu"))
    return findings


async def _measured(number: int, seconds: float) -> Metrics:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        q = TaskQ(server.url)
        q.task(name="noop")(_noop)
        stack.push_async_callback(q.aclose)
        for first in range(0, number, _STARTED_AT_ONCE):
            await asyncio.gather(
                *(
                    stack.enter_async_context(q.worker(["default"]))
                    for _ in range(first, min(first + _STARTED_AT_ONCE, number))
                )
            )
        await asyncio.sleep(_SETTLE_SECONDS)
        before = _counters(server)
        await asyncio.sleep(seconds)
        after = _counters(server)
        each = {name: (after[name] - before[name]) / seconds / number for name in before}
        return each | {"idle_cpu": each["idle_cpu"] * 1e6}


async def _noop() -> None: ...


def _counters(server: Server) -> Metrics:
    stats, commands = server.info("stats"), server.info("commandstats")
    return {
        "idle_bytes": stats["total_net_input_bytes"] + stats["total_net_output_bytes"],
        "idle_commands": sum(commands.get(f"cmdstat_{name}", {}).get("calls", 0) for name in _SENT),
        "idle_cpu": server.cpu(),
    }
