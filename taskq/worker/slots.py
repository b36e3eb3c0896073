"""Slots: the jobs that run in this worker.

A delivery is claimed either by the event loop, which starts it, or by the heartbeat's thread, which
hands back what a blocked loop cannot start.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass

from taskq.core.errors import ServerError
from taskq.core.job import Delivery
from taskq.core.liveness import CANCEL_GRACE_SECONDS
from taskq.core.outcome import Outcome, Released
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.job_log import job_fields, log_outcome
from taskq.execution.runner import interrupted, judged, run_attempt, unforeseen
from taskq.redis.connection import ConnectionLost
from taskq.worker.intake import Intake
from taskq.worker.session import Session
from taskq.worker.settings import Tally

__all__ = ["Ended", "Slots", "StartClaims"]


class StartClaims:
    """Decides between two threads, once for each delivery: who claims it first has it.

    A job that blocks the event loop must not keep those that have not started. The heartbeat's
    thread claims them, also such as the loop has not even read yet, and the loop leaves them alone
    when it comes to them. `dict.setdefault` is one step for both threads. An entry has one claim:
    its fence where the loop started it, and less than zero where it was handed back.

    A claim of an earlier delivery of the same entry is there only when that one was handed back and
    never arrived; then both threads go through a lock.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, int] = {}
        self._renewing = threading.Lock()

    def start(self, delivery: Delivery) -> bool:
        """Whether the event loop may start this delivery, or hand it back itself."""
        fence = delivery.fence
        return self._claims.setdefault(delivery.entry, fence) == fence or self._again(delivery)

    def hand_back(self, entry: bytes, fence: int) -> bool:
        """Whether the heartbeat's thread may hand it back."""
        claim = self._claims.setdefault(entry, -fence)
        return claim == -fence or (-fence < claim < 0 and self._renew(entry, -fence))

    def end(self, delivery: Delivery) -> None:
        """The server no longer counts it as this worker's."""
        self._claims.pop(delivery.entry, None)

    def clear(self) -> None:
        """Nothing of what is held is this worker's any more."""
        self._claims.clear()

    def _again(self, delivery: Delivery) -> bool:
        if self._renew(delivery.entry, delivery.fence):
            return True
        if self._claims.get(delivery.entry) == -delivery.fence:
            # It was handed back, and nobody asks again.
            self.end(delivery)
        return False

    def _renew(self, entry: bytes, claim: int) -> bool:
        with self._renewing:
            found = self._claims.get(entry, 0)
            if abs(found) >= abs(claim):
                return found == claim
            self._claims[entry] = claim
            return True


_log = logging.getLogger("taskq.worker")

_APART_SECONDS = 0.005
"""Between two jobs that were in a crash: the first of them shows what it does."""

Ended = Callable[[Delivery, Outcome | None, float], None]
"""Takes a delivery, its outcome (None: nobody wants it), and its result's ttl in seconds."""


@dataclass(slots=True, eq=False)
class _Run:
    delivery: Delivery
    attempt: Attempt | None = None
    interruption: Interruption | None = None
    result_ttl: float = 0.0
    task: asyncio.Task[None] | None = None


