"""A crew: the parts that run what is deferred in one event loop, wired."""

from __future__ import annotations

import asyncio
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
from taskq.execution.middleware import Middleware

__all__ = ["Crew"]


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
