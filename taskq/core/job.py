"""Jobs as data: states, new jobs, deliveries to workers, and what `Job.info()` returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import Any, Final, NamedTuple

from taskq.core.durations import in_zone
from taskq.core.errors import ConfigError
from taskq.core.text import fitting

__all__ = [
    "KINDS",
    "AttemptRecord",
    "Delivery",
    "Ending",
    "Fire",
    "JobInfo",
    "JobState",
    "NewJob",
    "Progress",
    "lane_of",
    "queue_of",
]


class JobState(StrEnum):
    """The state of a job. A job is in exactly one state at any time.

    ::

        scheduled ──> queued ──> running ──> succeeded | failed | cancelled
            ^  waiting ──^          │
            └──────── retry ────────┘        scheduled, queued ──> cancelled | expired
    """

    SCHEDULED = "scheduled"
    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        """Whether the job has ended, one way or another."""
        return self in _FINISHED


_FINISHED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


KINDS: Final = {"loop": "", "thread": "t", "process": "p"}
"""Executors, and the suffix of their lanes after the priority."""


def lane_of(queue: str, priority: int, executor: str = "loop") -> str:
    """The lane of jobs of one queue, priority and executor.

    >>> lane_of("images", 5, "thread")
    'images/5t'
    """
    return f"{queue}/{priority}{KINDS[executor]}"


def queue_of(lane: str) -> str:
    """The queue of a lane."""
    return lane.rpartition("/")[0]


class NewJob(NamedTuple):
    """A job as the enqueue script expects it.

    `when` and `expires`: `""` for now and never, `"+<ms>"` from the server's now, `"@<ms>"` since
    the epoch. `origin` identifies this request if the caller chose the id, and is empty for an id
    made by taskq. `channel` is the channel of a client that already waits for the result, else
    empty. `owner` is the unique token of a durable call, which its own process runs, and empty for
    other jobs.
    """

    id: str
    envelope: bytes
    lane: str
    when: str = ""
    expires: str = ""
    origin: str = ""
    channel: str = ""
    owner: str = ""


class Fire(NamedTuple):
    """The schedule and fire time of a job: `slot` is in milliseconds since the epoch.

    `by_hand` is true for a run that was requested (`run_now`) instead of due. `zone` is the zone of
    the schedule, an IANA name or an offset; empty for UTC.
    """

    schedule: str
    slot: int
    by_hand: bool = False
    zone: str = ""

    @property
    def at(self) -> datetime:
        """The fire time, in the schedule's zone."""
        return in_zone(datetime.fromtimestamp(self.slot / 1000, UTC), self.zone)


class Delivery(NamedTuple):
    """A job handed to a worker, with the data of its lease.

    `fence` counts the deliveries of the job and never decreases: with the worker it identifies this
    delivery. `unstarted` of them never ran.
    """

    id: str
    lane: str
    entry: bytes
    fence: int
    envelope: bytes
    failures: int
    crashes: int
    unknown: int
    enqueued_ms: int
    unstarted: int = 0

    @property
    def attempt(self) -> int:
        """The number of this run: how often the job was started, including this time."""
        return self.fence - self.unstarted


@dataclass(frozen=True, slots=True)
class Ending:
    """The state of a job (None: unknown or gone), and the result or error if it has ended.

    `gone` tells a job that ended, and whose result is no longer kept, from an unknown one.
    """

    state: JobState | None
    payload: bytes = b""
    gone: bool = False

    @property
    def final(self) -> bool:
        """Whether there is no point in waiting longer."""
        return self.state is None or self.state.finished


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress that a running job reports: `done` of `total`, and a short text."""

    done: float
    total: float | None = None
    text: str = ""

    @classmethod
    def of(cls, done: Any, total: Any = None, text: Any = "") -> Progress:
        """Progress that can be stored and shown: finite numbers (integers stay integers), and text.

        The text is cut to 1,000 characters. Raises `ConfigError` for anything but finite numbers.
        """
        whole = None if total is None else _finite("total", total)
        return cls(_finite("done", done), whole, fitting(str(text), 1000))


def _finite(name: str, value: Any) -> float:
    try:
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return int(value)
        if not isinstance(value, (str, bytes)) and isfinite(number := float(value)):
            return number
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigError(f"progress({name}={value!r}): use a finite number, such as progress(3, 10)")


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt of a job: when and where it ran and how it ended.

    `ended` and `outcome` are None while it runs. `outcome` is `succeeded`, `cancelled`, `released`,
    `retry asked`, `lost` (its worker died) or the failure's kind; `error` is the failure's text.
    """

    number: int
    started: datetime | None
    ended: datetime | None
    worker: str
    outcome: str | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """Everything the server knows about a job.

    `schedule_id` and `scheduled_for` are set for a job made by a schedule. With signing keys,
    `untrusted` says why the seal of the job is invalid; its task, arguments, headers and schedule
    are left out then.
    """

    id: str
    task: str
    state: JobState
    queue: str
    priority: int
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    enqueued_at: datetime | None = None
    due_at: datetime | None = None
    expires_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    worker: str | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    cancel_requested: bool = False
    progress: Progress | None = None
    result: Any = None
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    schedule_id: str | None = None
    scheduled_for: datetime | None = None
    untrusted: str | None = None
