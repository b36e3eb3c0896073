"""An attempt: one run of a job. Secrets in its arguments are masked in what it reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any, Final, Protocol

from taskq.codec.extensions import holds_secret
from taskq.codec.payload import decode_call
from taskq.codec.secret import MASK
from taskq.codec.secret_arguments import mask_passwords, secret_texts, written_forms
from taskq.core.errors import PayloadError
from taskq.core.job import Fire, Progress
from taskq.core.outcome import Failed, Outcome, RetryAsked
from taskq.core.retry import Retry
from taskq.execution.ports import Reporter
from taskq.execution.task import Task, task_spec_of

__all__ = ["Attempt", "Interruption", "LocalCall", "masked", "masked_progress"]

_MOST: Final = 200
"""With more secrets than this, texts are left out, because searching them would take too long."""


def masked(outcome: Outcome, attempt: Attempt) -> Outcome:
    """`outcome` with the secrets of the attempt's arguments masked."""
    if isinstance(outcome, Failed):
        outcome.error_text = _masked(outcome.error_text, attempt)
        trace = _masked(outcome.traceback, attempt)
        outcome.traceback = "" if trace == MASK else trace
    elif isinstance(outcome, RetryAsked):
        outcome.reason = _masked(outcome.reason, attempt)
    return outcome


def masked_progress(progress: Progress, attempt: Attempt) -> Progress:
    """`progress` with the secrets of the attempt's arguments masked."""
    return replace(progress, text=_masked(progress.text, attempt)) if progress.text else progress


def _masked(text: str, attempt: Attempt) -> str:
    if attempt.secrets is None:
        attempt.secrets = _forms(attempt)
    for secret in attempt.secrets:
        text = text.replace(secret, MASK) if secret else MASK
    return mask_passwords(text)


def _forms(attempt: Attempt) -> tuple[str, ...]:
    """The secrets in all forms; an empty string if they cannot be found in a text."""
    try:
        secrets = secret_texts(list(_call(attempt)))
    except Exception:
        return ("",)
    if len(secrets) > _MOST:
        return ("",)
    forms = {form for secret in secrets for form in written_forms(secret)}
    # Longest first: one may contain another.
    return tuple(sorted(forms, key=len, reverse=True))


def _call(attempt: Attempt) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if attempt.local is not None:
        # The arguments were concealed when the call was deferred.
        return attempt.local.args, attempt.local.kwargs
    conceal = attempt.spec.conceal
    if conceal is None and not holds_secret(attempt.payload):
        return (), {}
    try:
        args, kwargs = decode_call(attempt.payload)
    except PayloadError:
        return (), {}
    return (tuple(args), kwargs) if conceal is None else conceal(tuple(args), kwargs)


class Interruption(Enum):
    """Why an attempt is stopped from outside."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    RELEASE = "release"
    LOST = "lost"


class LocalCall(Protocol):
    """A call that stays in this process: arguments, value and error are not serialised."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    returned: Any
    error: BaseException | None


class Attempt:
    """An attempt's inputs, and the one way to interrupt it.

    `number` counts the runs of the job. `fence` is the number of this run at the server, which is
    smaller if the job ran in another process before the server had it. `failures` counts earlier
    attempts that failed. `secrets` are the texts to mask, once they were determined. `local` is set
    for a call that is not serialised. The first interruption decides the outcome; later ones change
    nothing. `mass_cancelled`: something other than taskq cancels every task of this event loop.
    """

    __slots__ = (
        "_runner",
        "enqueued_ms",
        "failures",
        "fence",
        "fire",
        "headers",
        "id",
        "interruption",
        "local",
        "mass_cancelled",
        "number",
        "on_interrupt",
        "payload",
        "queue",
        "report",
        "retry",
        "secrets",
        "spec",
        "started",
        "task",
        "timeout",
        "worker",
    )

    def __init__(
        self,
        task: Task[Any, Any],
        job_id: str,
        payload: bytes,
        *,
        number: int = 1,
        failures: int = 0,
        timeout: float | None = None,
        retry: Retry | None = None,
    ) -> None:
        self.task = task
        self.spec = task_spec_of(task)
        self.id = job_id
        self.payload = payload
        self.number = number
        self.fence = number
        self.failures = failures
        self.timeout = task.task_options.timeout if timeout is None else timeout
        self.retry = task.task_options.retry if retry is None else retry
        self.queue = task.task_options.queue
        self.headers: dict[str, str] | None = None
        self.fire: Fire | None = None
        self.enqueued_ms = 0
        self.local: LocalCall | None = None
        self.worker = ""
        self.report: Reporter | None = None
        self.secrets: tuple[str, ...] | None = None
        self.interruption: Interruption | None = None
        self.mass_cancelled = False
        self.on_interrupt: Callable[[Attempt], None] | None = None
        self.started = 0.0
        self._runner: asyncio.Task[Any] | None = None

    @property
    def task_name(self) -> str:
        """The task's name."""
        return self.task.name

    @property
    def max_attempts(self) -> int:
        """How many attempts may fail before the job does."""
        return self.retry.max_attempts

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Note the asyncio task that runs it, and the time."""
        self.started = time.monotonic()
        self._runner = asyncio.current_task(loop)

    def end(self) -> None:
        """Forget the asyncio task, whose context refers to this attempt: that would be a cycle."""
        self._runner = None

    def interrupt(self, why: Interruption) -> None:
        """Interrupt the run at its next await, but only once, to leave its clean-up alone."""
        if self.interruption is not None:
            return
        self.interruption = why
        if self.on_interrupt is not None:
            self.on_interrupt(self)
        if self._runner is not None:
            self._runner.cancel()
