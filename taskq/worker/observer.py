"""Who is dead: a worker that was not heard while our own heartbeats landed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from taskq.broker.leases import Silent
from taskq.core.liveness import FRESH_SECONDS, LEASE_SECONDS, SILENT_SECONDS

__all__ = ["Observer"]


class _Landed(NamedTuple):
    number: int
    answered: float


class Observer:
    """Judges other workers by the order of all heartbeats, on this machine's monotonic clock alone.

    The server numbers heartbeats. A worker whose last one has a lower number than one of ours has
    not been heard since we had the answer to that one. It is dead when that was `dead_after`
    seconds before we asked, and ours landed all the while: when the server pauses or the network
    breaks, nobody is heard, and the count begins anew. No wall clock, key expiry or idle time takes
    part. Who was not heard for `silent_after` seconds is silent.
    """

    def __init__(
        self, dead_after: float = LEASE_SECONDS, *, silent_after: float = SILENT_SECONDS
    ) -> None:
        self._dead_after = dead_after
        self._silent_after = silent_after
        self._landed: deque[_Landed] = deque()

    def since(self, now: float) -> int:
        """The heartbeat to name at `now`: who was not heard after it is silent. 0 names none."""
        return self._before(now - self._silent_after)

    def landed(self, number: int, sent: float, answered: float) -> None:
        """Our heartbeat, sent at `sent`, was answered at `answered` (monotonic seconds)."""
        last = self._landed[-1] if self._landed else None
        # The server lost what it had written last: earlier numbers were given again.
        went_back = last is not None and number <= last.number
        if last is not None and (went_back or answered - last.answered > FRESH_SECONDS):
            self._landed.clear()
        self._landed.append(_Landed(number, answered))
        while len(self._landed) > 1 and self._landed[1].answered <= sent - self._dead_after:
            self._landed.popleft()

    def dead(self, silent: Iterable[Silent], sent: float) -> list[Silent]:
        """Which of the silent, as the answer to what was sent at `sent` lists them, are dead."""
        limit = self._before(sent - self._dead_after)
        return [worker for worker in silent if worker.heartbeat < limit or worker.heartbeat < 0]

    def next_death(self, silent: Iterable[Silent]) -> float:
        """When the first of these will be dead, if it stays silent; infinity for none."""
        return min((self._heard_before(worker) for worker in silent), default=float("inf"))

    def forget(self) -> None:
        """Start over: this worker has a new name."""
        self._landed.clear()

    def _before(self, then: float) -> int:
        """The last heartbeat that was answered before `then`."""
        numbers = [beat.number for beat in self._landed if beat.answered <= then]
        return numbers[-1] if numbers else 0

    def _heard_before(self, worker: Silent) -> float:
        for beat in self._landed:
            if beat.number > worker.heartbeat:
                return beat.answered + self._dead_after
        return float("inf")
