"""Hand-over: deferred calls that go to the queue, as ordinary jobs under the same id.

A call goes there before it runs (`durable`), because the backlog is full (`spill`), or because the
drain's grace is over. Only tasks can go: a worker finds a function by its task name.

`Preparation` does what is awaited before the first attempt: enqueue middleware, and the storing of
durable calls. Most calls need neither.
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
from taskq.deferred.durable import Backing, Durable
from taskq.deferred.plain import PlainTask
from taskq.deferred.report import Report
from taskq.execution.handle import Deferred, Job
from taskq.execution.middleware import JobDraft, Middleware, call_through, checked_handle
from taskq.execution.request import Request
from taskq.execution.task import task_spec_of

__all__ = ["HandOver", "Preparation", "check_enqueueable"]

_log = logging.getLogger("taskq.deferred")


class HandOver:
    """Sends calls to the queue, and calls `on_replaced` with each that has become a job there."""

    def __init__(self, backing: Backing, report: Report, durable: Durable) -> None:
        self._backing = backing
        self._report = report
        self.durable = durable
        self.on_replaced: Callable[[Call], None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def spill(self, call: Call, reason: str) -> None:
        """Enqueue a call that does not fit into the backlog.

        Raises `BacklogFull` for a plain function, and `EncodeError` for arguments that cannot be
        encoded.
        """
        self.check_spillable(call, reason)
        request = _request_for(call)
        if call.accepted is None:
            call.accepted = CrossLoopEvent()
        _spawn(self._spill(call, request), call, self._sending)

    def check_spillable(self, call: Call, reason: str) -> None:
        """Raise `BacklogFull` for a plain function: it cannot be enqueued."""
        if isinstance(call.task, PlainTask):
            self._report.tally.rejected += 1
            raise BacklogFull(f"{reason}: {_plain_text(call)}")

    async def _spill(self, call: Call, request: Request) -> None:
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
        await self._on_enqueued(call, created)

    async def enqueue_unfinished(self, calls: Iterable[Call]) -> None:
        """Enqueue what is unfinished at the end of the drain; what cannot be enqueued is lost."""
        requests = list(self._requests(calls))
        stored = [(call, request) for call, request in requests if call.owner]
        await asyncio.gather(*(self._release(call, request) for call, request in stored))
        requests = [item for item in requests if not item[0].owner and not item[0].over]
        if not requests:
            return
        try:
            if not self._backing.configured:
                raise ServerUnavailable("there is no queue: set TASKQ_URL")
            created = await self._backing.submit([request.job for _, request in requests])
        except (ServerError, ConnectionError) as error:
            for call, _ in requests:
                self._lose(call, str(error))
            return
        _log.warning("%d unfinished deferred calls were enqueued", len(requests))
        for (call, _), fresh in zip(requests, created, strict=True):
            await self._on_enqueued(call, fresh)

    async def _release(self, call: Call, request: Request) -> None:
        try:
            await self.durable.release(call, request)
        except (ServerError, ConnectionError) as error:
            _log.warning("durable call %s will run when its lease expires: %s", call.id, error)
        await self._on_enqueued(call, created=True)

    def _requests(self, calls: Iterable[Call]) -> Iterator[tuple[Call, Request]]:
        for call in calls:
            try:
                _refuse_plain(call)
                yield call, _request_for(call)
            except TaskqError as error:
                self._lose(call, str(error))

    async def drain(self) -> None:
        """Wait until everything is sent."""
        while self._sending:
            await asyncio.wait(self._sending)
        await self.durable.drain()

    async def _on_enqueued(self, call: Call, created: bool) -> None:
        """Let the job replace the call, or cancel it if the call was cancelled meanwhile."""
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
                "deferred %s (%s) was cancelled while it was being enqueued, and a worker may "
                "still run it: %s",
                call.task.name,
                call.id,
                error,
            )

    def replace(self, call: Call) -> None:
        """Let the job in the queue replace a call: its handle waits for the job from now on."""
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
        call.failed = Failed("Lost", f"it was unfinished when its process ended: {reason}", "")
        call.end(JobState.FAILED)


class Preparation:
    """Prepares calls, each in an asyncio task of its own."""

    def __init__(self, middleware: Middleware, durable: Durable, hand_over: HandOver) -> None:
        self.layers = middleware.enqueues
        self._durable = durable
        self._hand_over = hand_over
        self._preparing: set[asyncio.Task[None]] = set()

    def prepare(
        self, call: Call, on_prepared: Callable[[Call, BaseException | None], None]
    ) -> None:
        """Pass a call through the enqueue middleware, and store it if it is durable.

        `on_prepared` takes the call and what kept it from being prepared. It is not called for a
        call that ended or changed meanwhile.
        """
        if call.accepted is None:
            call.accepted = CrossLoopEvent()
        _spawn(self._prepare(call, call.revision, on_prepared), call, self._preparing)

    async def _prepare(
        self,
        call: Call,
        revision: int,
        on_prepared: Callable[[Call, BaseException | None], None],
    ) -> None:
        if _outdated(call, revision):
            return
        refusal: Exception | None = None
        try:
            await self._run_middleware(call, revision)
            if call.options.durable and not _outdated(call, revision):
                await self._store(call)
        except Exception as error:
            refusal = error
        if _outdated(call, revision):
            return
        if refusal is None:
            call.accept()
        on_prepared(call, refusal)

    async def _run_middleware(self, call: Call, revision: int) -> None:
        async def innermost(draft: JobDraft) -> Deferred[Any]:
            if not _outdated(call, revision):
                call.args, call.kwargs, call.options = draft.args, draft.kwargs, draft.options
            return Deferred(call)

        draft = JobDraft(
            task=call.task.name,
            args=call.args,
            kwargs=call.kwargs,
            options=call.options,
            verb="defer",
        )
        handle = await call_through(self.layers, draft, innermost)
        checked_handle(Deferred[Any], Deferred, handle, draft)

    async def _store(self, call: Call) -> None:
        """Store a durable call; a job that already has its id replaces it."""
        request = _request_for(call)
        try:
            created = await self._durable.store(call, request)
        except (ServerError, ConnectionError) as error:
            _log.warning(
                "deferred %s (%s) runs without being durable: %s", call.task.name, call.id, error
            )
            call.refusal = error
            return
        if call.over:
            # Cancelled while it was being stored. An older job of the same id is not its own.
            if created:
                self._durable.settle(call, call.state)
        elif not created:
            self._hand_over.replace(call)

    async def drain(self, seconds: float) -> None:
        """Let preparations end within `seconds`, and cancel the rest."""
        if self._preparing:
            _, late = await asyncio.wait(self._preparing, timeout=seconds)
            for task in late:
                task.cancel()


def _spawn(work: Coroutine[Any, Any, None], call: Call, tasks: set[asyncio.Task[None]]) -> None:
    task = asyncio.get_running_loop().create_task(work, context=call.context.copy())
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _outdated(call: Call, revision: int) -> bool:
    return call.over or call.revision != revision


def check_enqueueable(call: Call) -> None:
    """Raise what keeps a call from going to the queue: `ConfigError`, `EncodeError`."""
    _refuse_plain(call)
    _request_for(call)


def _refuse_plain(call: Call) -> None:
    if isinstance(call.task, PlainTask):
        raise ConfigError(_plain_text(call))


def _plain_text(call: Call) -> str:
    return (
        f"{call.task.name} is a plain function, which no worker would find: make it a task, "
        "@q.task, and defer that"
    )


def _request_for(call: Call) -> Request:
    """The job that continues a call; raises `EncodeError`."""
    spec, before = task_spec_of(call.task), (call.attempts, call.failures)
    request = Request.of(spec, call.options, call.args, call.kwargs, before=before)
    request.job = _timed(call, request.job)
    return request


def _timed(call: Call, job: NewJob) -> NewJob:
    """The job under the call's id, with what is left of its delay and of its lifetime."""
    job = job._replace(id=call.id)
    if call.expires_at is not None:
        job = job._replace(expires=_in(call.expires_at - time.monotonic()))
    if call.timer is not None:
        return job._replace(when=_in(call.timer.when() - asyncio.get_running_loop().time()))
    return job._replace(when="") if call.attempts else job


def _in(seconds: float) -> str:
    return f"+{max(0, int(seconds * 1000))}"
