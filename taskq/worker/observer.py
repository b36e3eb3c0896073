"""Who is dead: a worker whose beat stood still while ours were heard."""

from __future__ import annotations

from taskq.core.liveness import FRESH_SECONDS, LEASE_SECONDS

__all__ = ["Observer"]


class Observer:
    """Judges workers by their beat counters, on this machine's monotonic clock alone.

    A worker's silence is counted only while this worker's own beats landed: when the server pauses
    or the network breaks, nobody's counter moves and nobody is declared dead. First sight of a
    worker starts its clock. No wall clock, key expiry or idle time takes part.
    """

    def __init__(self, dead_after: float = LEASE_SECONDS) -> None:
        self._dead_after = dead_after
        self._silent: dict[str, tuple[str, float]] = {}
        self._looked: float | None = None
        self._own: tuple[str, float] | None = None

    def judge(self, counters: dict[str, str], own_name: str, now: float) -> dict[str, str]:
        """The workers that are dead by `now` (monotonic seconds), with the counter judged by."""
        elapsed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        if not self._heard_ourselves(counters.get(own_name), now) or elapsed > FRESH_SECONDS:
            elapsed = 0.0
        silent: dict[str, tuple[str, float]] = {}
        for worker, counter in counters.items():
            before, silence = self._silent.get(worker, (None, 0.0))
            silent[worker] = (counter, silence + elapsed if counter == before else 0.0)
        self._silent = silent
        return {
            worker: counter
            for worker, (counter, silence) in silent.items()
            if silence >= self._dead_after and worker != own_name
        }

    def _heard_ourselves(self, counter: str | None, now: float) -> bool:
        if counter is None:
            self._own = None
            return False
        if self._own is None or self._own[0] != counter:
            self._own = (counter, now)
            return True
        return now - self._own[1] < FRESH_SECONDS
