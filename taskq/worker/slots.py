"""Slots: the jobs that run in this worker.

Either the event loop claims a delivery and starts it, or the heartbeat's thread claims it and hands
it back because the loop is blocked.
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
from taskq.execution.runner import internal_error, interrupted, judged, run_attempt
from taskq.redis.connection import ConnectionLost
from taskq.worker.intake import Intake
from taskq.worker.session import Session
from taskq.worker.settings import Tally

__all__ = ["Ended", "Slots", "StartClaims"]


class StartClaims:
    """Decides between two threads which one gets a delivery: the first to claim it.

    A job that blocks the event loop must not hold up jobs that have not started. The heartbeat's
    thread claims those, even ones the loop has not read yet, and the loop then skips them.
    `dict.setdefault` is atomic for both threads. The claim of an entry is its fence if the loop
    started it, and the negative fence if it was handed back.

    An entry still has the claim of an earlier delivery only if that delivery was handed back and
    never arrived; in that case both threads use a lock.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, int] = {}
        self._renewing = threading.Lock()

    def start(self, delivery: Delivery) -> bool:
        """Claim a delivery for the event loop, which starts it or hands it back itself."""
        fence = delivery.fence
        return self._claims.setdefault(delivery.entry, fence) == fence or self._again(delivery)

    def hand_back(self, entry: bytes, fence: int) -> bool:
        """Claim a delivery for the heartbeat's thread, which hands it back."""
        claim = self._claims.setdefault(entry, -fence)
        return claim == -fence or (-fence < claim < 0 and self._renew(entry, -fence))

    def end(self, delivery: Delivery) -> None:
        """Drop the claim of a delivery that the server no longer counts as this worker's."""
        self._claims.pop(delivery.entry, None)

    def clear(self) -> None:
        """Drop all claims: the jobs belong to other workers now."""
        self._claims.clear()

    def _again(self, delivery: Delivery) -> bool:
        if self._renew(delivery.entry, delivery.fence):
            return True
        if self._claims.get(delivery.entry) == -delivery.fence:
            # It was handed back and is not asked about again.
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
"""Between the starts of two jobs that were in a crash: the first has time to crash again."""

Ended = Callable[[Delivery, Outcome | None, float], None]
"""Takes a delivery, its outcome (None: not wanted) and the ttl of its result in seconds."""


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
        # A job may be started from inside another one; they must not share a context.
        self._context = copy_context()
        self._running: dict[bytes, _Run] = {}
        self._on_interrupt = self._watch_interrupted
        self._beginning = asyncio.Lock()
        self._next_begin = 0.0
        self.on_end: Ended = _ignore

    def __len__(self) -> int:
        return len(self._running)

    def start(self, delivery: Delivery) -> None:
        """Start the job of a delivery."""
        run = self._running[delivery.entry] = _Run(delivery)
        run.task = self._loop.create_task(self._run(run), context=self._context.copy())

    def cancel(self, job_id: str) -> None:
        """Interrupt a job that was cancelled, if it runs here."""
        for run in self._running.values():
            if run.delivery.id == job_id and run.attempt is not None:
                run.attempt.interrupt(Interruption.CANCEL)
                return

    def interrupt_all(self, why: Interruption) -> None:
        """Interrupt all running jobs."""
        for run in list(self._running.values()):
            if run.attempt is not None:
                run.attempt.interrupt(why)
            else:
                run.interruption = why

    def abandon_all(self) -> None:
        """Give up on jobs that still run: their outcomes are no longer wanted."""
        self._tally.leaked += len(self._running)
        self._running.clear()

    def mass_cancelled(self, culprit: str | None) -> None:
        """Note that the job `culprit`, or the program (None), cancels every task of the loop."""
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
            made = internal_error(run.delivery.id, error)
        if not isinstance(made, tuple):
            self._end(run, made)
            return
        attempt, run.result_ttl = made
        run.attempt = attempt
        if run.interruption is not None:
            # Interrupted between taking its slot and its first step.
            attempt.interruption = run.interruption
            self._end(run, interrupted(attempt, run.interruption))
            return
        attempt.on_interrupt = self._on_interrupt
        self._tally.started += 1
        try:
            outcome = await self._begin(attempt, run.delivery) if run.delivery.crashes else None
            if outcome is None:
                outcome = await run_attempt(attempt, self._executors)
        except BaseException as error:
            # No error may keep the slot. A future that carries GeneratorExit closes all coroutines
            # that await it, run_attempt among them.
            closed = isinstance(error, GeneratorExit)
            outcome = judged(attempt, error) if closed else internal_error(attempt.id, error)
        if run.delivery.entry in self._running:
            self._end(run, outcome)
        else:
            self._tally.leaked -= 1

    async def _begin(self, attempt: Attempt, delivery: Delivery) -> Outcome | None:
        """Tell the server that a job which was in a crash begins; an outcome if it must not.

        One begins at a time: if this worker crashes too, the job that began last is the suspect.
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

    def _watch_interrupted(self, attempt: Attempt) -> None:
        """Give an interrupted coroutine some time to end; then free its slot without it."""
        self._loop.call_later(CANCEL_GRACE_SECONDS, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        run = next((run for run in self._running.values() if run.attempt is attempt), None)
        if run is None:
            return
        _log.warning(
            "job %s: %s still runs %g s after it was interrupted; its slot counts as leaked",
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


def _ignore(_: Delivery, __: Outcome | None, ___: float) -> None:
    """Before `on_end` is set, no job has started."""
