"""A crew: the parts that run what is deferred in one event loop, wired."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable

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

__all__ = ["Crew", "Crews"]

_log = logging.getLogger("taskq.deferred")


class Crew:
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


class Crews:
    """The crew that takes calls now: begun with the first call, and with the first after a drain.

    It belongs to the event loop that opened the TaskQ, else to the one that runs where something is
    deferred, else to the background loop of `q.run`.
    """

    def __init__(self, home: Home, make: Callable[[asyncio.AbstractEventLoop], Crew]) -> None:
        self._home = home
        self._make = make
        self._beginning = threading.Lock()
        self._warned = False
        self.now: Crew | None = None

    def current(self) -> tuple[Crew, bool]:
        """The crew that takes calls now, and whether this is its event loop."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        crew = self.now
        if crew is None or crew.loop.is_closed():
            with self._beginning:
                crew = self._begin(running)
        return crew, crew.loop is running

    def forget(self) -> None:
        """The crew takes no more calls: the next one begins another."""
        self.now = None

    def begin_anew(self) -> None:
        """In a process that was forked off: the parent has the event loop, and its calls."""
        # A thread of the parent may have held the other one.
        self._beginning = threading.Lock()
        self.now = None

    def _begin(self, running: asyncio.AbstractEventLoop | None) -> Crew:
        if self.now is not None and not self.now.loop.is_closed():
            # Another thread was faster.
            return self.now
        loop = self._home.loop
        if loop is None or loop.is_closed():
            loop = running
            self._warn_if_nobody_drains(running)
        if loop is None:
            loop = self._home.background_loop()
        self.now = self._make(loop)
        return self.now

    def _warn_if_nobody_drains(self, running: asyncio.AbstractEventLoop | None) -> None:
        if running is None or self._home.drains or self._warned:
            return
        self._warned = True
        _log.warning(
            "a call is deferred in an event loop in which nobody has opened its TaskQ: when the "
            "application stops, nothing waits for such calls. Use FastAPI(lifespan=q.lifespan), or "
            "`async with q:`; without a queue q.deferred.lifespan, or `async with q.deferred:`"
        )
