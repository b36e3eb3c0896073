"""The call queue: what is deferred in one event loop, from admission to its end.

::

    Admission ─> gates: prepared, first in line, due ─> a slot ─> over
                   ^───────────── next attempt ───────────┘   └─ or to the queue: HandOver
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from taskq.core.durations import seconds
from taskq.core.job import JobState
from taskq.core.liveness import CANCEL_GRACE_SECONDS
from taskq.core.options import JobOptions
from taskq.core.outcome import Cancelled, Failed, Outcome, RetryAsked, Succeeded
from taskq.deferred.call import IN_LINE, NOT_DUE, PREPARING, Call, Row
from taskq.deferred.handover import HandOver
from taskq.deferred.preparation import Preparation
from taskq.deferred.report import DeferredSettings, Report, Tally, showable
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.request import PLAIN
from taskq.execution.runner import interrupted, judged, run_attempt

__all__ = ["CallQueue", "Lines", "OnOutcome", "Slots"]

_log = logging.getLogger("taskq.deferred")

OnOutcome = Callable[[Call, Attempt | None, Outcome | None], None]
"""Takes a call whose attempt ended, or without an attempt one that expired before it."""


class Slots:
    """Runs at most `slots` calls at once, each attempt in an asyncio task of its own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slots: int,
        executors: ExecutorSet,
        tally: Tally,
        on_outcome: OnOutcome,
    ) -> None:
        self._loop = loop
        self._slots = slots
        self._tally = tally
        self._on_outcome = on_outcome
        self.executors = executors
        self.running: set[Call] = set()
        self.waiting: Row = OrderedDict()
        # For who watches the loop: whether it has anything to do, and in which thread it runs.
        self.busy = threading.Event()
        self.thread = 0
        self.on_room: Callable[[], None] | None = None

    def ready(self, call: Call) -> None:
        """Start a call, now or when a slot is free and those that were ready before have one."""
        if not self.waiting and len(self.running) < self._slots:
            self._start(call)
        else:
            call.state = JobState.QUEUED
            call.stand_in(self.waiting)

    def close(self) -> None:
        """Start nothing more."""
        self._slots = 0

    def interrupt(self, call: Call, why: Interruption) -> None:
        """Interrupt the running attempt of a call, if there is one."""
        attempt = call.attempt
        if attempt is not None and attempt.interruption is None:
            attempt.interrupt(why)
            self._watch(call, attempt)

    def abandon(self, call: Call) -> None:
        """Go on without an attempt that does not end: its slot is given to another call."""
        attempt = call.attempt
        if attempt is not None:
            self._tally.leaked += 1
            why = attempt.interruption or Interruption.RELEASE
            self._leave(call, attempt, interrupted(attempt, why))

    def _start(self, call: Call) -> None:
        if call.expires_at is not None and time.monotonic() > call.expires_at:
            self._on_outcome(call, None, None)
            return
        self.running.add(call)
        if not self.busy.is_set():
            self.thread = threading.get_ident()
            self.busy.set()
        call.state = JobState.RUNNING
        attempt = call.next_attempt()
        if attempt.timeout is not None:
            attempt.on_interrupt = partial(self._watch, call)
        # What one attempt does to its context variables, the next does not see.
        self._loop.create_task(self._run(call, attempt), context=call.context.copy())

    async def _run(self, call: Call, attempt: Attempt) -> None:
        if attempt.interruption is not None:
            self._leave(call, attempt, interrupted(attempt, attempt.interruption))
            return
        try:
            outcome = await run_attempt(attempt, self.executors)
        except GeneratorExit as error:
            # A future that carries it closes all coroutines that await it, run_attempt among them.
            outcome = judged(attempt, error)
        if call.attempt is attempt:
            self._leave(call, attempt, outcome)
        else:
            self._tally.leaked -= 1

    def _leave(self, call: Call, attempt: Attempt, outcome: Outcome) -> None:
        self.running.discard(call)
        call.attempt = None
        self._on_outcome(call, attempt, outcome)
        # They lead to the call, and the call to the error whose traceback leads to the attempt.
        attempt.on_interrupt = attempt.local = None
        while self.waiting and len(self.running) < self._slots:
            ready = next(iter(self.waiting))
            ready.step_out()
            self._start(ready)
        if self.on_room is not None:
            self.on_room()

    def _watch(self, call: Call, attempt: Attempt) -> None:
        self._loop.call_later(CANCEL_GRACE_SECONDS, self._look_again, call, attempt)

    def _look_again(self, call: Call, attempt: Attempt) -> None:
        if call.attempt is not attempt:
            return
        _log.warning(
            "deferred %s (%s) goes on though it was interrupted %g s ago; its slot counts as "
            "leaked",
            call.task.name,
            call.id,
            CANCEL_GRACE_SECONDS,
        )
        self.abandon(call)


