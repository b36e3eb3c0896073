"""What execution needs from other rooms, as protocols that they implement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from taskq.core.job import Ending, Fire, JobInfo, NewJob, Progress

__all__ = ["Injector", "JobBackend", "Reporter", "RunningJob", "Threads"]

Reporter = Callable[["RunningJob", Progress], asyncio.Future[None] | None]
"""Sends the progress of a running job; returns a future if the caller can await its arrival."""


class RunningJob(Protocol):
    """A job as seen where it runs."""

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
    """Where jobs are submitted and looked up."""

    def submit(self, jobs: Sequence[NewJob], *, awaited: bool = False) -> Awaitable[list[bool]]:
        """Enqueue jobs together; they are sent when this returns.

        `awaited`: the caller is going to wait for their results, and taskq generated their ids.
        Awaiting it gives for each job whether it is new: false if another request has its id.
        """
        ...

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        """Wait until a job has ended, or until the server says that it does not know it.

        Raises `TimeoutError` if that takes longer than `within` seconds.
        """
        ...

    async def look(self, job_id: str) -> Ending:
        """The state of a job now."""
        ...

    async def job_info(self, job_id: str) -> JobInfo | None:
        """Everything known about a job; None if it is unknown."""
        ...

    async def cancel_job(self, job_id: str) -> int:
        """Cancel a job: 1 cancelled, 2 its worker was asked to, 0 already over, -1 unknown."""
        ...

    async def aclose(self) -> None:
        """Close the connection of the running loop; the next use opens a new one."""
        ...


class Threads(Protocol):
    """Threads in which plain functions run beside the event loop."""

    def in_thread(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call `fn` in a thread, when one is free."""
        ...

    def closing(self, fn: Callable[..., Any], *args: Any) -> Awaitable[Any]:
        """Call `fn`, which releases a resource, in a thread without waiting for a free one."""
        ...


class Injector(Protocol):
    """Fills the parameters of a task that dependencies provide, not callers."""

    @property
    def names(self) -> frozenset[str]:
        """The parameters it fills."""
        ...

    def filled(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], threads: Threads
    ) -> AbstractAsyncContextManager[tuple[Sequence[Any], Mapping[str, Any]]]:
        """A call's arguments with those of its dependencies, which live inside the block."""
        ...
