"""The deferred runner's parts for one event loop, wired together.

`SlowCallMonitor` logs calls that block the event loop; `StatusReporter` writes what `taskq status`
shows of this process's deferred calls.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

import msgpack

from taskq.core.errors import ServerError
from taskq.core.ids import process_name
from taskq.deferred.admission import Admission, drain
from taskq.deferred.call import Call
from taskq.deferred.call_queue import CallQueue, Slots
from taskq.deferred.durable import Backing, Durable
from taskq.deferred.handover import HandOver, Preparation
from taskq.deferred.report import DeferredSettings, DeferredStats, Report
from taskq.execution.job_log import culprit, job_fields
from taskq.execution.middleware import Middleware
from taskq.execution.task_context import TaskContext

__all__ = ["Runtime", "Runtimes"]

_log = logging.getLogger("taskq.deferred")

REPORT_SECONDS = 2.0
"""Between two status records."""

IDLE_SECONDS = 60.0
"""Between two checks of the monitor while nothing runs."""


class StatusReporter:
    """Writes a status record every two seconds if there is a connection; it never opens one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        backing: Backing,
        stats: Callable[[], DeferredStats],
    ) -> None:
        self._loop = loop
        self._backing = backing
        self._stats = stats
        self._process = process_name()
        self._started_at = time.time()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._written = False
        loop.call_soon_threadsafe(self._report)

    async def stop(self) -> None:
        """Remove the record."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        if self._written and self._backing.connected:
            await self._write(None)

    def _report(self) -> None:
        self._timer = self._loop.call_later(REPORT_SECONDS, self._report)
        if self._backing.connected and (self._writing is None or self._writing.done()):
            self._writing = self._loop.create_task(
                self._write(self._record()), name="taskq-deferred-status"
            )

    async def _write(self, record: bytes | None) -> None:
        try:
            await self._backing.durable_calls().show(self._process, record)
            self._written = True
        except (ServerError, ConnectionError):
            # The next one follows in two seconds, and calls that need the server report the error.
            return

    def _record(self) -> bytes:
        process = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": self._started_at}
        return msgpack.packb(process | asdict(self._stats()))


class SlowCallMonitor:
    """A thread that checks, while calls run, that the event loop responds.

    It warns once each time the loop has not responded for `slow` seconds because of a deferred
    call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, slots: Slots, slow: float) -> None:
        self._loop = loop
        self._slots = slots
        self._slow = slow
        self._ended = False
        self._ticked = time.monotonic()
        if slow > 0:
            thread = threading.Thread(target=self._run, name="taskq-deferred-watch", daemon=True)
            thread.start()

    def stop(self) -> None:
        """End the thread soon."""
        self._ended = True
        self._slots.busy.set()

    def _run(self) -> None:
        slots = self._slots
        while not self._ended and not self._loop.is_closed():
            if slots.running:
                self._check()
                continue
            slots.busy.clear()
            # A call that started before the flag was cleared shows up here.
            if not slots.running and not self._ended:
                slots.busy.wait(IDLE_SECONDS)
            self._ticked = time.monotonic()

    def _check(self) -> None:
        asked = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._tick)
        except RuntimeError:
            # The loop is closed.
            self._ended = True
            return
        time.sleep(self._slow)
        if self._ticked < asked:
            self._warn(asked)
            while self._ticked < asked and not self._ended:
                time.sleep(self._slow)

    def _tick(self) -> None:
        self._ticked = time.monotonic()

    def _warn(self, since: float) -> None:
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        attempt, where = culprit(frames.get(self._slots.thread))
        if attempt is not None:
            _log.warning(
                "deferred task %s (job %s) has blocked the event loop for %.2f s at %s; every "
                "request of this process waits. Make it a plain def to run it in a thread, or use "
                "executor='process' for CPU-bound work",
                attempt.task.name,
                attempt.id,
                time.monotonic() - since,
                where,
                extra=job_fields(attempt),
            )


