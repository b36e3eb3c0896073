"""What the deferred runner asks of the outside, so that it need not know who answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from taskq.core.job import JobState, NewJob
from taskq.execution.ports import JobBackend

__all__ = ["Backing", "DeferralStore"]


class DeferralStore(Protocol):
    """The server's side of durable calls, and of what a process says of itself."""

    async def hold(self, leases: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Put off when the queue takes jobs over: (id, owner, ms); whether each is still ours."""
        ...

    async def settle(
        self, job_id: str, owner: str, state: JobState, payload: bytes, ttl: float
    ) -> bool:
        """End a job that ran here; false when the queue has taken it over."""
        ...

    async def let_go(self, job: NewJob) -> bool:
        """Give a job to the queue, in `job`'s envelope and at its time; false when it was taken."""
        ...

    async def show(self, process: str, record: bytes | None) -> None:
        """What this process says of itself, for a minute; None takes it back."""
        ...


class Backing(JobBackend, Protocol):
    """The queue behind the deferred runner, for the running event loop."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the server now."""
        ...

    @property
    def configured(self) -> bool:
        """Whether somebody said where the server is, or uses it."""
        ...

    def deferrals(self) -> DeferralStore:
        """The server's side of durable calls."""
        ...
