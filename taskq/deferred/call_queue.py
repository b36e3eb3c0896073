"""The call queue: the deferred calls of one event loop, from admission to their end.

::

    Admission ─> gates: prepared, first of its key, due ─> a slot ─> over
                   ^────────────── next attempt ─────────────┘   └─> or to the queue: HandOver
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
from taskq.deferred.call import BEHIND_OTHERS, NOT_DUE, PREPARING, Call, WaitingCalls
from taskq.deferred.handover import HandOver, Preparation
from taskq.deferred.report import DeferredSettings, Report, Tally, showable
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.request import PLAIN
from taskq.execution.runner import interrupted, judged, run_attempt

__all__ = ["CallQueue", "OnOutcome", "OrderedCalls", "Slots"]

_log = logging.getLogger("taskq.deferred")

OnOutcome = Callable[[Call, Attempt | None, Outcome | None], None]
"""Takes a call and the attempt that ended; without an attempt, a call that expired before one."""


class Slots:
    """Runs at most `limit` calls at once, each attempt in an asyncio task of its own.

    `busy` and `thread` are for the slow call monitor: whether calls run, and in which thread.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        executors: ExecutorSet,
        tally: Tally,
        on_outcome: OnOutcome,
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._tally = tally
        self._on_outcome = on_outcome
        self.executors = executors
        self.running: set[Call] = set()
        self.waiting: WaitingCalls = OrderedDict()
        self.busy = threading.Event()
        self.thread = 0
        self.on_slot_free: Callable[[], None] | None = None

    def start(self, call: Call) -> None:
        """Start a call now, or when a slot is free and no earlier call waits for it."""
        if not self.waiting and len(self.running) < self._limit:
            self._start(call)
        else:
            call.state = JobState.QUEUED
            call.wait_in(self.waiting)

    def close(self) -> None:
        """Start no more calls."""
        self._limit = 0

    def interrupt(self, call: Call, reason: Interruption) -> None:
        """Interrupt the running attempt of a call, if there is one."""
        attempt = call.attempt
        if attempt is not None and attempt.interruption is None:
            attempt.interrupt(reason)
            self._abandon_later(call, attempt)

    def abandon(self, call: Call) -> None:
        """Give up on an attempt that does not end, and give its slot to another call."""
        attempt = call.attempt
        if attempt is not None:
            self._tally.leaked += 1
            reason = attempt.interruption or Interruption.RELEASE
            self._finish(call, attempt, interrupted(attempt, reason))

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
            attempt.on_interrupt = partial(self._abandon_later, call)
        # A copy: an attempt does not see what an earlier one did to its context variables.
        self._loop.create_task(self._run(call, attempt), context=call.context.copy())

    async def _run(self, call: Call, attempt: Attempt) -> None:
        if attempt.interruption is not None:
            self._finish(call, attempt, interrupted(attempt, attempt.interruption))
            return
        try:
            outcome = await run_attempt(attempt, self.executors)
        except GeneratorExit as error:
            # A future that raises it closes every coroutine that awaits it, run_attempt included.
            outcome = judged(attempt, error)
        if call.attempt is attempt:
            self._finish(call, attempt, outcome)
        else:
            self._tally.leaked -= 1

    def _finish(self, call: Call, attempt: Attempt, outcome: Outcome) -> None:
        self.running.discard(call)
        call.attempt = None
        self._on_outcome(call, attempt, outcome)
        # Break the cycle: call, its error, the error's traceback, the attempt, and the call again.
        attempt.on_interrupt = attempt.local = None
        while self.waiting and len(self.running) < self._limit:
            following = next(iter(self.waiting))
            following.stop_waiting()
            self._start(following)
        if self.on_slot_free is not None:
            self.on_slot_free()

    def _abandon_later(self, call: Call, attempt: Attempt) -> None:
        self._loop.call_later(CANCEL_GRACE_SECONDS, self._abandon_if_running, call, attempt)

    def _abandon_if_running(self, call: Call, attempt: Attempt) -> None:
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


