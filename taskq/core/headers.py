"""Headers of jobs: texts beside the arguments, and how much of them travels."""

from __future__ import annotations

from typing import Any, Final, cast

from taskq.core.errors import ConfigError

__all__ = ["MOST_HEADERS", "check_headers"]

MOST_HEADERS: Final = 1024
_MOST_BYTES: Final = 512 * 1024
"""With the largest arguments, an envelope stays below what is read of one."""


def check_headers(name: str, value: Any) -> dict[str, str]:
    """A copy of `value` if it can travel as headers; raises `ConfigError`."""
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={value!r}: type a dict of strings")
    given = cast("dict[Any, Any]", value)
    if len(given) > MOST_HEADERS:
        raise ConfigError(f"{name} has {len(given):,} entries; at most {MOST_HEADERS:,} travel")
    size = sum(_size(name, key, text) for key, text in given.items())
    if size > _MOST_BYTES:
        raise ConfigError(
            f"{name} has {size:,} bytes; at most {_MOST_BYTES:,} travel: pass what is large as an "
            "argument, or store it and pass its key"
        )
    return dict(given)


def _size(name: str, key: Any, text: Any) -> int:
    if not isinstance(key, str) or not isinstance(text, str):
        raise ConfigError(f"{name}[{key!r}]={text!r}: headers are strings")
    try:
        return len(key.encode()) + len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name}[{key!r}] is text that is not valid Unicode (half a surrogate pair at index "
            f"{error.start}): headers travel as UTF-8"
        ) from error