class Slots:
    """Runs deliveries, each in an asyncio task of its own, and calls `on_end` with each outcome."""

    def __init__(
        self,
        session: Session,
        intake: Intake,
        executors: ExecutorSet,
        tally: Tally,
        claims: StartClaims,
    ) -> None:
        self._session = session
        self._intake = intake
        self._executors = executors
        self._tally = tally
        self._claims = claims
        self._loop = asyncio.get_running_loop()
        # Jobs start wherever there is room, inside another one as well: they share no context.
        self._context = copy_context()
        self._running: dict[bytes, _Run] = {}
        self._watcher = self._watch
        self._beginning = asyncio.Lock()
        self._next_begin = 0.0
        self.on_end: Ended = _unheard

    def __len__(self) -> int:
        return len(self._running)

    def start(self, delivery: Delivery) -> None:
        """Run a delivery."""
        run = self._running[delivery.entry] = _Run(delivery)
        run.task = self._loop.create_task(self._run(run), context=self._context.copy())

    def cancel(self, job_id: str) -> None:
        """Interrupt a job that somebody cancelled, if it runs here."""
        for run in self._running.values():
            if run.delivery.id == job_id and run.attempt is not None:
                run.attempt.interrupt(Interruption.CANCEL)
                return

    def interrupt_all(self, why: Interruption) -> None:
        """Interrupt everything that runs."""
        for run in list(self._running.values()):
            if run.attempt is not None:
                run.attempt.interrupt(why)
            else:
                run.interruption = why

    def abandon_all(self) -> None:
        """What still runs does so for nobody: its outcomes are not wanted any more."""
        self._tally.leaked += len(self._running)
        self._running.clear()

    def mass_cancelled(self, culprit: str | None) -> None:
        """Every task of the event loop is being cancelled, by the job `culprit` if by any."""
        for run in self._running.values():
            if run.attempt is not None and run.delivery.id != culprit:
                run.attempt.mass_cancelled = True

    async def _run(self, run: _Run) -> None:
        if not self._claims.start(run.delivery):
            # It was handed back while a job blocked this event loop.
            del self._running[run.delivery.entry]
            self.on_end(run.delivery, None, 0.0)
            return
        try:
            made = self._intake.attempt(run.delivery)
        except Exception as error:
            made = unforeseen(run.delivery.id, error)
        if not isinstance(made, tuple):
            self._end(run, made)
            return
        attempt, run.result_ttl = made
        run.attempt = attempt
        if run.interruption is not None:
            # Between its slot and its first step.
            attempt.interruption = run.interruption
            self._end(run, interrupted(attempt, run.interruption))
            return
        attempt.on_interrupt = self._watcher
        self._tally.started += 1
        try:
            outcome = await self._begin(attempt, run.delivery) if run.delivery.crashes else None
            if outcome is None:
                outcome = await run_attempt(attempt, self._executors)
        except BaseException as error:
            # Whatever it is, it must not keep the slot. A future that carries GeneratorExit closes
            # all coroutines that await it, run_attempt among them.
            closed = isinstance(error, GeneratorExit)
            outcome = judged(attempt, error) if closed else unforeseen(attempt.id, error)
        if run.delivery.entry in self._running:
            self._end(run, outcome)
        else:
            self._tally.leaked -= 1

    async def _begin(self, attempt: Attempt, delivery: Delivery) -> Outcome | None:
        """Say that a job begins which was in a crash; why it does not after all.

        One begins at a time: should it bring this worker down too, it is the one that began last.
        """
        async with self._beginning:
            await asyncio.sleep(self._next_begin - self._loop.time())
            try:
                ours = await self._session.consumer.begin(delivery)
            except (ServerError, ConnectionLost):
                ours = True
            finally:
                self._next_begin = self._loop.time() + _APART_SECONDS
        if attempt.interruption is not None:
            return interrupted(attempt, attempt.interruption)
        return None if ours else Released(started=False)

    def _watch(self, attempt: Attempt) -> None:
        """An interrupted coroutine may refuse to end; the job and the slot do not wait for it."""
        self._loop.call_later(CANCEL_GRACE_SECONDS, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        run = next((run for run in self._running.values() if run.attempt is attempt), None)
        if run is None:
            return
        _log.warning(
            "job %s: %s goes on though it was interrupted %g s ago; its slot counts as leaked",
            attempt.id,
            attempt.task.name,
            CANCEL_GRACE_SECONDS,
            extra=job_fields(attempt),
        )
        self._tally.leaked += 1
        self._end(run, interrupted(attempt, attempt.interruption or Interruption.RELEASE))

    def _end(self, run: _Run, outcome: Outcome) -> None:
        del self._running[run.delivery.entry]
        attempt = run.attempt
        if attempt is not None and attempt.interruption is Interruption.LOST:
            self.on_end(run.delivery, None, 0.0)
            return
        log_outcome(run.delivery, attempt, outcome)
        self.on_end(run.delivery, outcome, run.result_ttl)


def _unheard(_: Delivery, __: Outcome | None, ___: float) -> None:
    """Nothing has ended before somebody listens."""
