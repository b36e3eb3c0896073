"""What it takes until the first job is done: imports, a worker's start, its memory."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

from benchmarks.adapters.limit import LimitProducer
from benchmarks.adapters.taskq_producer import TaskqProducer
from benchmarks.measuring import Findings, Metrics, at_most, interleaved
from benchmarks.plan import Plan
from benchmarks.server import Server
from benchmarks.worker_parent import ROOT, WorkerProcess

__all__ = ["imports", "start"]

SCRIPT, COMMAND, BY_HAND = "q.worker() in a script", "taskq worker", "limit"
IMPORT_TASKQ, IMPORT_REDIS, IMPORT_ASYNCIO = (
    "import taskq",
    "import redis.asyncio",
    "import asyncio",
)

Side = Callable[[], Awaitable[Metrics]]


async def imports(plan: Plan) -> Findings:
    """Import times, each in a fresh process that has its bytecode."""
    findings = Findings("imported in a fresh interpreter; asyncio is part of both")
    await interleaved(
        plan,
        findings,
        {
            statement: lambda statement=statement: _import(statement)
            for statement in (IMPORT_TASKQ, IMPORT_REDIS, IMPORT_ASYNCIO)
        },
    )
    findings.take("import_ms", "import taskq, ms", IMPORT_TASKQ, "import_ms", at_most(150))
    findings.compare(
        "import_of_redis",
        "CPU of import taskq, of import redis.asyncio",
        (IMPORT_TASKQ, "import_cpu_ms"),
        (IMPORT_REDIS, "import_cpu_ms"),
    )
    return findings


async def start(plan: Plan) -> Findings:
    """From spawning a worker process to its first job's result; and its memory then."""
    findings = Findings(f"one job is queued, then the worker process is started, {plan.loop}")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(closing(Server()))
        taskq = TaskqProducer(server.url)
        limit = LimitProducer(server.url)
        stack.push_async_callback(taskq.aclose)
        stack.push_async_callback(limit.aclose)
        sides: dict[str, Side] = {
            SCRIPT: lambda: _spawned(plan, server, taskq, "taskq_worker"),
            BY_HAND: lambda: _spawned(plan, server, limit, "redis_worker"),
        }
        if importlib.util.find_spec("taskq.cli.main"):
            sides[COMMAND] = lambda: _command(server, taskq)
        await interleaved(plan, findings, sides)
    row = COMMAND if COMMAND in findings.rows else SCRIPT
    findings.take(
        "first_job_ms", f"{row}: spawn to first job done, ms", row, "first_job_ms", at_most(1000)
    )
    findings.take("first_job_rss_mb", f"{row}: RSS then, MB", row, "rss_mb", at_most(70))
    return findings


async def _import(statement: str) -> Metrics:
    code = (
        "import time; wall, cpu = time.perf_counter(), time.process_time(); "
        f"{statement}; "
        "print(time.perf_counter() - wall, time.process_time() - cpu)"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    printed, _ = await process.communicate()
    wall, cpu = map(float, printed.split())
    return {"import_ms": wall * 1000, "import_cpu_ms": cpu * 1000}


async def _spawned(
    plan: Plan, server: Server, producer: TaskqProducer | LimitProducer, module: str
) -> Metrics:
    server.clear()
    await producer.prepare()
    await producer.bulk([(1, 2)])
    began = time.perf_counter()
    worker = await WorkerProcess.spawn(module, server.url, plan.loop)
    try:
        measured = await worker.call(
            {"do": "drain", "jobs": 1, "concurrency": 100, "adapter": "limit"}
        )
        took = time.perf_counter() - began
    finally:
        await worker.aclose()
    return {"first_job_ms": took * 1000, "rss_mb": measured["rss"] / 1e6}


async def _command(server: Server, producer: TaskqProducer) -> Metrics:
    """`taskq worker`, as it is typed; its children count."""
    server.clear()
    job = await producer.tasks.noop.enqueue(1, 2)
    main = "import sys; from taskq.cli.main import main; sys.argv[0] = 'taskq'; main()"
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", main, "worker", "benchmarks.command_tasks:q", "-q", "default"),
            env=_environment(server),
            stdout=log,
            stderr=log,
            cwd=ROOT,
        )
        try:
            await job.result(timeout=30)
            took = time.perf_counter() - began
            memory = _resident(process.pid)
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode("utf-8", "replace"))
            raise
        finally:
            process.terminate()
            await process.wait()
    return {"first_job_ms": took * 1000, "rss_mb": memory / 1e6}


def _environment(server: Server) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")}
    return ours | {"TASKQ_URL": server.url, "NO_COLOR": "1"}


def _resident(pid: int) -> float:
    """Resident bytes of a process and its children; NaN where the system does not report it."""
    process = Path(f"/proc/{pid}")
    try:
        pages = int((process / "statm").read_text().split()[1])
        children = (process / f"task/{pid}/children").read_text().split()
    except OSError:
        return float("nan")
    return pages * resource.getpagesize() + sum(_resident(int(child)) for child in children)
