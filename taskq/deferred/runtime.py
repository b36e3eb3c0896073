"""The runtime: the parts that run what is deferred in one event loop, wired."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator

from taskq.deferred.admission import Admission
from taskq.deferred.call import Call
from taskq.deferred.drain import drain
from taskq.deferred.durable import Durable
from taskq.deferred.handover import HandOver
from taskq.deferred.notice import Notice
from taskq.deferred.ports import Backing
from taskq.deferred.preparation import Preparation
from taskq.deferred.report import DeferredStats, Report
from taskq.deferred.settings import DeferredSettings
from taskq.deferred.shift import Shift
from taskq.deferred.watch import Watch
from taskq.execution.home import Home
from taskq.execution.middleware import Middleware

__all__ = ["Runtime", "Runtimes"]

_log = logging.getLogger("taskq.deferred")


class Runtime:
    """Takes the calls of one event loop, from the first to the drain."""

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
        self.shift = Shift(loop, settings, report, hand_over, preparation)
        self.admission = Admission(self.shift, settings, report)
        self.shift.floor.on_room = self.admission.let_in
        self._watch = Watch(loop, self.shift.floor, settings.slow)
        self._notice = Notice(loop, backing, stats)

    def cancel(self, call: Call) -> bool:
        """Cancel a call, from any thread; true, for it was not over."""
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            here = False
        if here:
            self.shift.cancel(call)
        else:
            self.loop.call_soon_threadsafe(self.shift.cancel, call)
        return True

    async def leave(self, grace: float, on_closed: Callable[[], None]) -> None:
        """Drain; `on_closed` is called when no further call may come here."""
        await drain(self.shift, self.admission, grace, on_closed)
        self._watch.stop()
        await self._notice.stop()


class Runtimes:
    """The runtimes that take calls now: begun with their first call, and again after a drain.

    The main one is that of the event loop that opened the TaskQ, else of the one that runs where
    something is deferred. Without either, calls go to the one in the background loop of `q.run`.
    """

    def __init__(self, home: Home, make: Callable[[asyncio.AbstractEventLoop], Runtime]) -> None:
        self._home = home
        self._make = make
        self._beginning = threading.Lock()
        self._warned = False
        self._main: Runtime | None = None
        self._background: Runtime | None = None

    def current(self) -> tuple[Runtime, bool]:
        """The runtime that takes a call now, and whether this is its event loop."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        runtime = self._main
        if runtime is None or runtime.loop.is_closed():
            with self._beginning:
                runtime = self._begin(running)
        return runtime, runtime.loop is running

    def here(self) -> Runtime | None:
        """The runtime of the running event loop."""
        running = asyncio.get_running_loop()
        return next((each for each in self if each.loop is running), None)

    def __iter__(self) -> Iterator[Runtime]:
        return iter([each for each in (self._main, self._background) if each is not None])

    def forget(self, runtime: Runtime) -> None:
        """It takes no more calls: the next one begins another."""
        if self._main is runtime:
            self._main = None
        else:
            self._background = None

    def begin_anew(self) -> None:
        """In a process that was forked off: the parent has the event loops, and their calls."""
        # A thread of the parent may have held the other one.
        self._beginning = threading.Lock()
        self._main = self._background = None

    def _begin(self, running: asyncio.AbstractEventLoop | None) -> Runtime:
        if self._main is not None and not self._main.loop.is_closed():
            # Another thread was faster.
            return self._main
        loop = self._home.loop
        opened = loop is not None and not loop.is_closed()
        loop = loop if opened else running
        if loop is None or self._home.is_background(loop):
            return self._in_background()
        if not opened:
            self._warn_if_nobody_drains()
        self._main = self._make(loop)
        return self._main

    def _in_background(self) -> Runtime:
        loop = self._home.background_loop()
        if self._background is None or self._background.loop is not loop:
            self._background = self._make(loop)
        return self._background

    def _warn_if_nobody_drains(self) -> None:
        if self._home.drains or self._warned:
            return
        self._warned = True
        _log.warning(
            "a call is deferred in an event loop in which nobody has opened its TaskQ: when the "
            "application stops, nothing waits for such calls. Use FastAPI(lifespan=q.lifespan), or "
            "`async with q:`; without a queue q.deferred.lifespan, or `async with q.deferred:`"
        )
