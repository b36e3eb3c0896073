"""Handles of jobs and deferred calls: wait for them, inspect them, cancel them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

from taskq.codec.envelope import unpack_failure
from taskq.codec.payload import decode_value
from taskq.core.durations import Duration, seconds
from taskq.core.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    ResultExpired,
    ResultNotKept,
    ResultTimeout,
    ServerError,
)
from taskq.core.job import Ending, JobInfo, JobState
from taskq.execution.ports import JobBackend

__all__ = ["Cancelling", "Deferred", "DeferredCall", "Job"]

R = TypeVar("R")


class DeferredCall(Protocol):
    """The deferred call behind a handle."""

    id: str
    state: JobState
    job: Job[Any] | None

    @property
    def over(self) -> bool: ...

    async def until_over(self) -> None: ...

    async def until_accepted(self) -> None: ...

    def value(self) -> Any: ...

    def cancel(self) -> bool: ...


class Deferred(Generic[R]):
    """One call that runs in this process. Awaiting it returns what the function returned.

    `f.defer(...)` and `q.defer(...)` return it. It works in any thread and any event loop.

    >>> handle = resize.defer("a.png")
    >>> await handle
    'a-800.png'
    """

    __slots__ = ("_call",)

    def __init__(self, call: DeferredCall) -> None:
        self._call = call

    @property
    def id(self) -> str:
        """Its id in logs, in `current_job()`, and in the queue if it goes there."""
        return self._call.id

    @property
    def status(self) -> JobState:
        """Its state now; `queued` if it was handed to the queue: ask its `job` then."""
        return self._call.state

    @property
    def job(self) -> Job[R] | None:
        """The job that it became in the queue, if any; see `durable` and `spill`."""
        return self._call.job

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the end and return the object that the function returned.

        `timeout` (seconds or timedelta; None: no limit) limits the wait, not the call. If the call
        was handed to the queue, this waits for its job.

        Raises `JobFailed`, whose `__cause__` is what the function raised, `JobCancelled`,
        `JobExpired` and `ResultTimeout`.
        """
        if timeout is None:
            return await self._result()
        limit = seconds("timeout", timeout)
        try:
            async with asyncio.timeout(limit):
                return await self._result()
        except TimeoutError:
            text = f"the deferred call {self.id} did not end within {limit:g} s; it is"
            raise ResultTimeout(f"{text} {self.status}", job_id=self.id) from None

    async def accepted(self) -> None:
        """Wait until the runner has room for it and, with `durable=True`, the server has stored it.

        Raises `BacklogFull`, and `ServerError` if a durable call could not be stored; it still runs
        here.
        """
        await self._call.until_accepted()

    def cancel(self) -> Cancelling:
        """Cancel it: a waiting call never runs, a running one is interrupted.

        This takes effect when it returns; awaiting the return value waits until the call has ended.
        True if the call was not over.

        >>> await handle.cancel()
        True
        """
        return Cancelling(self._call, self._call.cancel())

    def __await__(self) -> Generator[Any, None, R]:
        call = self._call
        if not call.over:
            yield from call.until_over().__await__()
        if call.job is not None:
            return (yield from call.job.result().__await__())
        return call.value()

    async def _result(self) -> R:
        call = self._call
        if not call.over:
            await call.until_over()
        if call.job is not None:
            return await call.job.result()
        return call.value()

    def __repr__(self) -> str:
        return f"Deferred({self.id!r}, {self.status})"


class Cancelling:
    """Whether a call was cancelled; awaiting it waits until the call has ended."""

    __slots__ = ("_call", "_cancelled")

    def __init__(self, call: DeferredCall, cancelled: bool) -> None:
        self._call = call
        self._cancelled = cancelled

    def __bool__(self) -> bool:
        return self._cancelled

    def __await__(self) -> Generator[Any, None, bool]:
        return self._wait().__await__()

    async def _wait(self) -> bool:
        if self._cancelled:
            await self._call.until_over()
            if self._call.job is not None:
                return await self._call.job.cancel()
        return self._cancelled


