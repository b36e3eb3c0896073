"""How long the leader has been silent, as a follower hears it."""

from __future__ import annotations

from taskq.broker.leadership import LeaderRecord
from taskq.core.liveness import FRESH_SECONDS

__all__ = ["Silence"]


class Silence:
    """Adds up how long a leader's beat stood still, on this machine's monotonic clock alone.

    Only time between two looks that were both answered soon counts: while the server pauses, or
    cannot be reached, nobody is silent. The first sight of a leader starts its clock.
    """

    def __init__(self) -> None:
        self._looked: float | None = None
        self._seen: tuple[str | None, int, str] | None = None
        self._seconds = 0.0

    def of(self, record: LeaderRecord, now: float) -> float:
        """Seconds of silence of the leader in `record`, as read at `now` (monotonic seconds)."""
        elapsed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        seen = (record.owner, record.term, record.beat)
        if seen != self._seen:
            self._seen, self._seconds = seen, 0.0
        elif elapsed <= FRESH_SECONDS:
            self._seconds += elapsed
        return self._seconds
