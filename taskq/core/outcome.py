"""The outcomes of an attempt. Every attempt ends with one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Cancelled", "Failed", "FailureKind", "Outcome", "Released", "RetryAsked", "Succeeded"]

FailureKind = Literal[
    "error",
    "timeout",
    "rejected",
    "poison",
    "unknown_task",
    "malformed",
    "unsigned",
    "forged",
    "unfit_arguments",
    "unfit_result",
    "process_died",
]


@dataclass(slots=True)
class Succeeded:
    """The function returned; `result` is its value, serialised."""

    result: bytes


@dataclass(slots=True)
class Failed:
    """The attempt failed; `retry_in` is the pause before the next one, None for no other."""

    error_type: str
    error_text: str
    traceback: str
    kind: FailureKind = "error"
    retry_in: float | None = None


@dataclass(slots=True)
class RetryAsked:
    """The task raised `RetryLater`: another attempt after `delay` seconds, not a failure."""

    delay: float
    reason: str


@dataclass(slots=True)
class Cancelled:
    """The job was cancelled, and the attempt was interrupted."""


@dataclass(slots=True)
class Released:
    """The worker handed the job back: it is stopping, or does not know the task yet."""

    delay: float = 0.0
    started: bool = True
    unknown: int = 0


Outcome = Succeeded | Failed | RetryAsked | Cancelled | Released
