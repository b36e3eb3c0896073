"""Waiting for a condition, with a deadline: tests do not sleep and hope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["eventually", "eventually_sync"]

T = TypeVar("T")


async def eventually(condition: Callable[[], Awaitable[T] | T], *, within: float = 10.0) -> T:
    """Poll `condition` until it is true and give its value; fail after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not true within {within} s"
        await asyncio.sleep(0.01)


def eventually_sync(condition: Callable[[], T], *, within: float = 10.0) -> T:
    """As `eventually`, for tests without a loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not true within {within} s"
        time.sleep(0.01)
    return value
