"""`taskq demo`: runs real jobs on a real server, and prints a summary."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Generator
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from taskq.app import backend_of, settings_of
from taskq.cli.serving import interpreter
from taskq.core.errors import JobCancelled, JobExpired, JobFailed, JobNotFound
from taskq.core.signals import stop_signals
from taskq.core.text import counted, install_command
from taskq.embedded.server import EmbeddedServer
from taskq.ops.overview import read_overview
from taskq.schedules.planner import job_id
from taskq.schedules.spec import to_ms
from taskq.triggers.interval import every

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["demo"]

_APP = "taskq.cli.demo_app"
_QUEUES = ("mail", "images", "reports")


def demo() -> None:
    """Run jobs through workers and a web application on the embedded server.

    Example: taskq demo
    """
    from rich.console import Console

    os.environ.pop("TASKQ_URL", None)
    with TemporaryDirectory(prefix="taskq-demo-", ignore_cleanup_errors=True) as directory:
        os.environ["TASKQ_DIR"] = directory
        for signum in stop_signals():
            signal.signal(signum, _leave)
        try:
            asyncio.run(_Demo(Console()).run())
        finally:
            _stop_server(Path(directory))


def _leave(signum: int, _frame: object) -> None:
    """Exit as on Ctrl-C: stop everything that was started."""
    sys.exit(128 + signum)


class _Demo:
    """The scenes, in order, each printing what it shows."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: list[tuple[str, str, float]] = []

    async def run(self) -> None:
        # Loaded as a worker does it: as an application, not as a part of the package.
        app = importlib.import_module(_APP)
        self._console.print("[dim]· an embedded Valkey and two supervised worker processes[/]")
        async with app.q:
            with _worker() as supervisor:
                await self._scene("a coroutine, awaited", self._welcome(app))
                await self._scene("a thousand jobs at once", self._thousand(app))
                await self._scene("threads and processes", self._executors(app))
                await self._scene("failing twice, retried", self._retried(app))
                await self._scene("a timeout", self._timeout(app))
                await self._scene("delayed by a second", self._delayed(app))
                await self._scene("a schedule, every half second", _scheduled(app))
                await self._scene("cancelled before it runs", self._cancelled(app))
                await self._scene("expired before it runs", self._expired(app))
                await self._scene("kill -9 of a running worker", self._killed(app, supervisor))
                await self._scene("through a FastAPI app", self._fastapi())
            await self._scene("priorities, one worker", self._priorities(app))
        self._sum_up()

    async def _scene(self, title: str, scene: Awaitable[str]) -> None:
        from rich.markup import escape

        began = time.perf_counter()
        outcome = await scene
        took = time.perf_counter() - began
        self._rows.append((title, outcome, took))
        # The output of jobs and errors may look like markup.
        self._console.print(
            f"[green]✓[/] [bold]{title}[/]: {escape(outcome)} [dim]({took:.2f} s)[/]"
        )

    async def _welcome(self, app: Any) -> str:
        return await (await app.welcome.enqueue("Ada")).result(timeout=20)

    async def _thousand(self, app: Any) -> str:
        began = time.perf_counter()
        jobs = await app.q.enqueue_many([app.note.s(f"note {n}") for n in range(1000)])
        sent = time.perf_counter() - began
        results = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
        return f"enqueued in {sent * 1000:.0f} ms, {len(set(results))} different results"

    async def _executors(self, app: Any) -> str:
        images = await app.q.enqueue_many([app.resize.s(f"{n}.png") for n in range(20)])
        count = await app.primes.enqueue(50_000)
        names = await asyncio.gather(*(job.result(timeout=30) for job in images))
        return (
            f"{len(names)} images in threads, {await count.result(timeout=30)} primes in a process"
        )

    async def _retried(self, app: Any) -> str:
        return await (await app.flaky.enqueue()).result(timeout=20)

    async def _timeout(self, app: Any) -> str:
        return await _refused(app.endless.enqueue())

    async def _delayed(self, app: Any) -> str:
        began = time.perf_counter()
        job = await app.note.options(delay=1).enqueue("later")
        state = await job.status()
        text = await job.result(timeout=20)
        return f"{state} at first, then {text!r} after {time.perf_counter() - began:.2f} s"

    async def _cancelled(self, app: Any) -> str:
        job = await app.note.options(delay=60).enqueue("never")
        await job.cancel()
        return await _refused(_itself(job))

    async def _expired(self, app: Any) -> str:
        return await _refused(app.note.options(delay=60, expires=0.2).enqueue("too late"))

    async def _killed(self, app: Any, supervisor: subprocess.Popen[bytes]) -> str:
        jobs = await app.q.enqueue_many([app.long_report.s(10) for _ in range(6)])
        victim = await _pid_of(app.q, await _first_running(jobs), supervisor.pid)
        os.kill(victim, signal.SIGKILL)
        began = time.perf_counter()
        results = await asyncio.gather(*(job.result(timeout=60) for job in jobs))
        again = sum("attempt 2" in result for result in results)
        return (
            f"worker {victim} died; {counted(again, 'job', 'jobs')} of it ran again, all "
            f"{len(results)} ended {time.perf_counter() - began:.1f} s later"
        )

    async def _fastapi(self) -> str:
        if not find_spec("fastapi") or not find_spec("uvicorn"):
            return f"left out, it needs uvicorn and FastAPI: {install_command('fastapi')}"
        with _web() as base:
            job = await asyncio.to_thread(_request, f"{base}/signup?name=Grace", b"")
            answer = await asyncio.to_thread(_request, f"{base}/jobs/{job['job']}")
        return f"POST /signup gave job {job['job']}, GET its result: {answer['result']!r}"

    async def _priorities(self, app: Any) -> str:
        jobs = [
            await app.note.options(priority=priority).enqueue(str(priority))
            for priority in (1, 5, 9, 3)
        ]
        await app.q.run_until_empty(queues=["mail"], concurrency=1)
        infos = [await job.info() for job in jobs]
        ran = [info.result for info in sorted(infos, key=lambda info: info.finished_at)]
        return f"enqueued 1, 5, 9, 3; ran {', '.join(ran)}"

    def _sum_up(self) -> None:
        from rich.markup import escape
        from rich.table import Table

        table = Table("what", "outcome", "seconds", title="What you saw")
        for title, outcome, took in self._rows:
            table.add_row(title, escape(outcome), f"{took:.2f}")
        self._console.print(table)
        self._console.print(
            "Next: [bold]taskq --help[/], and the quickstart in [bold]docs/quickstart.md[/]"
        )