class Runtime:
    """Runs the deferred calls of one event loop, from the first call to the drain."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        backing: Backing,
        middleware: Middleware,
        settings: DeferredSettings,
        report: Report,
        stats: Callable[[], DeferredStats],
    ) -> None:
        self.loop = loop
        durable = Durable(backing, settings.lease)
        hand_over = HandOver(backing, report, durable)
        preparation = Preparation(middleware, durable, hand_over)
        self.call_queue = CallQueue(loop, settings, report, hand_over, preparation)
        self.admission = Admission(self.call_queue, settings, report)
        self.call_queue.slots.on_slot_free = self.admission.admit_waiting
        self._monitor = SlowCallMonitor(loop, self.call_queue.slots, settings.slow)
        self._reporter = StatusReporter(loop, backing, stats)

    def cancel(self, call: Call) -> bool:
        """Cancel a call that is not over, from any thread; always true."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self.call_queue.cancel(call)
        else:
            self.loop.call_soon_threadsafe(self.call_queue.cancel, call)
        return True

    async def drain(self, grace: float, on_closed: Callable[[], None]) -> None:
        """Drain; `on_closed` is called when no further call may come here."""
        await drain(self.call_queue, self.admission, grace, on_closed)
        self._monitor.stop()
        await self._reporter.stop()


class Runtimes:
    """The runtimes that take calls now; each is made for its first call, and again after a drain.

    The main one belongs to the event loop that opened the TaskQ, or else to the loop in which
    something is deferred. Without either, calls run in the background loop of `q.run`.
    """

    def __init__(
        self, context: TaskContext, make: Callable[[asyncio.AbstractEventLoop], Runtime]
    ) -> None:
        self._context = context
        self._make = make
        self._making = threading.Lock()
        self._warned = False
        self._main: Runtime | None = None
        self._background: Runtime | None = None

    def current(self) -> tuple[Runtime, bool]:
        """The runtime that takes a call now, and whether its event loop runs in this thread."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        runtime = self._main
        if runtime is None or runtime.loop.is_closed():
            with self._making:
                runtime = self._main_or_background(running)
        return runtime, runtime.loop is running

    def here(self) -> Runtime | None:
        """The runtime of the running event loop."""
        running = asyncio.get_running_loop()
        return next((each for each in self if each.loop is running), None)

    def __iter__(self) -> Iterator[Runtime]:
        return iter([each for each in (self._main, self._background) if each is not None])

    def forget(self, runtime: Runtime) -> None:
        """Give no more calls to a runtime: the next call makes another."""
        if self._main is runtime:
            self._main = None
        else:
            self._background = None

    def reset_after_fork(self) -> None:
        """Start over in a forked process: the parent keeps the event loops and their calls."""
        # A thread of the parent may have held the old lock at the fork.
        self._making = threading.Lock()
        self._main = self._background = None

    def _main_or_background(self, running: asyncio.AbstractEventLoop | None) -> Runtime:
        if self._main is not None and not self._main.loop.is_closed():
            # Another thread was faster.
            return self._main
        loop = self._context.loop
        opened = loop is not None and not loop.is_closed()
        loop = loop if opened else running
        if loop is None or self._context.is_background(loop):
            return self._in_background()
        if not opened:
            self._warn_if_undrained()
        self._main = self._make(loop)
        return self._main

    def _in_background(self) -> Runtime:
        loop = self._context.background_loop()
        if self._background is None or self._background.loop is not loop:
            self._background = self._make(loop)
        return self._background

    def _warn_if_undrained(self) -> None:
        if self._context.drains or self._warned:
            return
        self._warned = True
        _log.warning(
            "a call is deferred in an event loop that has not opened its TaskQ: nothing will wait "
            "for such calls when the application stops. Use FastAPI(lifespan=q.lifespan) or "
            "`async with q:`; without a queue, q.deferred.lifespan or `async with q.deferred:`"
        )
