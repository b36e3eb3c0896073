"""Failures between processes: always text, never an exception that is rebuilt from a name."""

from __future__ import annotations

import os
import traceback
from types import TracebackType
from typing import Any, Literal, cast

from taskq.core.errors import Reject, RetryLater, SoftTimeout, TaskqError

__all__ = ["ProcessDied", "RemoteError", "RemoteKind", "Unfit", "failure_of", "meant_by"]

RemoteKind = Literal[
    "error", "retry_later", "reject", "soft_timeout", "unfit_arguments", "unfit_result"
]

_KINDS: tuple[tuple[type[BaseException], RemoteKind], ...] = (
    (RetryLater, "retry_later"),
    (Reject, "reject"),
    (SoftTimeout, "soft_timeout"),
)

_TEXT_LIMIT = 64 * 1024

# A century. Where the text of a failure is needed, a delay nobody can mean must not get in its way.
_MOST_DELAY = 3e9

# The package that runs attempts: its frames say nothing about the failure.
_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep


class ProcessDied(TaskqError):
    """The process of the job ended before the job did; the text says how."""


class RemoteError(TaskqError):
    """The function raised, in its own process.

    `type_name` is the name of the exception's class, `mro` the names of that class and its bases,
    `text` its text and `traceback_text` the traceback there. `kind` is `error`, or what it means to
    taskq: `retry_later` (with `delay` in seconds), `reject`, `soft_timeout`, `unfit_arguments` (the
    payload does not fit the function) or `unfit_result` (the value cannot travel).
    """

    def __init__(
        self,
        type_name: str,
        text: str,
        traceback_text: str,
        kind: RemoteKind = "error",
        *,
        mro: tuple[str, ...] = (),
        delay: float | None = None,
    ) -> None:
        super().__init__(f"{type_name}: {text}")
        self.type_name = type_name
        self.text = text
        self.traceback_text = traceback_text
        self.kind: RemoteKind = kind
        self.mro = mro or (type_name,)
        self.delay = delay

    @classmethod
    def of(cls, failure: dict[str, Any]) -> RemoteError:
        """The error that `failure_of` described."""
        return cls(
            failure["type"],
            failure["text"],
            failure["traceback"],
            failure["kind"],
            mro=tuple(failure["mro"]),
            delay=failure["delay"],
        )

    def control(self) -> RetryLater | Reject | SoftTimeout | None:
        """taskq's own signal that the function raised, None for any other exception."""
        if self.kind == "retry_later":
            return RetryLater(self.delay or 0.0, self.text)
        if self.kind == "reject":
            return Reject(self.text)
        if self.kind == "soft_timeout":
            return SoftTimeout(self.text)
        return None


class Unfit(Exception):
    """Arguments that do not fit the function, or a result that cannot travel; see `error`."""

    def __init__(self, kind: RemoteKind, error: Exception) -> None:
        super().__init__(kind)
        self.kind: RemoteKind = kind
        self.error = error


def failure_of(error: BaseException) -> dict[str, Any]:
    """What `RemoteError.of` takes, as plain data; never raises, whatever `error` is."""
    if isinstance(error, Unfit):
        return failure_of(error.error) | {"kind": error.kind}
    meant = meant_by(error)
    kind = _kind_of(meant)
    return {
        "type": type(meant).__name__,
        "text": _plain(_text_of(meant)),
        "traceback": _plain(_traceback_of(error)),
        "kind": kind,
        "mro": [base.__name__ for base in type(meant).__mro__],
        "delay": _delay_of(meant) if kind == "retry_later" else None,
    }


def meant_by(error: BaseException) -> BaseException:
    """The `RetryLater` or `Reject` that a group consists of, `error` itself otherwise.

    An asyncio.TaskGroup wraps whatever its body raises.
    """
    meant = error
    while isinstance(meant, BaseExceptionGroup):
        first, *others = cast("BaseExceptionGroup[BaseException]", meant).exceptions
        if others:
            return error
        meant = first
    return meant if isinstance(meant, (RetryLater, Reject)) else error


def _kind_of(error: BaseException) -> RemoteKind:
    if isinstance(error, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[BaseException]", error).exceptions
        only_soft = all(_kind_of(member) == "soft_timeout" for member in members)
        return "soft_timeout" if only_soft else "error"
    for known, kind in _KINDS:
        if isinstance(error, known):
            return kind
    return "error"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as failure:
        return f"<str() of this {type(error).__name__} raised {type(failure).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, _without_ours(error.__traceback__))
        return "".join(lines)
    except BaseException as failure:
        return f"<the traceback cannot be shown: {type(failure).__name__}>\n"


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """From the first frame of the user's code on; all of it if there is none."""
    first = trace
    while first is not None and first.tb_frame.f_code.co_filename.startswith(_OURS):
        first = first.tb_next
    return first or trace


def _delay_of(error: BaseException) -> float:
    try:
        delay = float(getattr(error, "delay", 0.0))
    except (TypeError, ValueError):
        return 0.0
    # Not a number is neither.
    return min(delay, _MOST_DELAY) if delay > 0 else 0.0


def _plain(text: str) -> str:
    """Text that can be encoded, and is not so long that nobody would read it."""
    if len(text) > _TEXT_LIMIT:
        half = _TEXT_LIMIT // 2
        text = f"{text[:half]}\n... {len(text) - _TEXT_LIMIT} characters ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
