"""Runs one worker in this process, from the first connection to the exit code."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import taskq
from taskq.cli.exits import ERROR, OK
from taskq.core.errors import EmbeddedServerError, ServerRefused
from taskq.core.rng import RNG
from taskq.core.text import counted
from taskq.execution.event_loop import run_through
from taskq.worker.recycling import Stopping
from taskq.worker.worker import Worker
from taskq.worker.worker_process import RECYCLED, SupervisorLink

__all__ = ["again_command", "loop_factory", "serve"]

_log = logging.getLogger("taskq.cli")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
LAST_SECONDS = 1.0
"""The time in which coroutines and threads that a job left behind may end."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop] | None


def loop_factory(wanted: bool) -> LoopFactory:
    """The factory of uvloop if it is wanted and installed, else None."""
    if not wanted:
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def serve(
    worker: Worker,
    factory: LoopFactory,
    supervised: SupervisorLink | None,
    announce: Callable[[], Awaitable[None]],
    directory: Path,
) -> int:
    """Run `worker` until it ends, and return the exit code. `announce` is awaited first.

    A worker that is to be replaced returns `RECYCLED` to its supervisor; without a supervisor this
    process starts again in `directory`. A worker that a job cancelled returns `ERROR`. A server
    that does not answer is waited for. Raises `ServerRefused` and `EmbeddedServerError`, which do
    not pass with time.
    """
    runner = asyncio.Runner(loop_factory=factory)
    service = _Service(worker, supervised)
    try:
        all_ended = run_through(runner.get_loop(), service.run(announce), _note_break)
    except BaseException:
        runner.close()
        raise
    threads = _threads_that_stay()
    stuck = bool(threads) or not all_ended
    if stuck:
        what = ", ".join(f"thread {name}" for name in threads) or "a coroutine"
        _log.warning("exiting although a job left this behind: %s", what)
    else:
        runner.close()
    code = RECYCLED if service.recycled else ERROR if service.cancelled else OK
    if code == RECYCLED and supervised is None:
        _start_again(directory)
    if stuck:
        # Closing the loop, or a regular exit of the interpreter, would wait for what is left.
        _flush()
        os._exit(code)
    return code


def _note_break(error: BaseException | None) -> None:
    # Never Ctrl-C: `Stopping` handles the signal.
    if error is None:
        _log.warning("a job stopped the event loop of this worker; the worker starts it again")
    else:
        _log.warning("an asyncio task that a job started raised %r", error, exc_info=error)


class _Service:
    """Runs one worker: retries at the start, stop signals, and what is left at the end."""

    def __init__(self, worker: Worker, supervised: SupervisorLink | None) -> None:
        self._worker = worker
        self._supervised = supervised
        self._stopping = Stopping(worker.settings.grace, supervised)
        self._asked = asyncio.Event()
        self._ready = False
        self.cancelled = False

    @property
    def recycled(self) -> bool:
        """Whether the worker ended to be replaced, not because it was asked to stop."""
        reason = self._worker.recycling.reason if self._ready else None
        return reason is not None and not self._stopping.asked

    async def run(self, announce: Callable[[], Awaitable[None]]) -> bool:
        """Run until the worker ends; returns whether every coroutine has ended as well."""
        executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        asyncio.get_running_loop().set_default_executor(executor)
        self._stopping.install(self._stop)
        await announce()
        await self._work()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=LAST_SECONDS)
        executor.shutdown(wait=False, cancel_futures=True)
        return all(task.done() for task in left)

    async def _work(self) -> None:
        """Run the worker; try again while the server does not answer at the start."""
        pause = FIRST_PAUSE
        while not self._asked.is_set():
            try:
                await self._attempt()
                return
            except (ServerRefused, EmbeddedServerError):
                raise
            except ConnectionError as error:
                # Spread: many workers may wait for the same server to come back.
                wait = RNG.uniform(pause / 2, pause)
                _log.warning("%s; trying again in %.1f s", error, wait)
            await self._asked_within(wait)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _attempt(self) -> None:
        running = asyncio.ensure_future(self._worker.run(self._on_ready))
        asked = asyncio.ensure_future(self._asked.wait())
        await _one_of(running, asked)
        asked.cancel()
        if not running.done() and not self._ready:
            # It still waits for a server: there is nothing to drain.
            running.cancel()
            await asyncio.wait({running})
            return
        await _one_of(running)
        if running.cancelled():
            self.cancelled = True
            _log.error("a job cancelled this worker, which stops now: start it again")
        else:
            running.result()

    async def _asked_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            return

    def _on_ready(self) -> None:
        self._ready = True
        _log.info("worker %s is ready", self._worker.name)
        if self._supervised is not None:
            self._supervised.send_ready()

    def _stop(self) -> None:
        if self._ready and self._asked.is_set():
            _log.warning("stopping now; running jobs are handed back")
        elif self._ready:
            jobs = counted(self._worker.in_flight.running, "running job has", "running jobs have")
            _log.info("stopping; %s %g s to finish", jobs, self._worker.settings.grace)
        self._asked.set()
        self._worker.stop()


async def _one_of(*futures: asyncio.Future[Any]) -> None:
    """Wait until one is done, even if a job cancels this task."""
    while not any(future.done() for future in futures):
        try:
            await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()


def _threads_that_stay() -> list[str]:
    """Names of threads that do not end soon and that the interpreter would wait for."""
    deadline = time.monotonic() + LAST_SECONDS
    while True:
        main = threading.main_thread()
        alive = [thread for thread in threading.enumerate() if thread is not main]
        names = [thread.name for thread in alive if not thread.daemon]
        if not names or time.monotonic() > deadline:
            return names
        time.sleep(0.01)


def again_command(directory: Path) -> list[str]:
    """The command line that restarts this program in `directory`, where it was started."""
    return [*interpreter(directory), "-m", "taskq", *sys.argv[1:]]


def interpreter(directory: Path) -> list[str]:
    """The command of this Python, with its options, for running a module in `directory`."""
    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()
    # A taskq.py or logging.py in the current folder must not hide the real one, unless taskq
    # itself is found there.
    beside = Path(taskq.__file__).parent.parent == directory
    isolation = [] if beside or "-P" in flags else ["-P"]
    return [sys.executable, *flags, *isolation]


def _start_again(directory: Path) -> NoReturn:
    """Replace this process by a fresh one with the same command line, pid and directory."""
    _flush()
    # The application, or a job, may have changed the directory.
    os.chdir(directory)
    command = again_command(directory)
    os.execv(command[0], command)  # noqa: S606 - the interpreter itself


def _flush() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