async def _refused(enqueueing: Awaitable[Any]) -> str:
    job = await enqueueing
    try:
        return f"unexpectedly gave {await job.result(timeout=20)!r}"
    except (JobFailed, JobCancelled, JobExpired) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


async def _scheduled(app: Any) -> str:
    schedules, trigger = app.q.schedules, every(seconds=0.5)
    await schedules.add("demo", trigger, app.note.s("tick"), overlap="allow")
    first, *others = await schedules.preview("demo", 3)
    jobs = [app.q.job(job_id("demo", to_ms(fire))) for fire in (first, *others)]
    infos = [await _ended(job) for job in jobs]
    await schedules.remove("demo")
    late = max(info.enqueued_at - info.scheduled_for for info in infos)
    return f"{len(infos)} fires, each one job, {late / timedelta(milliseconds=1):.0f} ms late"


async def _ended(job: Any) -> Any:
    """Wait for the job of a coming fire, and return its info."""
    while True:
        try:
            await job.result(timeout=20)
        except JobNotFound:
            await asyncio.sleep(0.02)
        else:
            return await job.info()


async def _itself(job: Any) -> Any:
    return job


async def _first_running(jobs: list[Any]) -> str:
    """The worker of a job that runs."""
    while True:
        for job in jobs:
            worker = (await job.info()).worker
            if worker:
                return worker
        await asyncio.sleep(0.02)


async def _pid_of(q: Any, worker: str, parent: int) -> int:
    """The pid of a worker that our own supervisor started; no other process may be killed."""
    broker = backend_of(q).current()
    overview = await read_overview(broker.client, broker.keys, settings_of(q).offset)
    pid = next(state.pid for state in overview.workers if state.name == worker)
    _check_parent(pid, parent)
    return pid


def _check_parent(pid: int, parent: int) -> None:
    status = Path(f"/proc/{pid}/stat")
    if status.exists() and int(status.read_text().rpartition(")")[2].split()[1]) != parent:
        raise RuntimeError(f"process {pid} is not a child of the demo's supervisor")


@contextmanager
def _worker() -> Generator[subprocess.Popen[bytes], None, None]:
    queues = [word for queue in _QUEUES for word in ("-q", queue)]
    command = [*interpreter(Path.cwd()), "-m", "taskq", "worker", f"{_APP}:q", *queues, "-w", "2"]
    with _running([*command, "--log-level", "error"]) as process:
        yield process


@contextmanager
def _web() -> Generator[str, None, None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    options = ["--factory", "--port", str(port), "--log-level", "error"]
    with _running([*interpreter(Path.cwd()), "-m", "uvicorn", f"{_APP}:create_api", *options]):
        deadline = time.monotonic() + 20
        while not _answers(f"{base}/openapi.json"):
            if time.monotonic() > deadline:
                raise TimeoutError("the web application did not start within 20 s")
            time.sleep(0.05)
        yield base


@contextmanager
def _running(command: list[str]) -> Generator[subprocess.Popen[bytes], None, None]:
    process = subprocess.Popen(command)  # noqa: S603 - our own command line
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _request(url: str, body: bytes | None = None) -> dict[str, Any]:
    with urllib.request.urlopen(url, data=body, timeout=20) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def _answers(url: str) -> bool:
    try:
        _request(url)
    except OSError:
        return False
    return True


def _stop_server(directory: Path) -> None:
    EmbeddedServer(directory).stop()