class Job(Generic[R]):
    """One request to run a task.

    `id` identifies it everywhere. `created` is true if this enqueue created it, false if a job with
    this id existed already, and None for a handle made from an id.
    """

    __slots__ = ("_backend", "_keeps_result", "_on_wait", "_rebuild", "created", "id")

    def __init__(
        self,
        backend: JobBackend,
        job_id: str,
        *,
        created: bool | None = None,
        keeps_result: bool = True,
        rebuild: Callable[[Any], R] | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        self._backend = backend
        self.id = job_id
        self.created = created
        self._keeps_result = keeps_result
        self._rebuild = rebuild
        self._on_wait = on_wait

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the job to end and return what its function returned.

        `timeout` (seconds or timedelta; None: no limit) limits the wait, not the job.

        Raises `JobFailed` (with the worker's traceback), `JobCancelled`, `JobExpired`,
        `ResultTimeout`, and `JobNotFound` with its kinds `ResultExpired` and `ResultNotKept`.

        >>> await (await resize.enqueue("a.png")).result(timeout=10)
        'a-800.png'
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        if self._on_wait is not None:
            self._on_wait()
        try:
            ending = await self._backend.until_over(self.id, limit)
        except TimeoutError:
            raise ResultTimeout(await self._why_late(limit), job_id=self.id) from None
        return self._value(ending)

    async def status(self) -> JobState:
        """The job's state now.

        Raises `JobNotFound`.
        """
        ending = await self._backend.look(self.id)
        if ending.state is None:
            raise self._missing(ending)
        return ending.state

    async def info(self) -> JobInfo:
        """Everything known about it: times, attempts, worker, error, traceback, progress, result.

        Raises `JobNotFound`.
        """
        info = await self._backend.job_info(self.id)
        if info is None:
            raise self._missing(Ending(None))
        if self._rebuild is not None and info.result is not None:
            return replace(info, result=self._rebuild(info.result))
        return info

    async def cancel(self) -> bool:
        """Cancel the job: a waiting job never runs, a running one is interrupted.

        It works whether or not a worker is running. False if the job was over.

        Raises `JobNotFound`.
        """
        answer = await self._backend.cancel_job(self.id)
        if answer < 0:
            raise self._missing(Ending(None))
        return answer > 0

    def _value(self, ending: Ending) -> R:
        if ending.state is JobState.SUCCEEDED:
            value = decode_value(ending.payload)
            return value if self._rebuild is None else self._rebuild(value)
        if ending.state is JobState.FAILED:
            failure = unpack_failure(ending.payload)
            raise JobFailed(
                f"job {self.id} failed: {failure.error_type}: {failure.error_text}",
                job_id=self.id,
                error_type=failure.error_type,
                error_text=failure.error_text,
                traceback=failure.traceback,
            )
        if ending.state is JobState.CANCELLED:
            raise JobCancelled(f"job {self.id} was cancelled", job_id=self.id)
        if ending.state is JobState.EXPIRED:
            raise JobExpired(
                f"job {self.id} expired before an attempt could start; give it a longer expires=, "
                "or run more workers",
                job_id=self.id,
            )
        raise self._missing(ending)

    def _missing(self, ending: Ending) -> JobNotFound:
        if ending.gone:
            return ResultExpired(
                f"job {self.id} is over and its result has expired (result_ttl). Read results "
                "sooner, or keep them longer: @q.task(result_ttl=...)",
                job_id=self.id,
            )
        if not self._keeps_result:
            return ResultNotKept(
                f"the server has no record of job {self.id}: it is over and kept no result "
                "(result_ttl=0), or the server lost its data. Wait for the result before the job "
                "ends, or keep results: @q.task(result_ttl=3600)",
                job_id=self.id,
            )
        if self.created is not None:
            return JobNotFound(
                f"the server has no record of job {self.id}: it is over and its result_ttl has "
                "passed, or the server lost its data and the job may not have run",
                job_id=self.id,
            )
        return JobNotFound(
            f"the server does not know job {self.id!r}: it never existed in this namespace, or all "
            "its data has expired",
            job_id=self.id,
        )

    async def _why_late(self, limit: float | None) -> str:
        text = f"job {self.id} did not end within {limit:g} s"
        try:
            async with asyncio.timeout(1.0):
                info = await self._backend.job_info(self.id)
        except (ServerError, ConnectionError, TimeoutError):
            return f"{text}, and the server does not answer"
        if info is None:
            return f"{text}; the server does not know it"
        if info.state is JobState.QUEUED:
            return f"{text}; it is queued. Is a worker running? taskq worker -q {info.queue}"
        return f"{text}; it is {info.state}, attempt {info.attempt}"

    def __repr__(self) -> str:
        return f"Job({self.id!r})"
