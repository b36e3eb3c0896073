"""The curve: what a job costs with more and more others in the queue, or waiting for their time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing

from benchmarks.adapters.by_hand import Arguments
from benchmarks.adapters.taskq_producer import TaskqProducer
from benchmarks.measuring import (
    Findings,
    Metrics,
    at_most,
    drain_once,
    enqueue_once,
    interleaved,
)
from benchmarks.plan import Plan
from benchmarks.server import Server
from benchmarks.worker_parent import worker_process

__all__ = ["delayed", "depth"]

_DAY = 86_400.0

Side = Callable[[], Awaitable[Metrics]]
Fill = Callable[[Server, TaskqProducer], Awaitable[None]]


async def depth(plan: Plan) -> Findings:
    """The cost of a job with 10 to 1,000,000 others queued behind it."""
    depths = {
        "short": [10, 10_000],
        "full": [10, 1_000, 100_000],
        "long": [10, 1_000, 100_000, 1_000_000],
    }[plan.mode]
    return await _curve(plan, "depth", "queued", depths, None)


async def delayed(plan: Plan) -> Findings:
    """The cost of a job while 0 to 100,000 others wait for their time."""
    counts = [0, 10_000] if plan.mode == "short" else [0, 10_000, 100_000]
    return await _curve(plan, "delayed", "delayed", counts, _DAY)


async def _curve(
    plan: Plan, name: str, word: str, counts: list[int], delay: float | None
) -> Findings:
    """One side for each count, and a control: the fewest, beside as many foreign keys.

    A server with more in it has more misses in the processor's caches, whatever the keys are for.
    What the control costs is that; only what comes on top of it is the queue's.
    """
    jobs = plan.count(2_000, 5_000, 5_000)
    findings = Findings(
        f"{jobs:,} jobs are enqueued and as many run, with others {word}; "
        f"concurrency 100, {plan.loop}"
    )
    fewest, most = counts[0], counts[-1]
    fills = {f"{count:,} {word}": _jobs(count, delay) for count in counts}
    first, last = f"{fewest:,} {word}", f"{most:,} {word}"
    control = f"{first}, {most:,} foreign keys"
    fills[control] = _foreign(most)
    async with AsyncExitStack() as stack:
        sides = {
            row: await _point(stack, plan, plan.arguments(jobs), fill)
            for row, fill in fills.items()
        }
        await interleaved(plan, findings, sides)
    for step in ("enqueue", "drain"):
        metric = f"{step}_server_us"
        text = f"server CPU a job, {step}: {last}, in those with"
        findings.compare(
            f"{name}_{step}_growth", f"{text} {first}", (last, metric), (first, metric)
        )
        findings.compare(
            f"{name}_{step}_of_control",
            f"{text} {control}",
            (last, metric),
            (control, metric),
            at_most(1.25),
        )
    return findings


def _jobs(count: int, delay: float | None) -> Fill:
    async def fill(_: Server, producer: TaskqProducer) -> None:
        await producer.top_up(count, delay=delay)

    return fill


def _foreign(count: int) -> Fill:
    async def fill(server: Server, _: TaskqProducer) -> None:
        server.add_foreign_keys(count)

    return fill


async def _point(stack: AsyncExitStack, plan: Plan, arguments: Arguments, fill: Fill) -> Side:
    server = stack.enter_context(closing(Server()))
    producer = TaskqProducer(server.url)
    stack.push_async_callback(producer.aclose)
    await fill(server, producer)
    worker = await stack.enter_async_context(worker_process("taskq_worker", server.url, plan.loop))

    async def side() -> Metrics:
        added = await enqueue_once(server, len(arguments), lambda: producer.bulk(arguments))
        drained = await drain_once(server, worker, len(arguments), concurrency=100)
        return {
            "enqueue_us": 1e6 / added["jobs_per_s"],
            "enqueue_server_us": added["server_us"],
            "drain_us": 1e6 / drained["jobs_per_s"],
            "drain_server_us": drained["server_us"],
            "worker_us": drained["worker_us"],
            "waited": drained["waited"],
        }

    return side
