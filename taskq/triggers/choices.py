"""Arguments that are one of a few words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from taskq.core.errors import ConfigError
from taskq.core.options import nearest

__all__ = ["one_of"]


def one_of(what: str, value: Any, known: Iterable[str]) -> None:
    """Raises `ConfigError` unless `value` is one of the `known` words."""
    words = list(known)
    if not isinstance(value, str):
        raise ConfigError(f"{what}={value!r}; type one of {', '.join(map(repr, words))}")
    if value not in words:
        raise ConfigError(f"{what}={value!r} is unknown{nearest(value, words)}")
