"""Intake: turns a delivery into an attempt, or into an outcome if it cannot start."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import msgpack

from taskq.codec.envelope import VERSION, Envelope, unpack_envelope
from taskq.codec.signing import unsealed
from taskq.core.errors import AttemptLost, PayloadError, UnsignedMessage, UntrustedMessage
from taskq.core.job import KINDS, Delivery, Progress, lane_of
from taskq.core.outcome import Failed, FailureKind, Outcome, Released
from taskq.execution.attempt import Attempt, masked_progress
from taskq.execution.job_log import delivery_fields
from taskq.execution.ports import Reporter, RunningJob
from taskq.execution.registry import Registry
from taskq.execution.task import Task
from taskq.worker.session import Session
from taskq.worker.settings import Tally, WorkerSettings

__all__ = ["Intake"]

_log = logging.getLogger("taskq.worker")

_MOST: Final = 2**53
"""Scripts count exactly only below this, so a larger count is not from a script."""


class Intake:
    """Verifies and reads envelopes, and looks up tasks.

    A delivery names its own lane, and the seal of its envelope only proves that the job belongs
    there. So jobs of queues that are not in `settings` are handed back, however they arrived.
    """

    def __init__(
        self,
        registry: Registry,
        session: Session,
        tally: Tally,
        settings: WorkerSettings,
    ) -> None:
        self._lanes = {
            lane_of(queue, priority, executor): queue
            for queue in settings.queues
            for priority in range(10)
            for executor in KINDS
        }
        self._registry = registry
        self._session = session
        self._tally = tally
        self._unknown_limit = settings.unknown_limit
        self._open = session.signing.open_job if session.signing.enabled else _unverified
        self._loop = asyncio.get_running_loop()
        # One bound method for all attempts: a new one for each job would be garbage to collect.
        self._reporter: Reporter = self._report

    def attempt(self, delivery: Delivery) -> tuple[Attempt, float] | Outcome:
        """The attempt and the ttl of its result in seconds, or the outcome if it cannot start."""
        queue = self._lanes.get(delivery.lane)
        if queue is None:
            return self._misdelivered(delivery)
        number = delivery.fence - delivery.unstarted
        if not (0 < number < _MOST and 0 <= delivery.failures < _MOST):
            return Failed(
                "DecodeError", "its number of attempts or failures is invalid", "", "malformed"
            )
        try:
            message = self._open(delivery.id, delivery.lane, delivery.envelope)
            envelope = unpack_envelope(message)
        except PayloadError as error:
            return self._unusable(error)
        task = self._registry.find(envelope.task)
        if task is None or envelope.version > VERSION:
            return self._unknown(delivery, envelope)
        return self._known(delivery, envelope, task, queue)

    def _misdelivered(self, delivery: Delivery) -> Released:
        """A job of another queue: possible if a worker restarts under its name with new queues."""
        self._tally.misdelivered += 1
        _log.warning(
            "job %s is in %s, which this worker does not serve; handing it back",
            delivery.id,
            delivery.lane,
            extra=delivery_fields(delivery),
        )
        return Released(started=False)

    def _unusable(self, error: PayloadError) -> Failed:
        """Fail a job that is untrusted or unreadable; it becomes a dead letter unchanged."""
        kind: FailureKind = "malformed"
        if isinstance(error, UntrustedMessage):
            kind = "unsigned" if isinstance(error, UnsignedMessage) else "forged"
            self._tally.untrusted += 1
        return Failed(type(error).__name__, str(error), "", kind)

    def _known(
        self, delivery: Delivery, envelope: Envelope, task: Task[Any, Any], queue: str
    ) -> tuple[Attempt, float]:
        attempt = Attempt(
            task,
            delivery.id,
            envelope.payload,
            number=delivery.fence - delivery.unstarted + envelope.attempts,
            failures=delivery.failures + envelope.failures,
            timeout=envelope.timeout,
            retry=_merged(task, envelope),
        )
        attempt.fence = delivery.fence
        attempt.queue = queue
        attempt.headers = envelope.headers
        attempt.fire = envelope.fire
        attempt.enqueued_ms = delivery.enqueued_ms
        attempt.worker = self._session.name
        attempt.report = self._reporter
        ttl = envelope.result_ttl
        return attempt, task.task_options.result_ttl if ttl is None else ttl

    def _unknown(self, delivery: Delivery, envelope: Envelope) -> Outcome:
        """Hand the job back, with growing delays, in case another worker knows it; then give up."""
        times = delivery.unknown + 1
        if times >= self._unknown_limit:
            error = self._registry.unknown(envelope.task)
            return Failed("UnknownTask", f"{error} (tried {times} times)", "", "unknown_task")
        if times == 1:
            _log.warning(
                "job %s: %s Handing it back, in case another worker knows it",
                delivery.id,
                self._registry.unknown(envelope.task),
                extra=delivery_fields(delivery) | {"task": envelope.task},
            )
        return Released(delay=min(60.0, 2.0 ** (times - 1)), unknown=times)

    def _report(self, job: RunningJob, progress: Progress) -> asyncio.Future[None] | None:
        if isinstance(job, Attempt):
            progress = masked_progress(progress, job)
        data = msgpack.packb((progress.done, progress.total, progress.text))
        job_id, fence, consumer = job.id, job.fence, self._session.consumer

        async def send() -> None:
            if not await consumer.progress(job_id, fence, data):
                raise AttemptLost(
                    f"attempt {fence} of job {job_id} has lost it: the job was given to another "
                    "worker"
                )

        try:
            on_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            on_loop = False
        if not on_loop:
            asyncio.run_coroutine_threadsafe(send(), self._loop)
            return None
        sending = self._loop.create_task(send())
        # Retrieves the error of a report that is not awaited, so that asyncio does not log it.
        sending.add_done_callback(_seen)
        return sending


def _unverified(_job_id: str, _lane: str, data: bytes) -> bytes:
    return unsealed(data)


def _merged(task: Task[Any, Any], envelope: Envelope) -> Any:
    """A job's own retry options with the exception filters of its task."""
    if envelope.retry is None:
        return None
    own, filters = envelope.retry, task.task_options.retry
    return type(own)(
        own.max_attempts, own.backoff, own.max_delay, own.jitter, filters.on, filters.never
    )


def _seen(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
