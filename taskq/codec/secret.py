"""Values that travel and are not shown."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, cast

__all__ = ["MASK", "Secret"]

T_co = TypeVar("T_co", covariant=True)

MASK: Final = "********"


class Secret(Generic[T_co]):
    """An argument or result that travels as its value and is shown as `********`.

    So it stays out of logs, errors, tracebacks, `Job.info()` and whatever else shows arguments. It
    is masked, not encrypted: whoever can read the server can read it.

    >>> token = Secret("hunter2")
    >>> token
    Secret('********')
    >>> token.reveal()
    'hunter2'
    """

    __slots__ = ("__value",)

    def __init__(self, value: T_co) -> None:
        self.__value = value

    def reveal(self) -> T_co:
        """The value itself."""
        return self.__value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return bool(self.__value == cast("Secret[Any]", other).reveal())

    def __hash__(self) -> int:
        return hash((Secret, self.__value))
