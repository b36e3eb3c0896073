"""What goes wrong while plain data is made what annotations promise, and how much is tried."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, Final, cast

from taskq.core.errors import CallError

__all__ = ["Misfit", "Walk", "cause", "shortly"]

_MOST_STEPS: Final = 400_000
"""Four for each value that a payload may hold; they take about half a second."""


class Misfit(CallError):
    """A value nothing can be made of, on its way up to its parameter.

    `reason` may be a function: most reasons are never read, as another member of a union fits.
    """

    def __init__(self, reason: str | Callable[[], str]) -> None:
        super().__init__()
        self._reason = reason
        self.path = ""

    @property
    def reason(self) -> str:
        """Why, without the path."""
        return self._reason if isinstance(self._reason, str) else self._reason()

    def within(self, step: str) -> None:
        """Record one container around the value."""
        self.path = step + self.path

    def again(self) -> Misfit:
        """The same misfit of the same value, to go up another way."""
        copy = Misfit(self._reason)
        copy.path = self.path
        return copy

    def named(self, name: str) -> CallError:
        """The error to raise for the value of `name`."""
        return CallError(f"{name}{self.path} {self.reason}")

    def __str__(self) -> str:
        return f"value{self.path} {self.reason}"


class Walk:
    """What is known of one payload while objects are made of it: how much was tried, and what.

    In a union of classes with the same fields, each member is tried at each level. What was made of
    a value once is kept, so that this takes time in proportion to the payload and not to a power.
    """

    __slots__ = ("_left", "_made", "trying")

    def __init__(self) -> None:
        self._left = _MOST_STEPS
        self._made: dict[tuple[int, int], Any] = {}
        self.trying = 0

    def step(self, count: int = 1) -> None:
        """Count values that are made, or tried; raises `CallError` when it is too many."""
        self._left -= count
        if self._left < 0:
            raise CallError(
                f"the values take more than {_MOST_STEPS:,} attempts to be made what the "
                "annotations promise; give the classes of a union different fields, or a "
                "discriminator, or pass objects of these classes instead of dictionaries"
            )

    def once(self, make: Callable[[Walk, Any], Any], value: Any) -> Any:
        """What `make` makes of a value, which lives as long as this walk."""
        key = (id(make), id(value))
        known = self._made.get(key)
        if known is None:
            try:
                known = (make(self, value),)
            except Misfit as misfit:
                known = misfit.again()
                self._made[key] = known
                raise
            self._made[key] = known
        if isinstance(known, Misfit):
            raise known.again()
        return known[0]


def shortly(value: Any) -> str:
    """A value in a few words."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


def cause(error: Exception) -> str:
    """What a constructor said, in one line; what a model says, field by field."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return f"{type(error).__name__}: {error}"[:300]
    faults = cast("list[dict[str, Any]]", listed())
    texts = [
        f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg', '')}".removeprefix(": ")
        for fault in faults[:3]
    ]
    return "; ".join(texts) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