class Lines:
    """Calls by line, in the order in which they were submitted; the first of a line may run."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, ...], deque[Call]] = {}

    def join(self, call: Call) -> bool:
        """Put a call at the end of its line; true when it is the first."""
        if call.line is None:
            return True
        line = self._lines.setdefault(call.line, deque())
        line.append(call)
        return len(line) == 1

    def leave(self, call: Call) -> Call | None:
        """Take a call that is over out of its line; gives the one that is first in its place."""
        line = None if call.line is None else self._lines.get(call.line)
        if not line or call.line is None or call not in line:
            return None
        was_first = line[0] is call
        line.remove(call)
        if not line:
            del self._lines[call.line]
            return None
        return line[0] if was_first else None

    def last(self, name: tuple[str, ...]) -> Call | None:
        """The call at the end of a line."""
        line = self._lines.get(name)
        return line[-1] if line else None


class CallQueue:
    """The calls of one event loop; used in that loop alone.

    `calls` are those that are not over, `beyond` those of them that will be due after `deadline`,
    which is the end of the drain once there is one. `on_change` is called when a call is over or
    put off.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: DeferredSettings,
        report: Report,
        hand_over: HandOver,
        preparation: Preparation,
    ) -> None:
        self.loop = loop
        self.calls: set[Call] = set()
        self.beyond: set[Call] = set()
        self.deadline: float | None = None
        self.on_change: Callable[[], None] | None = None
        self.lines = Lines()
        self.hand_over = hand_over
        self.preparation = preparation
        hand_over.on_replaced = self.forget
        hand_over.durable.on_lost = self._lost
        self._report = report
        executors = ExecutorSet(threads=settings.threads, processes=settings.processes)
        self.slots = Slots(loop, settings.concurrency, executors, report.tally, self._on_outcome)

    @property
    def backlog(self) -> int:
        """Calls that wait for anything."""
        return len(self.calls) - len(self.slots.running)

    def take(self, call: Call) -> None:
        """Have a call run when nothing is in its way."""
        self.calls.add(call)
        self._report.tally.submitted += 1
        options = call.options
        if options is not PLAIN:
            if not self.lines.join(call):
                call.gates |= IN_LINE
            delay = _delay(options)
            if delay > 0:
                self.put_off(call, delay)
        self.prepare(call)
        if not call.gates:
            self.slots.ready(call)

    def prepare(self, call: Call) -> None:
        """Have a call prepared before it runs, if it needs that."""
        if call.options.durable or self.preparation.layers:
            call.gates |= PREPARING
            self.preparation.prepare(call, self._prepared)
        elif call.accepted is not None:
            call.accept()

    def put_off(self, call: Call, delay: float) -> None:
        """Have a call wait `delay` seconds from now, whatever it waited for before."""
        if call.timer is not None:
            call.timer.cancel()
        call.step_out()
        call.gates |= NOT_DUE
        call.state = JobState.SCHEDULED
        call.timer = self.loop.call_later(delay, self.due, call)
        if self.deadline is not None and call.timer.when() > self.deadline:
            self.beyond.add(call)
        if self.on_change is not None:
            self.on_change()

    def due(self, call: Call) -> None:
        """The time of a call has come."""
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        call.state = JobState.QUEUED
        self._open(call, NOT_DUE)

    def cancel(self, call: Call) -> None:
        """Cancel a call."""
        if call.over:
            return
        if call.attempt is not None:
            self.slots.interrupt(call, Interruption.CANCEL)
        else:
            self._report.tally.cancelled += 1
            self.over(call, JobState.CANCELLED)

    def over(self, call: Call, state: JobState) -> None:
        """A call has ended here."""
        if call.owner:
            self.hand_over.durable.settle(call, state)
        call.end(state)
        self.forget(call)

    def forget(self, call: Call) -> None:
        """A call is not this shift's any more."""
        self.calls.discard(call)
        if call.line is not None:
            following = self.lines.leave(call)
            if following is not None:
                self._open(following, IN_LINE)
        if self.beyond:
            self.beyond.discard(call)
        if self.on_change is not None:
            self.on_change()

    def _prepared(self, call: Call, error: BaseException | None) -> None:
        if call.over:
            return
        if error is None:
            self._open(call, PREPARING)
            return
        outcome = Failed(type(error).__name__, str(error), "")
        call.refusal = error
        self._fail(call, outcome, error)

    def _open(self, call: Call, gate: int) -> None:
        call.gates &= ~gate
        if not call.gates and not call.over:
            self.slots.ready(call)

    def _on_outcome(self, call: Call, attempt: Attempt | None, outcome: Outcome | None) -> None:
        if attempt is None or outcome is None:
            self._report.tally.expired += 1
            self.over(call, JobState.EXPIRED)
            return
        if isinstance(outcome, Succeeded):
            self._report.succeeded(call)
            self.over(call, JobState.SUCCEEDED)
            return
        error, call.error = call.error, None
        match outcome:
            case Failed():
                self._fail(call, outcome, error)
            case RetryAsked(delay):
                self._report.tally.retried += 1
                self.put_off(call, delay)
            case Cancelled():
                self._report.tally.cancelled += 1
                self.over(call, JobState.CANCELLED)
            case _:
                call.state = JobState.QUEUED
                if attempt.interruption is Interruption.LOST:
                    self.hand_over.replace(call)
                elif self.on_change is not None:
                    # Released: the drain knows where it goes.
                    self.on_change()

    def _lost(self, call: Call) -> None:
        """The queue has taken a durable call over: what runs here is for nobody any more."""
        call.owner = ""
        if call.attempt is not None:
            self.slots.interrupt(call, Interruption.LOST)
        else:
            self.hand_over.replace(call)

    def _fail(self, call: Call, outcome: Failed, error: BaseException | None) -> None:
        call.failures += 1
        self._report.failed(call, outcome, error)
        if outcome.retry_in is not None:
            self.put_off(call, outcome.retry_in)
            return
        call.failed, call.error = outcome, showable(outcome, error)
        self.over(call, JobState.FAILED)


def _delay(options: JobOptions) -> float:
    """Seconds until a call is due, on this process's clock: it is this process that runs it."""
    if options.eta is not None:
        return options.eta.timestamp() - time.time()
    waits: list[Any] = [wait for wait in (options.delay, options.debounce) if wait is not None]
    return max((seconds("delay", wait) for wait in waits), default=0.0)
