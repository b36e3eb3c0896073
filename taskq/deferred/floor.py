"""The floor: calls that run, and those that are ready and wait for a slot."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from taskq.core.liveness import CANCEL_GRACE_SECONDS
from taskq.core.outcome import Outcome
from taskq.core.state import JobState
from taskq.deferred.call import Call, Row
from taskq.deferred.report import Tally
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.classify import interrupted
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.runner import judged, run_attempt

__all__ = ["Floor", "OnOutcome"]

_log = logging.getLogger("taskq.deferred")

OnOutcome = Callable[[Call, Attempt | None, Outcome | None], None]
"""Takes a call whose attempt ended, or without an attempt one that expired before it."""


class Floor:
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