class OrderedCalls:
    """Calls by ordering key, in the order they were deferred; only the first of a key may run."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, ...], deque[Call]] = {}

    def add(self, call: Call) -> bool:
        """Add a call behind the earlier calls of its key; true if it is the first."""
        if call.ordering_key is None:
            return True
        calls = self._calls.setdefault(call.ordering_key, deque())
        calls.append(call)
        return len(calls) == 1

    def remove(self, call: Call) -> Call | None:
        """Remove a call that is over; returns the call that is the first of its key instead."""
        calls = None if call.ordering_key is None else self._calls.get(call.ordering_key)
        if not calls or call.ordering_key is None or call not in calls:
            return None
        was_first = calls[0] is call
        calls.remove(call)
        if not calls:
            del self._calls[call.ordering_key]
            return None
        return calls[0] if was_first else None

    def last(self, key: tuple[str, ...]) -> Call | None:
        """The latest call of a key."""
        calls = self._calls.get(key)
        return calls[-1] if calls else None


class CallQueue:
    """The calls of one event loop; used in that loop only.

    `calls` are those that are not over. `deadline` is the end of the drain, once there is one;
    `due_after_deadline` are the calls that it does not wait for. `on_change` is called when a call
    is over or delayed.
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
        self.due_after_deadline: set[Call] = set()
        self.deadline: float | None = None
        self.on_change: Callable[[], None] | None = None
        self.ordered = OrderedCalls()
        self.hand_over = hand_over
        self.preparation = preparation
        hand_over.on_replaced = self.remove
        hand_over.durable.on_lost = self._lost
        self._report = report
        executors = ExecutorSet(threads=settings.threads, processes=settings.processes)
        self.slots = Slots(loop, settings.concurrency, executors, report.tally, self._on_outcome)

    @property
    def backlog(self) -> int:
        """How many calls do not run yet."""
        return len(self.calls) - len(self.slots.running)

    def add(self, call: Call) -> None:
        """Add a call, which runs once all its gates are open."""
        self.calls.add(call)
        self._report.tally.submitted += 1
        options = call.options
        if options is not PLAIN:
            if not self.ordered.add(call):
                call.gates |= BEHIND_OTHERS
            seconds_left = _delay(options)
            if seconds_left > 0:
                self.delay(call, seconds_left)
        self.prepare(call)
        if not call.gates:
            self.slots.start(call)

    def prepare(self, call: Call) -> None:
        """Have a call prepared before it runs, if it needs that."""
        if call.options.durable or self.preparation.layers:
            call.gates |= PREPARING
            self.preparation.prepare(call, self._prepared)
        elif call.accepted is not None:
            call.accept()

    def delay(self, call: Call, seconds: float) -> None:
        """Make a call due `seconds` from now, whatever it waited for before."""
        if call.timer is not None:
            call.timer.cancel()
        call.stop_waiting()
        call.gates |= NOT_DUE
        call.state = JobState.SCHEDULED
        call.timer = self.loop.call_later(seconds, self.make_due, call)
        if self.deadline is not None and call.timer.when() > self.deadline:
            self.due_after_deadline.add(call)
        if self.on_change is not None:
            self.on_change()

    def make_due(self, call: Call) -> None:
        """Let a delayed call start."""
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
            self.end(call, JobState.CANCELLED)

    def end(self, call: Call, state: JobState) -> None:
        """End a call in its final state."""
        if call.owner:
            self.hand_over.durable.settle(call, state)
        call.end(state)
        self.remove(call)

    def remove(self, call: Call) -> None:
        """Remove a call: it is over, or goes on elsewhere."""
        self.calls.discard(call)
        if call.ordering_key is not None:
            following = self.ordered.remove(call)
            if following is not None:
                self._open(following, BEHIND_OTHERS)
        if self.due_after_deadline:
            self.due_after_deadline.discard(call)
        if self.on_change is not None:
            self.on_change()

    def _prepared(self, call: Call, error: BaseException | None) -> None:
        if call.over:
            return
        if error is None:
            self._open(call, PREPARING)
            return
        call.refusal = error
        self._fail(call, Failed(type(error).__name__, str(error), ""), error)

    def _open(self, call: Call, gate: int) -> None:
        call.gates &= ~gate
        if not call.gates and not call.over:
            self.slots.start(call)

    def _on_outcome(self, call: Call, attempt: Attempt | None, outcome: Outcome | None) -> None:
        if attempt is None or outcome is None:
            self._report.tally.expired += 1
            self.end(call, JobState.EXPIRED)
            return
        if isinstance(outcome, Succeeded):
            self._report.succeeded(call)
            self.end(call, JobState.SUCCEEDED)
            return
        error, call.error = call.error, None
        match outcome:
            case Failed():
                self._fail(call, outcome, error)
            case RetryAsked(delay):
                self._report.tally.retried += 1
                self.delay(call, delay)
            case Cancelled():
                self._report.tally.cancelled += 1
                self.end(call, JobState.CANCELLED)
            case _:
                call.state = JobState.QUEUED
                if attempt.interruption is Interruption.LOST:
                    self.hand_over.replace(call)
                elif self.on_change is not None:
                    # Released at the end of the drain, which enqueues it.
                    self.on_change()

    def _lost(self, call: Call) -> None:
        """Stop a durable call that the queue has taken over: its job replaces it."""
        call.owner = ""
        if call.attempt is not None:
            self.slots.interrupt(call, Interruption.LOST)
        else:
            self.hand_over.replace(call)

    def _fail(self, call: Call, outcome: Failed, error: BaseException | None) -> None:
        call.failures += 1
        self._report.failed(call, outcome, error)
        if outcome.retry_in is not None:
            self.delay(call, outcome.retry_in)
            return
        call.failed, call.error = outcome, showable(outcome, error)
        self.end(call, JobState.FAILED)


def _delay(options: JobOptions) -> float:
    """Seconds until a call is due, by this process's clock: the call runs here."""
    if options.eta is not None:
        return options.eta.timestamp() - time.time()
    waits: list[Any] = [wait for wait in (options.delay, options.debounce) if wait is not None]
    return max((seconds("delay", wait) for wait in waits), default=0.0)
