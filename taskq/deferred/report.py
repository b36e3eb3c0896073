"""What became of deferred calls: counted, logged, remembered, and passed to hooks."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from taskq.codec.secret import MASK
from taskq.core.errors import ConfigError
from taskq.core.liveness import DURABLE_LEASE_SECONDS
from taskq.core.options import WhenFull, when_full
from taskq.core.outcome import Failed
from taskq.deferred.call import Call

__all__ = [
    "DeferredFailure",
    "DeferredSettings",
    "DeferredStats",
    "ErrorHook",
    "Report",
    "Tally",
    "showable",
]


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


_log = logging.getLogger("taskq.deferred")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredFailure:
    """A failure of a deferred call; `final` unless it is tried again.

    `error` is what the function raised; `failures()` remembers its text alone.
    """

    id: str
    task: str
    attempt: int
    error_type: str
    error_text: str
    traceback: str
    at: datetime
    request_id: str | None = None
    final: bool = True
    error: BaseException | None = None


ErrorHook = Callable[[DeferredFailure], object]


@dataclass(slots=True)
class Tally:
    """Counters since the process started."""

    submitted: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    expired: int = 0
    rejected: int = 0
    merged: int = 0
    spilled: int = 0
    lost: int = 0
    leaked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredStats:
    """The deferred runner at one moment.

    Now: `running` calls; `waiting` for a slot, a line or room; `scheduled` for their time or their
    next attempt; `durable` ones that the queue would run if this process died. `oldest` is how
    long ago the first of them was deferred, in seconds. Since the start of the process:
    `submitted`, `succeeded`, `failed`, `retried`, `cancelled`, `expired`; `rejected` because the
    backlog was full; `merged` into a waiting call of their key; `spilled` to the queue; `lost`
    when the drain ended; `leaked`, which went on after they were interrupted.
    """

    running: int = 0
    waiting: int = 0
    scheduled: int = 0
    durable: int = 0
    oldest: float | None = None
    submitted: int = 0
    succeeded: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    expired: int = 0
    rejected: int = 0
    merged: int = 0
    spilled: int = 0
    lost: int = 0
    leaked: int = 0

    @property
    def pending(self) -> int:
        """Calls that are not over."""
        return self.running + self.waiting + self.scheduled


class Report:
    """Takes note of how calls end. A hook that raises is logged and harms nobody."""

    def __init__(self, settings: DeferredSettings) -> None:
        self.tally = Tally()
        self.hooks: list[ErrorHook] = []
        self.failures: deque[DeferredFailure] = deque(maxlen=settings.keep_failures)
        self._request_id = cast("ContextVar[str | None] | None", settings.request_id)

    def request_of(self, call: Call) -> str | None:
        """The id of the request in which it was deferred."""
        return None if self._request_id is None else call.context.get(self._request_id)

    def succeeded(self, call: Call) -> None:
        """Its function returned."""
        self.tally.succeeded += 1
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s: attempt %d succeeded", self._named(call), call.attempts)

    def failed(self, call: Call, outcome: Failed, error: BaseException | None) -> None:
        """An attempt failed, the last one or not."""
        request, again = self.request_of(call), outcome.retry_in
        text = f"{outcome.error_type}: {outcome.error_text}"
        if again is None and showable(outcome, error) is None and outcome.traceback:
            text = f"{text}\n{outcome.traceback}"
        extra: dict[str, Any] = {
            "job": call.id,
            "task": call.task.name,
            "attempt": call.attempts,
            "error_type": outcome.error_type,
            "request_id": request,
        }
        if again is None:
            self.tally.failed += 1
            _log.error(
                "%s: attempt %d failed: %s",
                *(self._named(call), call.attempts, text),
                exc_info=showable(outcome, error),
                extra=extra,
            )
        else:
            self.tally.retried += 1
            _log.warning(
                "%s: attempt %d failed: %s; again in %.1f s",
                *(self._named(call), call.attempts, text, again),
                extra=extra,
            )
        self._tell(call, outcome, error, request)

    def refused(self, call: Call, error: Exception) -> None:
        """It was not taken, and whoever deferred it has gone on."""
        _log.error("%s was not taken: %s", self._named(call), error)

    def lost(self, call: Call, reason: str) -> None:
        """It will not run, because this process ends."""
        self.tally.lost += 1
        extra = {"job": call.id, "task": call.task.name, "request_id": self.request_of(call)}
        _log.error("%s is lost: %s", self._named(call), reason, extra=extra)

    def _tell(
        self, call: Call, outcome: Failed, error: BaseException | None, request: str | None
    ) -> None:
        told: dict[str, Any] = {
            "id": call.id,
            "task": call.task.name,
            "attempt": call.attempts,
            "error_type": outcome.error_type,
            "error_text": outcome.error_text,
            "traceback": outcome.traceback,
            "at": datetime.now(UTC),
            "request_id": request,
            "final": outcome.retry_in is None,
        }
        self.failures.append(DeferredFailure(**told))
        for hook in self.hooks:
            try:
                call.context.run(hook, DeferredFailure(**told, error=error))
            except Exception:
                _log.exception("the error hook %r of the deferred runner failed", hook)

    def _named(self, call: Call) -> str:
        request = self.request_of(call)
        asked = "" if request is None else f" of request {request}"
        return f"deferred {call.task.name} ({call.id}){asked}"


def showable(outcome: Failed, error: BaseException | None) -> BaseException | None:
    """The error, unless it quotes a secret: then only its masked text is shown."""
    return None if MASK in outcome.error_text or MASK in outcome.traceback else error
