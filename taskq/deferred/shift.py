"""A shift: what is deferred in one event loop, from the first call to the drain.

::

    Admission ─> gates: prepared, first in line, due ─> a slot on the floor ─> over
                   ^────────────── next attempt ──────────────┘      └─ or to the queue: HandOver
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from taskq.core.durations import seconds
from taskq.core.options import JobOptions
from taskq.core.outcome import Cancelled, Failed, Outcome, RetryAsked, Succeeded
from taskq.core.state import JobState
from taskq.deferred.call import IN_LINE, NOT_DUE, PREPARING, Call
from taskq.deferred.floor import Floor
from taskq.deferred.handover import HandOver
from taskq.deferred.lines import Lines
from taskq.deferred.preparation import Preparation
from taskq.deferred.report import Report, showable
from taskq.deferred.settings import DeferredSettings
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.request import PLAIN

__all__ = ["Shift"]


class Shift:
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
        self.floor = Floor(loop, settings.concurrency, executors, report.tally, self._on_outcome)

    @property
    def backlog(self) -> int:
        """Calls that wait for anything."""
        return len(self.calls) - len(self.floor.running)

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
            self.floor.ready(call)

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
            self.floor.interrupt(call, Interruption.CANCEL)
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
            self.floor.ready(call)

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
            self.floor.interrupt(call, Interruption.LOST)
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
