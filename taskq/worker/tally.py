"""What a worker counts about itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counters of one worker since it started.

    `fenced` are outcomes the server refused because the job had been given to another worker;
    `adopted` are jobs found again after the reply that handed them out was lost; `untrusted` are
    jobs that were not run because they were unsigned or forged, `misdelivered` those handed back
    because they are of a queue that is not served here.
    """

    started: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    released: int = 0
    fenced: int = 0
    lost: int = 0
    adopted: int = 0
    reaped: int = 0
    leaked: int = 0
    untrusted: int = 0
    misdelivered: int = 0

    @property
    def finished(self) -> int:
        """Attempts that ended here, one way or another."""
        return self.succeeded + self.failed + self.retried + self.cancelled + self.released
