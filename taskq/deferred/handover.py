"""Hand-over: calls that go to the queue, as ordinary jobs under the same id.

They go there at once (`durable`), when the backlog is full (`spill`), or when the drain's time is
up. Only tasks can: a worker finds them by their names.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from taskq.core.errors import BacklogFull, ConfigError, ServerError, ServerUnavailable, TaskqError
from taskq.core.job import JobState, NewJob
from taskq.core.outcome import Failed
from taskq.deferred.call import Call, CrossLoopEvent
from taskq.deferred.durable import Durable
from taskq.deferred.plain import PlainTask
from taskq.deferred.ports import Backing
from taskq.deferred.report import Report
from taskq.execution.handle import Job
from taskq.execution.request import Request
from taskq.execution.task import task_spec_of

__all__ = ["HandOver", "job_of", "refuse_unfit"]

_log = logging.getLogger("taskq.deferred")


class HandOver:
    """Sends calls to the queue. `on_replaced` takes each that has become a job there."""

    def __init__(self, backing: Backing, report: Report, durable: Durable) -> None:
        self._backing = backing
        self._report = report
        self.durable = durable
        self.on_replaced: Callable[[Call], None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def overflow(self, call: Call, why: str) -> None:
        """Enqueue a call there is no room for.

        Raises `BacklogFull` for a plain function, and `EncodeError` for arguments that stay here.
        """
        self.check(call, why)
        request = job_of(call)
        if call.accepted is None:
            call.accepted = CrossLoopEvent()
        self._spawn(self._overflow(call, request), call)

    def check(self, call: Call, why: str) -> None:
        """Raise `BacklogFull` for a call that must be spilled and cannot be."""
        if isinstance(call.task, PlainTask):
            self._report.tally.rejected += 1
            raise BacklogFull(f"{why}: {refusal_of_plain(call)}")

    async def _overflow(self, call: Call, request: Request) -> None:
        if call.over:
            return
        try:
            [created] = await self._backing.submit((request.job,))
        except (ServerError, ConnectionError) as error:
            if call.over:
                return
            failed = Failed(type(error).__name__, str(error), "")
            self._report.failed(call, failed, error)
            call.failed, call.error, call.refusal = failed, error, error
            call.end(JobState.FAILED)
            return
        await self._arrived(call, created)

    async def leftovers(self, calls: Iterable[Call]) -> None:
        """Enqueue what is unfinished at the end of the drain; what cannot go there is lost."""
        sendable = list(self._sendable(calls))
        stored = [item for item in sendable if item[0].owner]
        await asyncio.gather(*(self._let_go(*item) for item in stored))
        sendable = [item for item in sendable if not item[0].owner and not item[0].over]
        if not sendable:
            return
        try:
            if not self._backing.configured:
                raise ServerUnavailable("there is no queue: set TASKQ_URL")
            created = await self._backing.submit([request.job for _, request in sendable])
        except (ServerError, ConnectionError) as error:
            for call, _ in sendable:
                self._lose(call, str(error))
            return
        _log.warning("%d unfinished deferred calls go on in the queue", len(sendable))
        for (call, _), fresh in zip(sendable, created, strict=True):
            await self._arrived(call, fresh)

    async def _let_go(self, call: Call, request: Request) -> None:
        try:
            await self.durable.let_go(call, request)
        except (ServerError, ConnectionError) as error:
            _log.warning("durable call %s runs when its lease is over: %s", call.id, error)
        await self._arrived(call, created=True)

    def _sendable(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Request]]:
        for call in calls:
            try:
                refuse_plain(call)
                yield call, job_of(call)
            except TaskqError as error:
                self._lose(call, str(error))

    async def drain(self) -> None:
        """Wait until everything that is being sent has been."""
        while self._sending:
            await asyncio.wait(self._sending)
        await self.durable.drain()

    async def _arrived(self, call: Call, created: bool) -> None:
        """The queue has the job of a call: it takes its place, or is cancelled as the call was."""
        if not call.over:
            self._report.tally.spilled += 1
            self.replace(call)
        elif created:
            await self._cancel(call)

    async def _cancel(self, call: Call) -> None:
        try:
            await self._backing.cancel_job(call.id)
        except (ServerError, ConnectionError) as error:
            _log.error(
                "deferred %s (%s) was cancelled on its way to the queue, and may run there: %s",
                call.task.name,
                call.id,
                error,
            )

    def replace(self, call: Call) -> None:
        """A job of the queue takes the place of a call."""
        spec, ttl = task_spec_of(call.task), call.options.result_ttl
        keeps = (spec.options.result_ttl if ttl is None else ttl) > 0
        call.job = Job(
            self._backing, call.id, created=True, keeps_result=keeps, rebuild=spec.rebuild
        )
        call.state = JobState.QUEUED
        call.close()
        if self.on_replaced is not None:
            self.on_replaced(call)

    def _lose(self, call: Call, reason: str) -> None:
        if call.over:
            return
        self._report.lost(call, reason)
        call.failed = Failed("Lost", f"it was not finished when its process ended: {reason}", "")
        call.end(JobState.FAILED)

    def _spawn(self, work: Coroutine[Any, Any, None], call: Call) -> None:
        task = asyncio.get_running_loop().create_task(work, context=call.context.copy())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def refuse_unfit(call: Call) -> None:
    """Raise what speaks against handing a call to the queue: `ConfigError`, `EncodeError`."""
    refuse_plain(call)
    job_of(call)


def refuse_plain(call: Call) -> None:
    """Raise `ConfigError` for a call that cannot go to the queue."""
    if isinstance(call.task, PlainTask):
        raise ConfigError(refusal_of_plain(call))


def refusal_of_plain(call: Call) -> str:
    return (
        f"{call.task.name} is a plain function, which no worker would find: make it a task, "
        "@q.task, and defer that"
    )


def job_of(call: Call) -> Request:
    """The job that goes on where a call is; raises `EncodeError`."""
    spec, before = task_spec_of(call.task), (call.attempts, call.failures)
    request = Request.of(spec, call.options, call.args, call.kwargs, before=before)
    request.job = _placed(call, request.job)
    return request


def _placed(call: Call, job: NewJob) -> NewJob:
    job = job._replace(id=call.id)
    if call.expires_at is not None:
        job = job._replace(expires=_in(call.expires_at - time.monotonic()))
    if call.timer is not None:
        return job._replace(when=_in(call.timer.when() - asyncio.get_running_loop().time()))
    return job._replace(when="") if call.attempts else job


def _in(wait: float) -> str:
    return f"+{max(0, int(wait * 1000))}"
