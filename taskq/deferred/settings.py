"""Settings of the deferred runner: frozen and checked."""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import dataclass

from taskq.core.errors import ConfigError
from taskq.core.liveness import DURABLE_LEASE_SECONDS
from taskq.core.options import WhenFull, when_full

__all__ = ["DeferredSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredSettings:
    """How calls are deferred in this process: `TaskQ(deferred=DeferredSettings(...))`.

    `concurrency`: calls at once. `threads`, `processes`: of these, how many in threads and in
    processes of their own. `backlog`: how many calls may wait; `when_full`: what happens to others:
    `reject` raises `BacklogFull`, `spill` enqueues them, `wait` lets a thread, and whoever awaits
    `handle.accepted()`, wait for room. `grace`: seconds that calls get when the TaskQ is closed.
    `lease`: seconds after which the queue runs a durable call whose process is silent. `slow`: a
    call that blocks the event loop for so many seconds is named in the log; 0 for never.
    `request_id`: a context variable that names the request in logs. `keep_failures`: how many
    failures are remembered.

    Raises `ConfigError` for values out of range.

    >>> DeferredSettings(concurrency=100, grace=10).backlog
    10000
    """

    concurrency: int = 1000
    threads: int = 40
    processes: int = max(1, os.cpu_count() or 1)
    backlog: int = 10_000
    when_full: WhenFull = "reject"
    grace: float = 20.0
    lease: float = DURABLE_LEASE_SECONDS
    slow: float = 0.25
    request_id: ContextVar[str] | ContextVar[str | None] | None = None
    keep_failures: int = 100

    def __post_init__(self) -> None:
        for name in ("concurrency", "threads", "processes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)!r}: type 1 or more")
        for name in ("backlog", "grace", "slow", "keep_failures"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: type 0 or more")
        if self.lease < 1:
            raise ConfigError(f"lease={self.lease!r}: type at least 1 second")
        when_full("when_full", self.when_full)
