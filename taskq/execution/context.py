"""`current_job()`: what a running task can learn about its own job, and report."""

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
    "JobContext",
    "RemoteJob",
    "RunningJob",
    "current_job",
    "job_facts",
    "running_job",
    "set_current_job",
]


@dataclass
class RemoteJob:
    """A running job as seen in a child process: plain facts, and a way to report progress."""

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
            # It arrived as a list.
            self.fire = Fire(*self.fire)


def job_facts(job: RunningJob) -> dict[str, Any]:
    """The fields of a `RemoteJob` as plain data."""
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


def set_current_job(job: RunningJob) -> None:
    """Make `job` the current one for this asyncio task and the tasks it starts."""
    _current.set(job)


def running_job() -> RunningJob | None:
    """The job whose task is running here, or None."""
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


class _ScheduledJob:
    """What a job knows about the schedule that created it."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: RunningJob) -> None:
        self._attempt = attempt

    @property
    def schedule_id(self) -> str | None:
        """The schedule that created this job; None for other jobs."""
        fire = self._attempt.fire
        return None if fire is None else fire.schedule

    @property
    def scheduled_for(self) -> datetime | None:
        """The fire time of this job; None for jobs that no schedule created.

        It is the time that the trigger gave, in the trigger's time zone (UTC if it has none),
        before any jitter, and the same for every attempt. For `run_now`, it is the time of that
        call.
        """
        fire = self._attempt.fire
        return None if fire is None else fire.at

    @property
    def lateness(self) -> timedelta | None:
        """How long after `scheduled_for` the job was created, by the server's clock."""
        fire = self._attempt.fire
        if fire is None:
            return None
        return timedelta(milliseconds=self._attempt.enqueued_ms - fire.slot)


class JobContext(_ScheduledJob):
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
        """The headers that the producer added: `options(headers={...})`."""
        return dict(self._attempt.headers or {})

    @property
    def attempt(self) -> int:
        """The number of this run, from 1."""
        return self._attempt.number

    @property
    def fence(self) -> int:
        """A number that grows with each run of this job.

        Pass it to the systems you write to: one that refuses a smaller fence than it has seen is
        safe from workers that wake up late (M. Kleppmann, "How to do distributed locking", 2016).
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
        """When this attempt times out; None without a timeout."""
        attempt = self._attempt
        if attempt.timeout is None:
            return None
        left = attempt.started + attempt.timeout - time.monotonic()
        return datetime.now(UTC) + timedelta(seconds=left)

    def progress(self, done: float, total: float | None = None, text: str = "") -> Reported:
        """Report the progress of the job, which `info()` and `taskq status` show.

        A `text` of more than 1,000 characters is shortened in the middle.

        Awaiting the report waits until the server has it, and raises `AttemptLost` if the job was
        given to another worker. In a plain function, just call it.

        Raises `ConfigError` for values that are not finite numbers.

        >>> await current_job().progress(3, 10, "cutting")
        """
        return Reported(self._attempt, Progress.of(done, total, text))


class Reported:
    """A progress report that is being sent; awaiting it waits until it has arrived."""

    __slots__ = ("_sent",)

    def __init__(self, attempt: RunningJob, progress: Progress) -> None:
        self._sent: asyncio.Future[None] | None = None
        if attempt.report is not None:
            self._sent = attempt.report(attempt, progress)

    def __await__(self) -> Generator[Any, None, None]:
        if self._sent is not None:
            yield from self._sent.__await__()
