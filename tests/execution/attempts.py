"""What one attempt of a task with dependencies gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from taskq.codec.payload import decode_value
from taskq.core.outcome import Outcome, Succeeded

__all__ = ["Run", "value_of"]

Run = Callable[..., Awaitable[Outcome]]
"""Registers a function, runs one attempt of it with the arguments, and gives its outcome."""


def value_of(outcome: Outcome) -> Any:
    """What an attempt returned, which must have succeeded."""
    assert isinstance(outcome, Succeeded), outcome
    return decode_value(outcome.result)
