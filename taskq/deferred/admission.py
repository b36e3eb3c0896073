"""Admission: whether there is room for a call, and whether it runs for itself."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from taskq.core.errors import BacklogFull
from taskq.core.outcome import Failed
from taskq.core.state import JobState
from taskq.deferred.call import Call, Row
from taskq.deferred.latch import Latch
from taskq.deferred.report import Report
from taskq.deferred.settings import DeferredSettings
from taskq.deferred.shift import Shift
from taskq.execution.request import PLAIN

__all__ = ["Admission"]


class Admission:
    """Takes calls in. `outside` are those that wait for room."""

    def __init__(self, shift: Shift, settings: DeferredSettings, report: Report) -> None:
        self._shift = shift
        self._settings = settings
        self._report = report
        self.outside: Row = OrderedDict()
        self.waiting_threads: deque[Callable[[], None]] = deque()

    @property
    def full(self) -> bool:
        """Whether there is no room for another call."""
        backlog = self._shift.backlog
        if backlog < self._settings.backlog:
            return False
        return backlog > 0 or len(self._shift.floor.running) >= self._settings.concurrency

    def admit(self, call: Call) -> Call:
        """Take a call, or merge it into one that waits; gives the one that will run.

        Raises `BacklogFull`, and `EncodeError` for one that should be spilled and cannot travel.
        """
        if call.options is not PLAIN:
            call.line = self._line_of(call)
            twin = self._twin(call)
            if twin is not None:
                return twin
        # As few words as possible for the common case.
        if len(self._shift.calls) < self._settings.backlog or not self.full:
            self._shift.take(call)
        else:
            self._turn_away(call)
        return call

    def admit_late(self, call: Call) -> None:
        """The same for a call whose handle is out: of another thread, or one that was held back."""
        if call.over:
            # Cancelled before this loop had a look at it.
            return
        try:
            admitted = self.admit(call)
        except Exception as error:
            self._report.refused(call, error)
            call.failed = Failed(type(error).__name__, str(error), "")
            call.error = call.refusal = error
            call.end(JobState.FAILED)
            return
        if admitted is not call:
            call.follow(admitted)

    def check_from_thread(self, call: Call) -> None:
        """Refuse a call there is no room for now, or have its thread wait for room.

        The room may be gone, or there again, when the event loop looks at it.
        """
        policy = call.options.when_full or self._settings.when_full
        if policy == "reject":
            self._turn_away(call)
        elif policy == "spill":
            self._shift.hand_over.check(call, self._why())
        elif not in_a_loop():
            self._wait_in_thread()

    def _wait_in_thread(self) -> None:
        room = threading.Event()
        room.set()
        while self.full and not self._shift.loop.is_closed():
            if room.is_set():
                room.clear()
                self._shift.loop.call_soon_threadsafe(self.waiting_threads.append, room.set)
            # Room that came before the loop has heard of this thread wakes nobody.
            room.wait(0.5)

    def let_in(self) -> None:
        """Take calls that waited for room, as far as there is any."""
        while self.waiting_threads and not self.full:
            self.waiting_threads.popleft()()
        while self.outside and not self.full:
            call = next(iter(self.outside))
            call.step_out()
            self._shift.take(call)

    def _line_of(self, call: Call) -> tuple[str, ...] | None:
        options = call.options
        if options.order is not None:
            if options.key is None:
                return "request", self._report.request_of(call) or ""
            return "order", options.key
        return None if options.key is None else ("key", call.task.name, options.key)

    def _twin(self, call: Call) -> Call | None:
        """A call of the same task and key that has not begun, and runs for this one too."""
        if call.line is None or call.options.order is not None:
            return None
        twin = self._shift.lines.last(call.line)
        if twin is None or twin.attempts or not _covers(twin, call):
            return None
        self._report.tally.merged += 1
        if call.options.debounce is not None:
            twin.amend(call)
            self._shift.put_off(twin, call.options.debounce)
            self._shift.prepare(twin)
        return twin

    def _turn_away(self, call: Call) -> None:
        policy = call.options.when_full or self._settings.when_full
        if policy == "wait":
            if call.accepted is None:
                call.accepted = Latch()
            call.stand_in(self.outside)
            return
        if policy == "spill":
            self._shift.hand_over.overflow(call, self._why())
            return
        self._report.tally.rejected += 1
        raise BacklogFull(
            f"{self._why()}: {call.task.name} was not taken. Raise backlog= or concurrency= of "
            "DeferredSettings, or say what to do: .options(when_full='spill') or 'wait'"
        )

    def _why(self) -> str:
        backlog = self._settings.backlog
        return f"{self._shift.backlog:,} deferred calls wait, and backlog={backlog:,}"


def _covers(twin: Call, call: Call) -> bool:
    """Whether what is promised of a call holds when another runs for it."""
    if call.options.debounce is not None:
        # The queue would keep the arguments that it has.
        return not twin.options.durable
    return twin.options.durable or not call.options.durable


def in_a_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
