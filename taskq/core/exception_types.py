"""The real type of an exception, found without running any code of its class.

`isinstance` uses the object's `__class__` and the class's `__instancecheck__`, and a metaclass may
define `__name__`: all of them may lie or raise. Like `except`, these functions use none of them.
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
    """A class and its bases, in method resolution order."""
    return _BASES.__get__(kind)


def is_a(error: BaseException, *kinds: type[BaseException]) -> bool:
    """Whether `except` would catch `error` as one of `kinds`.

    >>> is_a(KeyError("a"), LookupError)
    True
    """
    return any(base is kind for base in bases_of(type(error)) for kind in kinds)
