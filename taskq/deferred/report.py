"""What became of deferred calls: counted, logged, remembered, and told to hooks."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from taskq.core.outcome import Failed
from taskq.core.secret import MASK
from taskq.deferred.call import Call
from taskq.deferred.settings import DeferredSettings

__all__ = ["DeferredFailure", "DeferredStats", "ErrorHook", "Report", "Tally", "showable"]

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
