"""How long jobs that ended without a result are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from taskq.core.durations import Duration, seconds
from taskq.core.errors import ConfigError

__all__ = ["Retention"]


@dataclass(frozen=True)
class Retention:
    """How long failed, cancelled and expired jobs are kept, and how many.

    `failure_ttl` (seconds or timedelta, default 7 days; 0 keeps none) is how long their records
    live. `keep_failed` (default 10,000) is how many failed ones are kept per queue; of more, the
    oldest go. Results of jobs that succeeded are kept as their task says: `result_ttl`.

    Producers and workers of one namespace give the same.

    Raises `ConfigError` for numbers out of range.

    >>> Retention(failure_ttl=86_400, keep_failed=500).failure_seconds
    86400.0
    """

    failure_ttl: Duration = timedelta(days=7)
    keep_failed: int = 10_000

    def __post_init__(self) -> None:
        seconds("failure_ttl", self.failure_ttl)
        kept = self.keep_failed
        if isinstance(kept, bool) or not isinstance(kept, int) or kept < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"keep_failed={kept!r}: type how many failed jobs to keep per queue, 0 or more"
            )

    @property
    def failure_seconds(self) -> float:
        """`failure_ttl` in seconds."""
        return seconds("failure_ttl", self.failure_ttl)

    @property
    def failure_ms(self) -> int:
        """`failure_ttl` in milliseconds."""
        return int(self.failure_seconds * 1000)
