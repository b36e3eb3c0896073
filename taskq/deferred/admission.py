"""Admission of deferred calls while the program runs, and their drain when it ends.

A call is admitted while the backlog has room. The drain gives calls a grace period; calls that have
not ended by then are enqueued where possible.
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
from taskq.deferred.call import Call, CrossLoopEvent, WaitingCalls
from taskq.deferred.call_queue import CallQueue
from taskq.deferred.report import DeferredSettings, Report
from taskq.execution.attempt import Interruption
from taskq.execution.request import PLAIN

__all__ = ["Admission", "drain"]

_log = logging.getLogger("taskq.deferred")

CLEANUP_SECONDS = 1.0
"""How long interrupted calls may clean up."""


async def drain(
    call_queue: CallQueue, admission: Admission, grace: float, on_closed: Callable[[], None]
) -> None:
    """Let the calls of an event loop end within `grace` seconds, then interrupt the rest.

    Calls that run or may run go on, and what they defer is admitted too. Calls that are due only
    after the grace are not waited for. When the grace is over, `on_closed` is called, from when on
    no further call may come here; running calls are interrupted, and unfinished ones are enqueued.
    """
    loop = call_queue.loop
    deadline = call_queue.deadline = loop.time() + grace
    _sort_by_due_time(call_queue, deadline)
    changed = asyncio.Event()
    call_queue.on_change = changed.set
    try:
        await _until_empty(call_queue, admission, changed, deadline)
        on_closed()
        call_queue.slots.close()
        await call_queue.preparation.drain(CLEANUP_SECONDS)
        await _interrupt(call_queue, changed)
    finally:
        call_queue.on_change = None
    unfinished = [*call_queue.calls, *admission.waiting_for_room]
    for call in unfinished:
        call.stop_waiting()
    unfinished.sort(key=lambda call: call.deferred_at)
    await call_queue.hand_over.enqueue_unfinished(unfinished)
    for call in unfinished:
        call_queue.remove(call)
    await call_queue.hand_over.drain()
    await call_queue.slots.executors.aclose()


async def _interrupt(call_queue: CallQueue, changed: asyncio.Event) -> None:
    running = list(call_queue.slots.running)
    if not running:
        return
    _log.warning("%d deferred calls did not end in time", len(running))
    for call in running:
        call_queue.slots.interrupt(call, Interruption.RELEASE)
    await _until_idle(call_queue, changed, call_queue.loop.time() + CLEANUP_SECONDS)
    for call in list(call_queue.slots.running):
        call_queue.slots.abandon(call)


def _sort_by_due_time(call_queue: CallQueue, deadline: float) -> None:
    """Start debounced calls now, and do not wait for calls that are due after the deadline."""
    for call in list(call_queue.calls):
        if call.timer is None:
            continue
        if call.options.debounce is not None and not call.attempts:
            # No later call will change what it asks for.
            call_queue.make_due(call)
        elif call.timer.when() > deadline:
            call_queue.due_after_deadline.add(call)


async def _until_empty(
    call_queue: CallQueue, admission: Admission, changed: asyncio.Event, deadline: float
) -> None:
    while len(call_queue.calls) > len(call_queue.due_after_deadline) or admission.waiting_for_room:
        admission.admit_waiting()
        if not await _wait(changed, deadline):
            return


async def _until_idle(call_queue: CallQueue, changed: asyncio.Event, deadline: float) -> None:
    while call_queue.slots.running:
        if not await _wait(changed, deadline):
            return


async def _wait(changed: asyncio.Event, deadline: float) -> bool:
    """Wait for a change; false when the deadline has passed."""
    try:
        async with asyncio.timeout_at(deadline):
            await changed.wait()
    except TimeoutError:
        return False
    changed.clear()
    return True


class Admission:
    """Admits calls to the call queue, merges them, or applies `when_full`."""

    def __init__(self, call_queue: CallQueue, settings: DeferredSettings, report: Report) -> None:
        self._call_queue = call_queue
        self._settings = settings
        self._report = report
        self.waiting_for_room: WaitingCalls = OrderedDict()
        self._waiting_threads: deque[Callable[[], None]] = deque()

    @property
    def full(self) -> bool:
        """Whether there is no room for another call."""
        backlog = self._call_queue.backlog
        if backlog < self._settings.backlog:
            return False
        return backlog > 0 or len(self._call_queue.slots.running) >= self._settings.concurrency

    def admit(self, call: Call) -> Call:
        """Admit a call, or merge it into one that waits; returns the call that will run.

        Raises `BacklogFull`, and `EncodeError` for arguments that cannot be spilled.
        """
        if call.options is not PLAIN:
            call.ordering_key = self._ordering_key(call)
            waiting = self._merge(call)
            if waiting is not None:
                return waiting
        # The cheaper test first: the common case.
        if len(self._call_queue.calls) < self._settings.backlog or not self.full:
            self._call_queue.add(call)
        else:
            self._apply_when_full(call)
        return call

    def admit_late(self, call: Call) -> None:
        """Admit a call whose handle is in use: from another thread, or after its request.

        An error goes to the handle instead of being raised.
        """
        if call.over:
            # Cancelled on its way to this event loop.
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
        """Apply `when_full` in the thread that defers a call while the backlog is full.

        The backlog may have changed again when the event loop gets to the call.
        """
        policy = call.options.when_full or self._settings.when_full
        if policy == "reject":
            self._apply_when_full(call)
        elif policy == "spill":
            self._call_queue.hand_over.check_spillable(call, self._full_text())
        elif not _in_event_loop():
            self._wait_in_thread()

    def _wait_in_thread(self) -> None:
        room = threading.Event()
        room.set()
        while self.full and not self._call_queue.loop.is_closed():
            if room.is_set():
                room.clear()
                self._call_queue.loop.call_soon_threadsafe(self._waiting_threads.append, room.set)
            # With a timeout: room that came before the loop knew of this thread wakes no one.
            room.wait(0.5)

    def admit_waiting(self) -> None:
        """Admit the calls that wait for room, and wake waiting threads, while there is room."""
        while self._waiting_threads and not self.full:
            self._waiting_threads.popleft()()
        while self.waiting_for_room and not self.full:
            call = next(iter(self.waiting_for_room))
            call.stop_waiting()
            self._call_queue.add(call)

    def _ordering_key(self, call: Call) -> tuple[str, ...] | None:
        options = call.options
        if options.order is not None:
            if options.key is None:
                return "request", self._report.request_of(call) or ""
            return "order", options.key
        return None if options.key is None else ("key", call.task.name, options.key)

    def _merge(self, call: Call) -> Call | None:
        """The waiting call of the same task and key that runs for this one too, if there is one."""
        if call.ordering_key is None or call.options.order is not None:
            return None
        waiting = self._call_queue.ordered.last(call.ordering_key)
        if waiting is None or waiting.attempts or not _runs_for(waiting, call):
            return None
        self._report.tally.merged += 1
        if call.options.debounce is not None:
            waiting.update_from(call)
            self._call_queue.delay(waiting, call.options.debounce)
            self._call_queue.prepare(waiting)
        return waiting

    def _apply_when_full(self, call: Call) -> None:
        policy = call.options.when_full or self._settings.when_full
        if policy == "wait":
            if call.accepted is None:
                call.accepted = CrossLoopEvent()
            call.wait_in(self.waiting_for_room)
            return
        if policy == "spill":
            self._call_queue.hand_over.spill(call, self._full_text())
            return
        self._report.tally.rejected += 1
        raise BacklogFull(
            f"{self._full_text()}: {call.task.name} was rejected. Raise backlog= or concurrency= "
            "of DeferredSettings, or choose another policy: .options(when_full='spill') or 'wait'"
        )

    def _full_text(self) -> str:
        backlog = self._settings.backlog
        return f"{self._call_queue.backlog:,} deferred calls wait, and backlog={backlog:,}"


def _runs_for(waiting: Call, call: Call) -> bool:
    """Whether `waiting` keeps the promises of `call` when it runs for it."""
    if call.options.debounce is not None:
        # The queue would keep the arguments of the first call.
        return not waiting.options.durable
    return waiting.options.durable or not call.options.durable


def _in_event_loop() -> bool:
    """Whether this thread runs an event loop, which must not be blocked."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
