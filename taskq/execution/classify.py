"""From what an attempt raised to its Outcome."""

from __future__ import annotations

import asyncio
import logging

from taskq.core.errors import PayloadError
from taskq.core.kinds import is_a
from taskq.core.outcome import Cancelled, Failed, FailureKind, Outcome, Released, RetryAsked
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.failure import ProcessDied, RemoteError, failure_of, meant_by

__all__ = ["classify", "interrupted", "unfit_arguments", "unfit_result", "unforeseen"]

_log = logging.getLogger("taskq.worker")


def classify(attempt: Attempt, error: BaseException) -> Outcome:
    """The outcome of an attempt that raised `error`.

    A cancellation counts as an interruption only when taskq asked for it; a task that cancels
    itself has failed. What a cancelled or released task makes of its interruption is no failure
    either: clients of databases turn it into errors of their own. An attempt that ends with its
    event loop is handed back.
    """
    why = attempt.interruption
    if why is not None and (why is not Interruption.TIMEOUT or is_a(error, asyncio.CancelledError)):
        return interrupted(attempt, why, failure_of(error)["traceback"])
    if attempt.uprooted and not is_a(error, SystemExit, KeyboardInterrupt):
        # Its end is no fault of its own; these two may be what ends the program.
        return Released()
    if type(error) is RemoteError:
        return _remote(attempt, error)
    told, meant = failure_of(error), meant_by(error)
    if told["kind"] == "retry_later":
        return RetryAsked(told["delay"], told["text"])
    kind: FailureKind = "error"
    if told["kind"] == "reject":
        kind = "rejected"
    elif is_a(meant, ProcessDied):
        kind = "process_died"
    retry_in = attempt.retry.decide(meant, attempt.failures + 1)
    return Failed(told["type"], told["text"], told["traceback"], kind, retry_in)


def interrupted(attempt: Attempt, why: Interruption, trace: str = "") -> Outcome:
    """The outcome of an attempt that taskq itself stopped."""
    if why is Interruption.CANCEL:
        return Cancelled()
    if why is Interruption.TIMEOUT:
        error = TimeoutError(f"the attempt ran longer than its timeout of {attempt.timeout:g} s")
        retry_in = attempt.retry.decide(error, attempt.failures + 1)
        return Failed("TimeoutError", str(error), trace, "timeout", retry_in)
    return Released()


def unfit_arguments(error: Exception) -> Failed:
    """Arguments that cannot be read or do not fit the function: another attempt cannot help."""
    kind: FailureKind = "malformed" if is_a(error, PayloadError) else "unfit_arguments"
    told = failure_of(error)
    return Failed(told["type"], told["text"], "", kind)


def unfit_result(error: Exception) -> Failed:
    """The function returned what cannot travel: running it again would do its work twice."""
    told = failure_of(error)
    return Failed(told["type"], told["text"], "", "unfit_result")


def unforeseen(job_id: str, error: BaseException) -> Failed:
    """taskq itself failed: the job fails and others are unhurt, as with an error of the task."""
    told = failure_of(error)
    _log.error(
        "job %s failed by an error of taskq; please report it:\n%s",
        *(job_id, told["traceback"]),
        extra={"job": job_id, "error_type": told["type"]},
    )
    return Failed("TaskqError", f"taskq itself failed: {told['type']}", told["traceback"])


def _remote(attempt: Attempt, error: RemoteError) -> Outcome:
    if error.kind == "retry_later":
        return RetryAsked(error.delay or 0.0, error.text)
    kind = _REMOTE_KINDS[error.kind]
    wanted = error.kind in ("error", "soft_timeout") and attempt.retry.wants_names(error.mro)
    retry_in = attempt.retry.decide_by(attempt.failures + 1, wanted=wanted)
    return Failed(error.type_name, error.text, error.traceback_text, kind, retry_in)


_REMOTE_KINDS: dict[str, FailureKind] = {
    "error": "error",
    "reject": "rejected",
    "soft_timeout": "timeout",
    "unfit_arguments": "unfit_arguments",
    "unfit_result": "unfit_result",
}
