"""What execution asks of the outside, so that it need not know who answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from taskq.core.job import Ending, Fire, JobInfo, NewJob, Progress

__all__ = ["Injector", "JobBackend", "Reporter", "RunningJob", "Threads"]

Reporter = Callable[["RunningJob", Progress], asyncio.Future[None] | None]
"""Sends the progress of the attempt that runs a job; a future where the caller can
await its arrival."""


class RunningJob(Protocol):
    """What is known of a job where it runs."""

    id: str
    number: int
    fence: int
    failures: int
    queue: str
    worker: str
    headers: dict[str, str] | None
    fire: Fire | None
    enqueued_ms: int
    timeout: float | None
    started: float
    report: Reporter | None

    @property
    def task_name(self) -> str: ...

    @property
    def max_attempts(self) -> int: ...


class JobBackend(Protocol):
    """Where jobs are handed in and asked about."""

    def submit(self, jobs: Sequence[NewJob], *, awaited: bool = False) -> Awaitable[list[bool]]:
        """Enqueue jobs together; they are on their way when this returns.

        `awaited`: their results are going to be waited for here, and their ids are taskq's own.
        Awaited, it gives for each whether it is new: false when its id is another request's.
        """
        ...

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        """Wait until a job has ended or is known to be unknown.

        Raises `TimeoutError` when that takes longer than `within` seconds.
        """
        ...

    async def look(self, job_id: str) -> Ending:
        """How a job stands now."""
        ...

    async def job_info(self, job_id: str) -> JobInfo | None:
        """Everything known about a job."""
        ...

    async def cancel_job(self, job_id: str) -> int:
        """Cancel a job: 1 done, 2 its worker was asked, 0 it was over, -1 there is none."""
        ...

    async def aclose(self) -> None:
        """Close the connection of the running loop; the next use opens another."""
        ...


class Threads(Protocol):
    """Where plain functions run beside the event loop."""

    def in_thread(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call `fn` in a thread, at most as many at once as there are threads."""
        ...

    def closing(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """The same for what gives something back: it never waits for a free thread."""
        ...


class Injector(Protocol):
    """Fills the parameters of one task that are no arguments of a call."""

    @property
    def names(self) -> frozenset[str]:
        """The parameters it fills."""
        ...

    def filled(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], threads: Threads
    ) -> AbstractAsyncContextManager[tuple[Sequence[Any], Mapping[str, Any]]]:
        """The arguments of a call with those of the dependencies, which live inside the block."""
        ...
