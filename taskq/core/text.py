"""Text that is sent or stored: check what users pass, and shorten what errors contain."""

from __future__ import annotations

import re
from typing import Any, Final, cast

from taskq.core.errors import ConfigError

__all__ = [
    "CONTROLS",
    "MOST_TEXTS",
    "check_text",
    "check_texts",
    "counted",
    "cut",
    "fitting",
    "install_command",
]


def counted(count: int, one: str, many: str) -> str:
    """A count with the matching singular or plural.

    >>> counted(1, "job waits", "jobs wait"), counted(1200, "job waits", "jobs wait")
    ('1 job waits', '1,200 jobs wait')
    """
    return f"{count:,} {one if count == 1 else many}"


CONTROLS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters, half surrogate pairs, and characters that change the direction of text."""

MOST_TEXTS: Final = 1024
_MOST_BYTES: Final = 512 * 1024
"""With these and the largest arguments, an envelope stays below its limit."""


def check_text(name: str, value: Any, most: int = 1000) -> str:
    """`value` if it is valid text of at most `most` characters.

    Raises `ConfigError`.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{name}={value!r} is not text; use a string")
    if len(value) > most:
        raise ConfigError(f"{name} has {len(value):,} characters; use at most {most:,}")
    _size(name, value)
    return value


def check_texts(name: str, value: Any) -> dict[str, str]:
    """A copy of `value` if it is a valid dict of texts; raises `ConfigError`."""
    if not isinstance(value, dict):
        raise ConfigError(f"{name}={value!r}: use a dict of strings")
    given = cast("dict[Any, Any]", value)
    if len(given) > MOST_TEXTS:
        raise ConfigError(f"{name} has {len(given):,} entries; use at most {MOST_TEXTS:,}")
    for key, text in given.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise ConfigError(f"{name}[{key!r}]={text!r}: use strings as keys and values")
    size = sum(_size(f"{name}[{key!r}]", word) for key in given for word in (key, given[key]))
    if size > _MOST_BYTES:
        raise ConfigError(
            f"{name} has {size:,} bytes; use at most {_MOST_BYTES:,}: pass large values as an "
            "argument, or store them and pass their key"
        )
    return dict(given)


def _size(name: str, text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} is not valid Unicode (half a surrogate pair at index {error.start}), so it "
            "cannot be encoded as UTF-8"
        ) from error


def fitting(text: str, most: int) -> str:
    """`text` in a form that can be stored: of bounded length, and valid Unicode."""
    return cut(text, most).encode("utf-8", "backslashreplace").decode()


def cut(text: str, most: int) -> str:
    """`text` with its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = (most - 40) // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"


def install_command(extra: str) -> str:
    """The command that installs an extra, for an error message.

    >>> install_command("embedded")
    'pip install ".[embedded]" (in a checkout of taskq)'
    """
    # In one place: it changes with the first release.
    return f'pip install ".[{extra}]" (in a checkout of taskq)'
