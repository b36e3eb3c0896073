"""The type of an exception, whatever its class claims: no code of that class runs here.

`isinstance` asks the object for its `__class__` and a class for its `__instancecheck__`, and a
metaclass may have a `__name__` of its own; all of them may raise. `except` asks nobody.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["bases_of", "is_a", "name_of"]

_NAME: Final[Any] = type.__dict__["__name__"]
_BASES: Final[Any] = type.__dict__["__mro__"]


def name_of(kind: type[Any]) -> str:
    """The name of a class.

    >>> name_of(KeyError)
    'KeyError'
    """
    return str.__str__(_NAME.__get__(kind))


def bases_of(kind: type[Any]) -> tuple[type[Any], ...]:
    """A class and its bases, in the order in which they are searched."""
    return _BASES.__get__(kind)


def is_a(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether `except` would catch `error` as one of `kinds`.

    >>> is_a(KeyError("a"), LookupError)
    True
    """
    return any(base is kind for base in bases_of(type(error)) for kind in kinds)
