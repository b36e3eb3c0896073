"""A handle to one call that runs in this process: wait for it, look at it, cancel it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, Protocol, TypeVar

from taskq.core.durations import Duration, seconds
from taskq.core.errors import ResultTimeout
from taskq.core.state import JobState
from taskq.execution.handle import Job

__all__ = ["Cancelling", "Deferred", "DeferredCall"]

R = TypeVar("R")


class DeferredCall(Protocol):
    """What a handle asks of the call behind it."""

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
    """One call that runs in this process. Awaiting it gives what the function returned.

    Made by `f.defer(...)` and `q.defer(...)`; it may be used in any thread and in any event loop.

    >>> handle = resize.defer("a.png")  # doctest: +SKIP
    >>> await handle  # doctest: +SKIP
    'a-800.png'
    """

    __slots__ = ("_call",)

    def __init__(self, call: DeferredCall) -> None:
        self._call = call

    @property
    def id(self) -> str:
        """Its id: in logs, in `current_job()`, and in the queue if it goes there."""
        return self._call.id

    @property
    def status(self) -> JobState:
        """Its state now. Of a call that was handed to the queue: `queued`; ask its `job`."""
        return self._call.state

    @property
    def job(self) -> Job[R] | None:
        """The job in the queue that it has become, if it has: see `durable` and `spill`."""
        return self._call.job

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the end, and return the object that the function returned.

        `timeout` (seconds or timedelta; None: no limit) bounds the wait, never the call. A call
        that was handed to the queue is waited for there.

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
        """Wait until the runner has room for it, and with `durable=True` until the server has it.

        Raises `BacklogFull`, and `ServerError` when a durable call could not be stored; it runs
        here all the same.
        """
        await self._call.until_accepted()

    def cancel(self) -> Cancelling:
        """Cancel it: one that waits never runs, one that runs is interrupted.

        It is done when this returns; awaiting what it returns waits until the call has ended. True
        when it was not over.

        >>> await handle.cancel()  # doctest: +SKIP
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
    """Whether something was cancelled; awaiting it waits until that has taken effect."""

    __slots__ = ("_asked", "_call")

    def __init__(self, call: DeferredCall, asked: bool) -> None:
        self._call = call
        self._asked = asked

    def __bool__(self) -> bool:
        return self._asked

    def __await__(self) -> Generator[Any, None, bool]:
        return self._wait().__await__()

    async def _wait(self) -> bool:
        if self._asked:
            await self._call.until_over()
            if self._call.job is not None:
                return await self._call.job.cancel()
        return self._asked
