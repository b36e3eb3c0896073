"""Settings of a worker: frozen and checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from taskq.core.errors import ConfigError
from taskq.core.ids import check_name

__all__ = ["WorkerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What a worker serves and how.

    `queues`: their names; of equal priority they take turns. `concurrency`: jobs at once.
    `threads`, `processes`: of these, how many in threads and in processes of their own.
    `grace`: seconds that running jobs get when the worker stops. `burst`: stop when nothing is due.
    `low_share`: from 0 to 1, how many of the fetches serve the lowest priorities first, so that
    they do not starve; 0 is strict. `max_jobs`: stop after so many. `max_memory`: stop when the
    resident memory passes so many bytes. `leak_limit`: stop when so many threads or coroutines
    outlived their timeout. `unknown_limit`: how often a job whose task is not registered is
    given back before it fails. `name`: the worker's name, unique; None makes one.
    `scheduler`: stand ready to fire schedules, if nobody else does; never with `burst`.
    """

    queues: Sequence[str] = ("default",)
    concurrency: int = 100
    threads: int = 40
    processes: int = max(1, os.cpu_count() or 1)
    grace: float = 30.0
    burst: bool = False
    low_share: float = 0.0
    max_jobs: int | None = None
    max_memory: int | None = None
    leak_limit: int = 20
    unknown_limit: int = 10
    name: str | None = None
    scheduler: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.queues, str) or not self.queues:
            raise ConfigError(f"queues={self.queues!r}: type a list of names, such as ['default']")
        for queue in self.queues:
            check_name("queue", queue)
        counts = ("concurrency", "threads", "processes", "leak_limit", "unknown_limit")
        for field in (*counts, "max_jobs", "max_memory"):
            count = getattr(self, field)
            if count is not None and count < 1:
                raise ConfigError(f"{field}={count!r}: type 1 or more")
        if not 0 <= self.low_share <= 1:
            raise ConfigError(f"low_share={self.low_share!r}: type a share from 0 to 1")
        if self.grace < 0:
            raise ConfigError(f"grace={self.grace!r}: type 0 or more seconds")
