"""The states of a job."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["JobState"]


class JobState(StrEnum):
    """Where a job is in its life. It is in exactly one state at any time.

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
