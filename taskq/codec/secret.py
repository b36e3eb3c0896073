"""Values that are sent but never shown."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, cast

__all__ = ["MASK", "Secret"]

T_co = TypeVar("T_co", covariant=True)

MASK: Final = "********"


class Secret(Generic[T_co]):
    """An argument or result that is sent as it is but shown as `********`.

    It stays out of logs, errors, tracebacks, `Job.info()` and everything else that shows arguments.
    It is masked, not encrypted: anyone who can read the server can read it.

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
