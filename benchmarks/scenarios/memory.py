"""What queued jobs take on the server, and what finished ones leave."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, closing

from benchmarks.adapters.by_hand import Arguments
from benchmarks.adapters.limit import LimitProducer
from benchmarks.adapters.taskq_producer import TaskqProducer
from benchmarks.measuring import Figure, Findings, Metrics, at_most
from benchmarks.plan import Plan
from benchmarks.server import Server
from benchmarks.worker_parent import worker_process

__all__ = ["memory"]

TASKQ, LIMIT = "taskq", "limit"
_WARM_UP = 100


async def memory(plan: Plan) -> Findings:
    """Bytes per queued job, and keys that jobs with `result_ttl=0` leave behind."""
    jobs = plan.count(20_000, 50_000, 100_000)
    arguments = plan.arguments(jobs)
    rounds = 1 if plan.mode == "short" else plan.runs  # it is counted, not timed
    findings = Findings(f"{jobs:,} queued jobs with two small integers")
    for name, make in ((TASKQ, TaskqProducer), (LIMIT, LimitProducer)):
        findings.rows[name] = [await _queued(make, arguments) for _ in range(rounds)]
    findings.take(
        "bytes_per_job", "server memory per queued job, bytes", TASKQ, "bytes_per_job", at_most(250)
    )
    finished = plan.count(2_000, 10_000, 10_000)
    left = await _left_behind(plan, plan.arguments(finished))
    findings.figures["keys_left"] = Figure(
        f"keys left by {finished:,} finished jobs with result_ttl=0", [float(len(left))], at_most(0)
    )
    if left:
        findings.note += f"; left behind: {', '.join(sorted(left)[:5])}"
    return findings


async def _queued(
    make: Callable[[str], TaskqProducer] | Callable[[str], LimitProducer], arguments: Arguments
) -> Metrics:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        producer = make(server.url)
        stack.push_async_callback(producer.aclose)
        await producer.prepare()
        await producer.bulk(arguments[:_WARM_UP])
        empty = await _settled(server)
        await producer.bulk(arguments)
        return {"bytes_per_job": (await _settled(server) - empty) / len(arguments)}


async def _settled(server: Server) -> int:
    await server.quiet()
    return server.memory()


async def _left_behind(plan: Plan, arguments: Arguments) -> set[str]:
    """Keys that were not there after the first jobs.

    Without those that no job leaves: the counters of a new minute, and who led the schedulers.
    """
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        producer = TaskqProducer(server.url)
        stack.push_async_callback(producer.aclose)
        worker = await stack.enter_async_context(
            worker_process("taskq_worker", server.url, plan.loop)
        )

        async def through(some: Arguments) -> set[str]:
            await producer.bulk(some, producer.tasks.noop_without_result)
            await worker.call({"do": "drain", "jobs": len(some), "concurrency": 100})
            return server.keys()

        before = await through(arguments[:_WARM_UP])
        after = await through(arguments)
    return {key for key in after - before if ":stats:" not in key and not key.endswith(":leader")}
