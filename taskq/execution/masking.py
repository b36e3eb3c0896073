"""The secrets of an attempt's arguments, taken out of what is told about it.

An exception of a library may quote what it was given: the URL with the token, the line with the
password. So the text and the traceback of a failure, and the text of progress, are searched for the
values of the `Secret`s, and for passwords of URLs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from taskq.core.concealing import forms_of, revealed, without_passwords
from taskq.core.errors import PayloadError
from taskq.core.extensions import holds_secret
from taskq.core.job import Progress
from taskq.core.outcome import Failed, Outcome, RetryAsked
from taskq.core.payload import decode_call
from taskq.core.secret import MASK
from taskq.execution.attempt import Attempt

__all__ = ["masked", "masked_progress"]

_MOST: Final = 200
"""With more secrets than that a text is not searched, which would take long, but left out."""


def masked(outcome: Outcome, attempt: Attempt) -> Outcome:
    """`outcome` without the secrets of the attempt's arguments."""
    if isinstance(outcome, Failed):
        outcome.error_text = _masked(outcome.error_text, attempt)
        trace = _masked(outcome.traceback, attempt)
        outcome.traceback = "" if trace == MASK else trace
    elif isinstance(outcome, RetryAsked):
        outcome.reason = _masked(outcome.reason, attempt)
    return outcome


def masked_progress(progress: Progress, attempt: Attempt) -> Progress:
    """`progress` without the secrets of the attempt's arguments."""
    return replace(progress, text=_masked(progress.text, attempt)) if progress.text else progress


def _masked(text: str, attempt: Attempt) -> str:
    if attempt.secrets is None:
        attempt.secrets = _forms(attempt)
    for secret in attempt.secrets:
        text = text.replace(secret, MASK) if secret else MASK
    return without_passwords(text)


def _forms(attempt: Attempt) -> tuple[str, ...]:
    """The secrets in all forms; an empty text where what cannot be looked for may be anywhere."""
    try:
        secrets = revealed(list(_call(attempt)))
    except Exception:
        return ("",)
    if len(secrets) > _MOST:
        return ("",)
    forms = {form for secret in secrets for form in forms_of(secret)}
    # The longest first: one may lie in another.
    return tuple(sorted(forms, key=len, reverse=True))


def _call(attempt: Attempt) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if attempt.local is not None:
        # Concealed when it was deferred.
        return attempt.local.args, attempt.local.kwargs
    conceal = attempt.task.callee.conceal
    if conceal is None and not holds_secret(attempt.payload):
        return (), {}
    try:
        args, kwargs = decode_call(attempt.payload)
    except PayloadError:
        return (), {}
    return (tuple(args), kwargs) if conceal is None else conceal(tuple(args), kwargs)
