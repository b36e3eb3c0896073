"""What becomes of tasks when the web server stops, or dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from taskq import TaskQ
from tests.conformance.background.case import Cases
from tests.support.waiting import eventually

CASES = Cases()
case = CASES.case

ROOT = Path(__file__).parents[3]


class Site:
    """A web server in a process of its own."""

    def __init__(self, kind: str, q: TaskQ, url: str, folder: Path) -> None:
        self.kind = kind
        self.q = q
        self._diary = folder / "diary"
        self._diary.touch()
        self._environment = os.environ | {
            "KIND": kind,
            "NAMESPACE": q._settings.keys.namespace,
            "DIARY": str(self._diary),
            "TASKQ_URL": url,
        }
        self._folder = folder

    @property
    def diary(self) -> list[str]:
        return self._diary.read_text().split("\n")[:-1]

    def note(self, word: str) -> None:
        with self._diary.open("a") as file:
            file.write(word + "\n")

    def turn_the_page(self) -> None:
        self._diary.write_text("")

    async def noted(self, word: str) -> None:
        await eventually(lambda: word in self.diary)

    @contextlib.asynccontextmanager
    async def running(self, *options: str) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
        """The server answers; gives a client, and the process."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "uvicorn", "--port", str(port), *options]
        with (self._folder / "log").open("w") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 - a moment
                [*command, "tests.conformance.background.stopping_app:app"],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                await eventually(lambda: _answers(port) or process.poll() is not None)
                yield client, process
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)

    async def stopped(
        self, path: str, *options: str, seconds: float, by: tuple[signal.Signals, ...]
    ) -> int:
        """Have a task begun, send the signals, and give the exit code."""
        async with self.running(*options) as (client, process):
            await client.post(path, params={"seconds": seconds})
            await self.noted("begun")
            for number, one in enumerate(by):
                if number:
                    await asyncio.sleep(0.2)
                process.send_signal(one)
            return await asyncio.to_thread(process.wait, 20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


TERM, INT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGKILL


@case(
    "B25",
    "`SIGTERM` while a task runs",
    fastapi="the server waits for it, however long it takes",
    taskq="the application waits for it, at most as long as `DeferredSettings(grace=20)` says",
    outcome=["begun", "done", "resources closed"],
)
async def sigterm(site: Site) -> Any:
    await site.stopped("/work", seconds=0.5, by=(TERM,))
    return site.diary


@case(
    "B26",
    "`SIGTERM` with `--timeout-graceful-shutdown 1`, while tasks of 2 s run",
    fastapi="an `async def` is cancelled, and a `def` is killed half-way",
    taskq="both end: the drain has a grace of its own",
    outcome={"/work": ["begun"], "/block": ["begun"]},
    better={"/work": ["begun", "done"], "/block": ["begun", "done"]},
)
async def graceful_timeout(site: Site) -> Any:
    found: dict[str, list[str]] = {}
    for path in ("/work", "/block"):
        site.turn_the_page()
        await site.stopped(path, "--timeout-graceful-shutdown", "1", seconds=2, by=(TERM,))
        found[path] = [word for word in site.diary if word != "resources closed"]
    return found


@case(
    "B27",
    "Ctrl-C twice while a task runs",
    fastapi="the server ends at once, and the task with it",
    taskq="the application waits for it, within the grace",
    outcome=["begun"],
    better=["begun", "done", "resources closed"],
)
async def twice(site: Site) -> Any:
    await site.stopped("/work", seconds=3, by=(INT, INT))
    return site.diary


@case(
    "B28",
    "The exit code after `SIGTERM`",
    fastapi="that of the signal, after the tasks",
    outcome=(-TERM, ["begun", "done", "resources closed"]),
)
async def exit_code(site: Site) -> Any:
    code = await site.stopped("/work", seconds=0.1, by=(TERM,))
    return code, site.diary


@case(
    "B29",
    "`kill -9` while a task runs",
    fastapi="it is lost without a trace",
    taskq="with `durable=True` a worker runs it",
    outcome=["begun"],
    better=["begun", "begun", "done"],
)
async def killed(site: Site) -> Any:
    await site.stopped("/stored", seconds=1, by=(KILL,))
    if site.kind == "taskq":
        # The queue takes it over when its process was silent for the lease.
        site.q._settings.offset.ms += 60_000

        @site.q.task(name="stored")
        async def stored(seconds: float) -> None:
            site.note("begun")
            site.note("done")

        await site.q.run_until_empty()
        site.q._settings.offset.ms = 0
    return site.diary


@case(
    "B30",
    "What the application closes in its lifespan",
    fastapi="is closed when the tasks have ended",
    outcome=["begun", "done", "resources closed"],
)
async def resources_alive(site: Site) -> Any:
    await site.stopped("/block", seconds=0.5, by=(TERM,))
    return site.diary
