"""The secrets of an attempt's arguments, taken out of what is told about its failure.

An exception of a library may quote what it was given: the URL with the token, the line with the
password. So the text and the traceback of a failure are searched for the values of the `Secret`s.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from taskq.core.concealing import revealed
from taskq.core.errors import PayloadError
from taskq.core.extensions import holds_secret
from taskq.core.outcome import Failed, Outcome, RetryAsked
from taskq.core.payload import decode_call
from taskq.core.secret import MASK
from taskq.execution.attempt import Attempt

__all__ = ["masked"]

_LEAST: Final = 4
"""Shorter values are no secrets, and masking them would make a text unreadable."""


def masked(outcome: Outcome, attempt: Attempt) -> Outcome:
    """`outcome` without the secrets of the attempt's arguments."""
    if not isinstance(outcome, (Failed, RetryAsked)):
        return outcome
    try:
        secrets = _secrets_of(attempt)
    except Exception:
        # What cannot be looked for may stand anywhere.
        return _silent(outcome)
    if secrets and isinstance(outcome, Failed):
        outcome.error_text = _without(secrets, outcome.error_text)
        outcome.traceback = _without(secrets, outcome.traceback)
    elif secrets and isinstance(outcome, RetryAsked):
        outcome.reason = _without(secrets, outcome.reason)
    return outcome


def _silent(outcome: Failed | RetryAsked) -> Outcome:
    if isinstance(outcome, Failed):
        outcome.error_text, outcome.traceback = MASK, ""
    else:
        outcome.reason = MASK
    return outcome


def _secrets_of(attempt: Attempt) -> list[str]:
    if attempt.local is not None:
        # Concealed when it was deferred.
        return _forms((attempt.local.args, attempt.local.kwargs))
    conceal = attempt.task.callee.conceal
    if conceal is None and not holds_secret(attempt.payload):
        return []
    try:
        args, kwargs = decode_call(attempt.payload)
    except PayloadError:
        return []
    return _forms((tuple(args), kwargs) if conceal is None else conceal(tuple(args), kwargs))


def _forms(call: tuple[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """The texts of the secrets of a call, in every form in which they may be quoted."""
    forms = {
        form
        for text in revealed(list(call))
        if len(text) >= _LEAST
        for form in (text, quote(text, safe=""), repr(text)[1:-1])
    }
    # The longest first: one may lie in another.
    return sorted(forms, key=len, reverse=True)


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text
