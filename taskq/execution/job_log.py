"""Logging of jobs: a line when an attempt ends, and fields of the job on every line of its task.

It also finds the attempt that blocks an event loop.
"""

from __future__ import annotations

import logging
import time
from types import FrameType
from typing import Any, Final

from taskq.core.job import Delivery
from taskq.core.outcome import Cancelled, Failed, Outcome, Released, RetryAsked, Succeeded
from taskq.execution.attempt import Attempt
from taskq.execution.context import RunningJob, running_job

__all__ = ["JOB_LINES", "JobLogFilter", "culprit", "delivery_fields", "job_fields", "log_outcome"]


def culprit(frame: FrameType | None) -> tuple[Attempt | None, str]:
    """The attempt that runs in this stack, and the line that its function is at."""
    where = "an unknown line"
    while frame is not None:
        if frame.f_code.co_name == "run_attempt":
            attempt = frame.f_locals.get("attempt")
            if isinstance(attempt, Attempt):
                return attempt, where
        if not frame.f_globals.get("__name__", "").startswith("taskq."):
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None, where


JOB_LINES: Final = "taskq.jobs"
"""The logger of attempts that did not fail: at DEBUG, or at INFO if it has a level."""

_log = logging.getLogger("taskq.worker")
_jobs = logging.getLogger(JOB_LINES)

_WORDS: Final[dict[type[Outcome], str]] = {
    Succeeded: "succeeded",
    RetryAsked: "asked for another attempt",
    Cancelled: "was cancelled",
    Released: "was handed back",
}


class JobLogFilter(logging.Filter):
    """Adds the running job to log records: the fields `job`, `task`, `attempt` and `queue`.

    Add it to the handlers of your application; those of `taskq worker` have it. Existing fields of
    a record are kept, and outside of a job no field is added.

    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(JobLogFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        job = running_job()
        if job is not None:
            vars(record).update(job_fields(job) | vars(record))
        return True


def log_outcome(delivery: Delivery, attempt: RunningJob | None, outcome: Outcome) -> None:
    """Log how an attempt ended: failures always, other outcomes on request."""
    if not isinstance(outcome, Failed):
        level = logging.INFO if _jobs.level else logging.DEBUG
        if _jobs.isEnabledFor(level):
            _log_end(level, delivery, attempt, outcome)
        return
    _log_failure(delivery, attempt, outcome)


def _log_failure(delivery: Delivery, attempt: RunningJob | None, outcome: Failed) -> None:
    """Log a WARNING if another attempt follows, else an ERROR with the traceback."""
    final = outcome.retry_in is None
    level = logging.ERROR if final else logging.WARNING
    if not _log.isEnabledFor(level):
        return
    again = "" if outcome.retry_in is None else f"; again in {outcome.retry_in:.1f} s"
    fields = _named(delivery, attempt) | {"error_type": outcome.error_type}
    text = (
        f"job {delivery.id}: {fields['task']} attempt {fields['attempt']} failed: "
        f"{outcome.error_type}: {_loggable(outcome, delivery)}{again}"
    )
    # The traceback is text, possibly from another process, so there is no `exc_info`.
    record = _log.makeRecord(_log.name, level, __file__, 0, "%s", (text,), None, extra=fields)
    record.exc_text = outcome.traceback.rstrip() if final else None
    _log.handle(record)


def _log_end(level: int, delivery: Delivery, attempt: RunningJob | None, outcome: Outcome) -> None:
    fields = _named(delivery, attempt)
    seconds = 0.0 if attempt is None or not attempt.started else time.monotonic() - attempt.started
    _jobs.log(
        level,
        "job %s: %s attempt %d %s after %.3f s",
        *(delivery.id, fields["task"], fields["attempt"], _WORDS[type(outcome)], seconds),
        extra=fields | {"outcome": type(outcome).__name__.lower(), "seconds": round(seconds, 6)},
    )


def delivery_fields(delivery: Delivery) -> dict[str, Any]:
    """The fields of a log record about a job of which only the delivery is known."""
    return {"job": delivery.id, "attempt": delivery.attempt, "queue": delivery.lane[:-2]}


def job_fields(job: RunningJob) -> dict[str, Any]:
    """The fields of a log record about a job."""
    return {"job": job.id, "task": job.task_name, "attempt": job.number, "queue": job.queue}


def _named(delivery: Delivery, attempt: RunningJob | None) -> dict[str, Any]:
    if attempt is not None:
        return job_fields(attempt)
    return delivery_fields(delivery) | {"task": "(task not known)"}


def _loggable(failure: Failed, delivery: Delivery) -> str:
    """The text of a failure, except where it quotes arguments, which are not logged."""
    if failure.kind != "unfit_arguments":
        return failure.error_text
    return f"its arguments do not fit; q.job({delivery.id!r}).info() says which"
