"""Admission of deferred calls while the program runs, and their drain when it ends.

A call is admitted when there is room for it. The drain gives calls a grace period; what has not
ended by then goes to the queue where it can.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from taskq.core.errors import BacklogFull
from taskq.core.job import JobState
from taskq.core.outcome import Failed
from taskq.deferred.call import Call, CrossLoopEvent, Row
from taskq.deferred.call_queue import CallQueue
from taskq.deferred.report import DeferredSettings, Report
from taskq.execution.attempt import Interruption
from taskq.execution.request import PLAIN

__all__ = ["Admission", "drain"]

_log = logging.getLogger("taskq.deferred")

INTERRUPTED_SECONDS = 1.0
"""What calls get to clean up once they are interrupted."""


async def drain(
    call_queue: CallQueue, admission: Admission, grace: float, on_closed: Callable[[], None]
) -> None:
    """End a shift within `grace` seconds and a little more.

    Calls that run or could run go on, and what they defer is taken too. Those that are due only
    after the grace are not waited for. At its end what runs is interrupted, and `on_closed` is
    called: from then on calls are somebody else's.
    """
    loop = call_queue.loop
    deadline = call_queue.deadline = loop.time() + grace
    _bring_forward(call_queue, deadline)
    changed = asyncio.Event()
    call_queue.on_change = changed.set
    try:
        await _until_empty(call_queue, admission, changed, deadline)
        on_closed()
        call_queue.slots.close()
        await call_queue.preparation.settle_down(INTERRUPTED_SECONDS)
        await _interrupt(call_queue, changed)
    finally:
        call_queue.on_change = None
    left = [*call_queue.calls, *admission.outside]
    for call in left:
        call.step_out()
    await call_queue.hand_over.leftovers(sorted(left, key=lambda call: call.asked_at))
    for call in left:
        call_queue.forget(call)
    await call_queue.hand_over.drain()
    await call_queue.slots.executors.aclose()


async def _interrupt(call_queue: CallQueue, changed: asyncio.Event) -> None:
    running = list(call_queue.slots.running)
    if not running:
        return
    _log.warning("%d deferred calls did not end in time", len(running))
    for call in running:
        call_queue.slots.interrupt(call, Interruption.RELEASE)
    await _until_idle(call_queue, changed, call_queue.loop.time() + INTERRUPTED_SECONDS)
    for call in list(call_queue.slots.running):
        call_queue.slots.abandon(call)


def _bring_forward(call_queue: CallQueue, deadline: float) -> None:
    for call in list(call_queue.calls):
        if call.timer is None:
            continue
        if call.options.debounce is not None and not call.attempts:
            # Nobody will call again: what the calls so far asked for is known.
            call_queue.due(call)
        elif call.timer.when() > deadline:
            call_queue.beyond.add(call)


async def _until_empty(
    call_queue: CallQueue, admission: Admission, changed: asyncio.Event, deadline: float
) -> None:
    while len(call_queue.calls) > len(call_queue.beyond) or admission.outside:
        admission.let_in()
        if not await _wait(changed, deadline):
            return


async def _until_idle(call_queue: CallQueue, changed: asyncio.Event, deadline: float) -> None:
    while call_queue.slots.running:
        if not await _wait(changed, deadline):
            return


async def _wait(changed: asyncio.Event, deadline: float) -> bool:
    """Wait for a change; false when it is too late."""
    try:
        async with asyncio.timeout_at(deadline):
            await changed.wait()
    except TimeoutError:
        return False
    changed.clear()
    return True


class Admission:
    """Takes calls in. `outside` are those that wait for room."""

    def __init__(self, call_queue: CallQueue, settings: DeferredSettings, report: Report) -> None:
        self._call_queue = call_queue
        self._settings = settings
        self._report = report
        self.outside: Row = OrderedDict()
        self.waiting_threads: deque[Callable[[], None]] = deque()

    @property
    def full(self) -> bool:
        """Whether there is no room for another call."""
        backlog = self._call_queue.backlog
        if backlog < self._settings.backlog:
            return False
        return backlog > 0 or len(self._call_queue.slots.running) >= self._settings.concurrency

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
        if len(self._call_queue.calls) < self._settings.backlog or not self.full:
            self._call_queue.take(call)
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
            self._call_queue.hand_over.check(call, self._why())
        elif not in_a_loop():
            self._wait_in_thread()

    def _wait_in_thread(self) -> None:
        room = threading.Event()
        room.set()
        while self.full and not self._call_queue.loop.is_closed():
            if room.is_set():
                room.clear()
                self._call_queue.loop.call_soon_threadsafe(self.waiting_threads.append, room.set)
            # Room that came before the loop has heard of this thread wakes nobody.
            room.wait(0.5)

    def let_in(self) -> None:
        """Take calls that waited for room, as far as there is any."""
        while self.waiting_threads and not self.full:
            self.waiting_threads.popleft()()
        while self.outside and not self.full:
            call = next(iter(self.outside))
            call.step_out()
            self._call_queue.take(call)

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
        twin = self._call_queue.lines.last(call.line)
        if twin is None or twin.attempts or not _covers(twin, call):
            return None
        self._report.tally.merged += 1
        if call.options.debounce is not None:
            twin.amend(call)
            self._call_queue.put_off(twin, call.options.debounce)
            self._call_queue.prepare(twin)
        return twin

    def _turn_away(self, call: Call) -> None:
        policy = call.options.when_full or self._settings.when_full
        if policy == "wait":
            if call.accepted is None:
                call.accepted = CrossLoopEvent()
            call.stand_in(self.outside)
            return
        if policy == "spill":
            self._call_queue.hand_over.overflow(call, self._why())
            return
        self._report.tally.rejected += 1
        raise BacklogFull(
            f"{self._why()}: {call.task.name} was not taken. Raise backlog= or concurrency= of "
            "DeferredSettings, or say what to do: .options(when_full='spill') or 'wait'"
        )

    def _why(self) -> str:
        backlog = self._settings.backlog
        return f"{self._call_queue.backlog:,} deferred calls wait, and backlog={backlog:,}"


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
