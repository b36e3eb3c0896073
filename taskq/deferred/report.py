"""The settings of the deferred runner, its statistics, and its reports on failed calls."""

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

    `concurrency`: how many calls run at once; `threads`, `processes`: how many of these in threads
    and in separate processes. `backlog`: how many calls may wait; `when_full`: what happens to
    further calls: `reject` raises `BacklogFull`, `spill` enqueues them, `wait` makes the deferring
    thread, or `await handle.accepted()`, wait for room. `grace`: how many seconds calls have to end
    when the TaskQ is closed. `lease`: after how many seconds without a sign of life from its
    process the queue runs a durable call. `slow`: a call that blocks the event loop for this many
    seconds is logged; 0 turns that off. `request_id`: a context variable with the request's id, for
    logs. `keep_failures`: how many failures `failures()` keeps.

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
                raise ConfigError(f"{name}={getattr(self, name)!r}: use 1 or more")
        for name in ("backlog", "grace", "slow", "keep_failures"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: use 0 or more")
        if self.lease < 1:
            raise ConfigError(f"lease={self.lease!r}: use at least 1 second")
        when_full("when_full", self.when_full)


_log = logging.getLogger("taskq.deferred")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredFailure:
    """A failed attempt of a deferred call; `final` unless the call is retried.

    `error` is what the function raised. Hooks receive it; `failures()` keeps only its text.
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

    Calls now: `running`; `waiting` for a slot, an earlier call of their key, or room; `scheduled`
    for later or for a retry; `durable`, which the queue would run if this process died. `oldest` is
    the age in seconds of the call that was deferred first. Calls since the process started:
    `submitted`, `succeeded`, `failed`, `retried`, `cancelled`, `expired`; `rejected` because the
    backlog was full; `merged` into a waiting call of the same key; `spilled` to the queue; `lost`
    when the drain ended; `leaked`, which go on although they were interrupted.
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
        """How many calls are not over."""
        return self.running + self.waiting + self.scheduled


class Report:
    """Counts, logs and keeps how calls end, and calls the error hooks.

    A hook that raises is logged and affects nothing else.
    """

    def __init__(self, settings: DeferredSettings) -> None:
        self.tally = Tally()
        self.hooks: list[ErrorHook] = []
        self.failures: deque[DeferredFailure] = deque(maxlen=settings.keep_failures)
        self._request_id = cast("ContextVar[str | None] | None", settings.request_id)

    def request_of(self, call: Call) -> str | None:
        """The id of the request in which a call was deferred."""
        return None if self._request_id is None else call.context.get(self._request_id)

    def succeeded(self, call: Call) -> None:
        """Report a call whose function returned."""
        self.tally.succeeded += 1
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s: attempt %d succeeded", self._named(call), call.attempts)

    def failed(self, call: Call, outcome: Failed, error: BaseException | None) -> None:
        """Report a failed attempt, the last one or not."""
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
        self._call_hooks(call, outcome, error, request)

    def refused(self, call: Call, error: Exception) -> None:
        """Report a call that was rejected after `defer` had returned."""
        _log.error("%s was rejected: %s", self._named(call), error)

    def lost(self, call: Call, reason: str) -> None:
        """Report a call that will not run, because this process ends."""
        self.tally.lost += 1
        extra = {"job": call.id, "task": call.task.name, "request_id": self.request_of(call)}
        _log.error("%s is lost: %s", self._named(call), reason, extra=extra)

    def _call_hooks(
        self, call: Call, outcome: Failed, error: BaseException | None, request: str | None
    ) -> None:
        facts: dict[str, Any] = {
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
        self.failures.append(DeferredFailure(**facts))
        for hook in self.hooks:
            try:
                call.context.run(hook, DeferredFailure(**facts, error=error))
            except Exception:
                _log.exception("the error hook %r of the deferred runner failed", hook)

    def _named(self, call: Call) -> str:
        request = self.request_of(call)
        suffix = "" if request is None else f" of request {request}"
        return f"deferred {call.task.name} ({call.id}){suffix}"


def showable(outcome: Failed, error: BaseException | None) -> BaseException | None:
    """The error, or None if it quotes a secret: then only its masked text may be shown."""
    return None if MASK in outcome.error_text or MASK in outcome.traceback else error
