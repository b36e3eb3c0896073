"""`current_job()`: what the running task may know and say about its own job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from taskq.core.errors import TaskqError
from taskq.core.job import Fire, Progress
from taskq.execution.ports import Reporter, RunningJob

__all__ = [
    "DistantJob",
    "JobContext",
    "RunningJob",
    "current_job",
    "enter",
    "facts_of",
    "running_job",
]


@dataclass
class DistantJob:
    """A running job in a process of its own: the facts, and a line to the worker."""

    id: str
    task_name: str
    number: int
    max_attempts: int
    failures: int
    queue: str
    worker: str
    headers: dict[str, str] | None
    enqueued_ms: int
    timeout: float | None
    fence: int = 1
    fire: Fire | None = None
    started: float = field(default_factory=time.monotonic)
    report: Reporter | None = None

    def __post_init__(self) -> None:
        if self.fire is not None:
            # On its way here it was a list.
            self.fire = Fire(*self.fire)


def facts_of(job: RunningJob) -> dict[str, Any]:
    """What `DistantJob` takes, as plain data."""
    return {
        "id": job.id,
        "task_name": job.task_name,
        "number": job.number,
        "fence": job.fence,
        "max_attempts": job.max_attempts,
        "failures": job.failures,
        "queue": job.queue,
        "worker": job.worker,
        "headers": job.headers,
        "enqueued_ms": job.enqueued_ms,
        "timeout": job.timeout,
        "fire": job.fire,
    }


_current: ContextVar[RunningJob] = ContextVar("taskq_job")


def enter(job: RunningJob) -> None:
    """Make `job` the current one, for this asyncio task and what it starts."""
    _current.set(job)


def running_job() -> RunningJob | None:
    """The job whose task is running here, None outside of one."""
    return _current.get(None)


def current_job() -> JobContext:
    """The job whose task is running here.

    Raises `TaskqError` outside of a job.

    >>> current_job().attempt
    1
    """
    attempt = running_job()
    if attempt is None:
        raise TaskqError(
            "current_job() was called outside of a job; it works in functions that a worker or "
            "the deferred runner runs"
        )
    return JobContext(attempt)


class _Fired:
    """What a job knows of the schedule that made it."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: RunningJob) -> None:
        self._attempt = attempt

    @property
    def schedule_id(self) -> str | None:
        """The schedule that made this job; None for other jobs."""
        fire = self._attempt.fire
        return None if fire is None else fire.schedule

    @property
    def scheduled_for(self) -> datetime | None:
        """The fire time this job is for; None for jobs that no schedule made.

        It is the time the trigger gave, on the clock of its zone (UTC where it has none), before
        any jitter, and the same for every attempt. Of a run that somebody asked for (`run_now`) it
        is when they asked.
        """
        fire = self._attempt.fire
        return None if fire is None else fire.at

    @property
    def lateness(self) -> timedelta | None:
        """How long after `scheduled_for` the job was made, both by the server's clock."""
        fire = self._attempt.fire
        if fire is None:
            return None
        return timedelta(milliseconds=self._attempt.enqueued_ms - fire.slot)


class JobContext(_Fired):
    """The running job, seen from inside its task."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """The job's id."""
        return self._attempt.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._attempt.task_name

    @property
    def queue(self) -> str:
        """The queue the job came from."""
        return self._attempt.queue

    @property
    def worker(self) -> str:
        """The worker that runs it."""
        return self._attempt.worker

    @property
    def headers(self) -> dict[str, str]:
        """What the producer sent along: `options(headers={...})`."""
        return dict(self._attempt.headers or {})

    @property
    def attempt(self) -> int:
        """The number of this run, from 1."""
        return self._attempt.number

    @property
    def fence(self) -> int:
        """A number that grows with each run of this job.

        Give it to what you write to: whoever refuses a smaller fence than it has seen is safe from
        a worker that wakes up late (M. Kleppmann, "How to do distributed locking", 2016).
        """
        return self._attempt.fence

    @property
    def max_attempts(self) -> int:
        """How many attempts may fail before the job does."""
        return self._attempt.max_attempts

    @property
    def failures(self) -> int:
        """How many attempts failed before this one."""
        return self._attempt.failures

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued, by the server's clock."""
        return datetime.fromtimestamp(self._attempt.enqueued_ms / 1000, UTC)

    @property
    def deadline(self) -> datetime | None:
        """When this attempt's timeout passes; None without one."""
        attempt = self._attempt
        if attempt.timeout is None:
            return None
        left = attempt.started + attempt.timeout - time.monotonic()
        return datetime.now(UTC) + timedelta(seconds=left)

    def progress(self, done: float, total: float | None = None, text: str = "") -> Reported:
        """Say how far the job is; it shows in `info()` and `taskq status`.

        Of `text` the first and last characters are kept where it is longer than 1,000.

        Awaiting it waits until the server has it and raises `AttemptLost` if the job was given to
        another worker. In a plain function just call it.

        Raises `ConfigError` for what is not a finite number.

        >>> await current_job().progress(3, 10, "cutting")
        """
        return Reported(self._attempt, Progress.of(done, total, text))


class Reported:
    """A progress report on its way; awaiting it waits until it has arrived."""

    __slots__ = ("_sent",)

    def __init__(self, attempt: RunningJob, progress: Progress) -> None:
        self._sent: asyncio.Future[None] | None = None
        if attempt.report is not None:
            self._sent = attempt.report(attempt, progress)

    def __await__(self) -> Generator[Any, None, None]:
        if self._sent is not None:
            yield from self._sent.__await__()
