"""How fast one worker process empties a queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing

from benchmarks.adapters.bare import BareProducer
from benchmarks.adapters.by_hand import Arguments
from benchmarks.adapters.limit import LimitProducer
from benchmarks.adapters.pipeline import PipelineProducer
from benchmarks.adapters.taskq_producer import TaskqProducer
from benchmarks.measuring import (
    Figure,
    Findings,
    Metrics,
    at_least,
    at_most,
    drain_once,
    interleaved,
)
from benchmarks.plan import Plan
from benchmarks.server import Server
from benchmarks.worker_parent import worker_process

__all__ = ["drain", "drain_on_asyncio", "nap"]

CONCURRENCY = 100
NAP_SECONDS = 0.1
NAP_CONCURRENCY = 500
TASKQ, TIMEOUT = "taskq", "taskq, timeout on each"
BARE, LIMIT, PIPELINE = "bare", "limit", "pipeline"

Side = Callable[[], Awaitable[Metrics]]


async def drain(plan: Plan) -> Findings:
    """No-op jobs, results stored: taskq with and without a timeout on each, and by hand."""
    jobs = plan.count(5_000, 20_000, 50_000)
    arguments = plan.arguments(jobs)
    findings = Findings(
        f"{jobs:,} no-op jobs, one worker process, concurrency {CONCURRENCY}, results stored, "
        f"{plan.loop}"
    )
    async with AsyncExitStack() as stack:
        sides = await _with_taskq(stack, plan, arguments)
        for name, producer in (
            (LIMIT, LimitProducer),
            (BARE, BareProducer),
            (PIPELINE, PipelineProducer),
        ):
            sides[name] = await _by_hand(stack, plan, arguments, name, producer)
        await interleaved(plan, findings, sides)
    _compare_rates(findings)
    _compare_cpu(findings)
    return findings


async def drain_on_asyncio(plan: Plan) -> Findings:
    """The same; its figures have names of their own, and no goals."""
    findings = await drain(plan)
    findings.figures = {
        f"asyncio_{name}": Figure(f"{figure.text} (asyncio's loop)", figure.samples)
        for name, figure in findings.figures.items()
    }
    return findings


async def nap(plan: Plan) -> Findings:
    """Jobs that sleep 100 ms: what a full worker loses to its own work."""
    jobs = plan.count(2_500, 5_000, 10_000)
    ideal = NAP_CONCURRENCY / NAP_SECONDS
    findings = Findings(
        f"{jobs:,} jobs that sleep {NAP_SECONDS * 1000:g} ms, concurrency {NAP_CONCURRENCY}: "
        f"{ideal:,.0f} jobs/s at best"
    )
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        producer = TaskqProducer(server.url)
        stack.push_async_callback(producer.aclose)
        worker = await stack.enter_async_context(
            worker_process("taskq_worker", server.url, plan.loop)
        )

        async def side() -> Metrics:
            server.clear()
            sign = producer.tasks.nap.s
            last = (await producer.q.enqueue_many([sign(NAP_SECONDS)] * jobs))[-1].id
            metrics = await drain_once(server, worker, jobs, concurrency=NAP_CONCURRENCY, last=last)
            return metrics | {"of_ideal": metrics["jobs_per_s"] / ideal}

        await interleaved(plan, findings, {TASKQ: side})
    findings.take(
        "nap_of_ideal", "sleep 100 ms at concurrency 500: of the ideal", TASKQ, "of_ideal"
    )
    return findings


async def _with_taskq(stack: AsyncExitStack, plan: Plan, arguments: Arguments) -> dict[str, Side]:
    server = stack.enter_context(closing(Server()))
    producer = TaskqProducer(server.url)
    stack.push_async_callback(producer.aclose)
    worker = await stack.enter_async_context(worker_process("taskq_worker", server.url, plan.loop))

    async def plain() -> Metrics:
        server.clear()
        last = await producer.bulk(arguments)
        return await drain_once(server, worker, len(arguments), concurrency=CONCURRENCY, last=last)

    async def with_timeout() -> Metrics:
        server.clear()
        last = await producer.bulk(arguments, producer.tasks.noop_with_timeout)
        return await drain_once(server, worker, len(arguments), concurrency=CONCURRENCY, last=last)

    return {TASKQ: plain, TIMEOUT: with_timeout}


async def _by_hand(
    stack: AsyncExitStack,
    plan: Plan,
    arguments: Arguments,
    adapter: str,
    make: type[LimitProducer] | type[BareProducer] | type[PipelineProducer],
) -> Side:
    server = stack.enter_context(closing(Server()))
    producer = make(server.url)
    stack.push_async_callback(producer.aclose)
    worker = await stack.enter_async_context(worker_process("redis_worker", server.url, plan.loop))

    async def side() -> Metrics:
        server.clear()
        await producer.prepare()
        await producer.bulk(arguments)
        return await drain_once(server, worker, len(arguments), adapter=adapter)

    return side


def _compare_rates(findings: Findings) -> None:
    rate = "jobs_per_s"
    findings.compare(
        "drain_of_limit",
        "drain: taskq, of the limit",
        (TASKQ, rate),
        (LIMIT, rate),
        at_least(0.6),
    )
    findings.compare(
        "drain_of_bare", "drain: taskq, of a queue without promises", (TASKQ, rate), (BARE, rate)
    )
    findings.compare(
        "timeout_of_drain",
        "drain: with a timeout on each job, of without",
        (TIMEOUT, rate),
        (TASKQ, rate),
        at_least(0.8),
    )
    findings.compare(
        "limit_of_pipeline",
        "drain: the limit, in pipelines",
        (LIMIT, rate),
        (PIPELINE, rate),
        at_least(2.5),
    )


def _compare_cpu(findings: Findings) -> None:
    findings.take("drain_server_us", "drain: server CPU, µs a job", TASKQ, "server_us", at_most(30))
    findings.take("drain_worker_us", "drain: worker CPU, µs a job", TASKQ, "worker_us")
    for metric, who in (("server_us", "server"), ("worker_us", "worker")):
        findings.compare(
            f"drain_{who}_cpu_of_limit",
            f"drain: {who} CPU of taskq, in limits",
            (TASKQ, metric),
            (LIMIT, metric),
        )
