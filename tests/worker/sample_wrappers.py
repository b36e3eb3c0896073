"""Functions whose wrappers take other arguments than they do, for processes that import them."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Color",
    "Point",
    "added_in_process",
    "injecting_first",
    "injecting_keyword",
    "passing",
    "passing_plainly",
    "taking_more",
]


class Color(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Point:
    x: int


def injecting_first(function: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper gives the first argument itself."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function("session", *args, **kwargs)

    return wrapper


def injecting_keyword(function: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper gives the argument `session` itself."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, session="session", **kwargs)

    return wrapper


def taking_more(function: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper takes `times`, which the function knows nothing of."""

    @functools.wraps(function)
    async def wrapper(times: int, *args: Any, suffix: str = "", **kwargs: Any) -> Any:
        return [await function(*args, **kwargs) for _ in range(times)], suffix

    return wrapper


def passing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper takes what the function takes."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await function(*args, **kwargs)

    return wrapper


def passing_plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same as a plain `def`, which gives the coroutine of the function."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@passing_plainly
@injecting_first
async def added_in_process(session: str, number: int) -> str:
    return f"{session} {number + 1}"
