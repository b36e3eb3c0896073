"""How fast one process enqueues."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from typing import TypeVar

from benchmarks.adapters.bare import BareProducer
from benchmarks.adapters.batches import BatchProducer
from benchmarks.adapters.by_hand import Arguments
from benchmarks.adapters.limit import LimitProducer
from benchmarks.adapters.pipeline import PipelineProducer
from benchmarks.adapters.taskq_producer import TaskqProducer
from benchmarks.measuring import Findings, Metrics, at_least, enqueue_once, interleaved
from benchmarks.plan import Plan
from benchmarks.server import Server

__all__ = ["enqueue"]

ONE, GATHER, MANY = "taskq, one by one", "taskq, gather of 1,000", "taskq, enqueue_many"
LIMIT_ONE, LIMIT_BULK = "limit, a script call each", "limit, script for 500"
BARE_BULK = "bare, script for 500"
PIPELINE_BULK = "pipeline of 500 XADDs"

P = TypeVar("P", TaskqProducer, BatchProducer, PipelineProducer)
Side = Callable[[], Awaitable[Metrics]]


async def enqueue(plan: Plan) -> Findings:
    """Jobs with two small integers: singly, gathered, together; taskq and by hand."""
    jobs = plan.count(10_000, 20_000, 50_000)
    arguments = plan.arguments(jobs)
    few = arguments[: max(1, jobs // 10)]
    findings = Findings(
        f"{jobs:,} jobs with two small integers ({len(few):,} of them one by one), {plan.loop}"
    )
    async with AsyncExitStack() as stack:
        taskq = _ready(stack, TaskqProducer)
        limit = _ready(stack, LimitProducer)
        bare = _ready(stack, BareProducer)
        pipeline = _ready(stack, PipelineProducer)
        sides: dict[str, Side] = {
            ONE: _side(*taskq, taskq[1].one_by_one, few),
            LIMIT_ONE: _side(*limit, limit[1].one_by_one, few),
            GATHER: _side(*taskq, taskq[1].gathered, arguments),
            MANY: _side(*taskq, taskq[1].bulk, arguments),
            LIMIT_BULK: _side(*limit, limit[1].bulk, arguments),
            BARE_BULK: _side(*bare, bare[1].bulk, arguments),
            PIPELINE_BULK: _side(*pipeline, pipeline[1].bulk, arguments),
        }
        await interleaved(plan, findings, sides)
    _compare(findings)
    return findings


def _ready(stack: AsyncExitStack, make: Callable[[str], P]) -> tuple[Server, P]:
    server = stack.enter_context(closing(Server()))
    producer = make(server.url)
    stack.push_async_callback(producer.aclose)
    return server, producer


def _side(
    server: Server,
    producer: TaskqProducer | BatchProducer | PipelineProducer,
    work: Callable[[Arguments], Awaitable[object]],
    arguments: Arguments,
) -> Side:
    async def side() -> Metrics:
        server.clear()
        await producer.prepare()
        return await enqueue_once(server, len(arguments), lambda: work(arguments))

    return side


def _compare(findings: Findings) -> None:
    rate = "jobs_per_s"
    for name, text, above, below, goal in (
        ("gather_of_many", "gather of single enqueues, of enqueue_many", GATHER, MANY, 0.5),
        ("many_of_limit", "enqueue_many, of the limit's bulk", MANY, LIMIT_BULK, 0.5),
        (
            "many_of_bare",
            "enqueue_many, of the bulk of a queue without promises",
            MANY,
            BARE_BULK,
            None,
        ),
        ("one_of_limit", "one by one, of a script call each", ONE, LIMIT_ONE, None),
    ):
        findings.compare(
            name,
            f"enqueue: {text}",
            (above, rate),
            (below, rate),
            None if goal is None else at_least(goal),
        )
