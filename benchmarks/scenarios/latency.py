"""How long one job takes through an idle worker, in round trips of the client that waits for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing

from benchmarks.adapters.by_hand import connect
from benchmarks.adapters.calls import Caller
from benchmarks.adapters.taskq_producer import TaskqProducer
from benchmarks.measuring import Findings, Metrics, at_most
from benchmarks.plan import Plan
from benchmarks.server import Server
from benchmarks.worker_parent import WorkerProcess, worker_process

__all__ = ["latency"]

JOB, LIMIT = "job, enqueue to result", "limit, two scripts and two pushes"
PING, REDIS_PING = "PING, taskq's client", "PING, redis-py"
_WARM_UP = 100


async def latency(plan: Plan) -> Findings:
    """One job after the other on an idle worker, each beside a PING of either client; by hand."""
    jobs = plan.count(300, 1_000, 3_000)
    findings = Findings(f"{jobs:,} jobs one after the other, an idle worker, {plan.loop}")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        worker = await stack.enter_async_context(
            worker_process("taskq_worker", server.url, plan.loop)
        )
        await worker.call({"do": "serve", "concurrency": 100})
        producer = TaskqProducer(server.url)
        stack.push_async_callback(producer.aclose)
        steps = await _steps(stack, server, producer)
        other, limit = await _by_hand(stack, plan)
        # In turns of a round, not of a job: five processes would keep each other's caches cold.
        turns = steps, {LIMIT: limit}
        for turn in turns:
            await _rounds(turn, _WARM_UP)
        for turn in turns * plan.runs:
            for name, times in (await _rounds(turn, jobs)).items():
                findings.rows.setdefault(name, []).append(_percentiles(times))
        await worker.call({"do": "leave"})
        await other.call({"do": "leave"})
    _compare(findings)
    return findings


async def _steps(
    stack: AsyncExitStack, server: Server, producer: TaskqProducer
) -> dict[str, Callable[[], Awaitable[object]]]:
    redis_client = connect(server.url)
    stack.push_async_callback(redis_client.aclose)
    await producer.prepare()
    client, enqueue = producer.q._backend.current().client, producer.tasks.noop.enqueue

    async def job() -> None:
        await (await enqueue(1, 2)).result(timeout=30)

    return {JOB: job, PING: lambda: client.command("PING"), REDIS_PING: redis_client.ping}


async def _by_hand(
    stack: AsyncExitStack, plan: Plan
) -> tuple[WorkerProcess, Callable[[], Awaitable[object]]]:
    """The same through a server and a worker of its own."""
    server = stack.enter_context(closing(Server()))
    worker = await stack.enter_async_context(worker_process("redis_worker", server.url, plan.loop))
    await worker.call({"do": "serve"})
    caller = Caller(server.url)
    stack.push_async_callback(caller.aclose)
    await caller.prepare()
    return worker, lambda: caller.call((1, 2))


async def _rounds(
    steps: dict[str, Callable[[], Awaitable[object]]], count: int
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(count):
        for name, step in steps.items():
            start = time.perf_counter()
            await step()
            times[name].append(time.perf_counter() - start)
    return times


def _percentiles(times: list[float]) -> Metrics:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"p50_ms": cuts[49] * 1000, "p99_ms": cuts[98] * 1000}


def _compare(findings: Findings) -> None:
    findings.compare(
        "latency_p50_of_limit",
        "latency: p50 of enqueue to result, of a call by hand",
        (JOB, "p50_ms"),
        (LIMIT, "p50_ms"),
    )
    for metric, goal in (("p50_ms", at_most(3)), ("p99_ms", None)):
        which = metric.partition("_")[0]
        for row, whose, name in (
            (PING, "taskq's client", "own"),
            (REDIS_PING, "redis-py", "redis_py"),
        ):
            findings.compare(
                f"latency_{which}_in_{name}_pings",
                f"latency: {which} of enqueue to result, in median PINGs of {whose}",
                (JOB, metric),
                (row, "p50_ms"),
                goal if row == PING else None,
            )
