"""Text of others as terminals and logs can take it: what would move the cursor becomes escapes.

Names, errors and reasons come from the server and from tasks. A line feed in one of them would
forge a line of the log, and a terminal would obey an escape sequence.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["indented", "json_printable", "printable"]

# Controls, half surrogate pairs, which cannot be written, and what changes the direction of a text.
_CONTROLS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, lines: bool = False) -> str:
    r"""`text` with its control characters as escapes; with `lines` line feeds stay.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return _CONTROLS.sub(_kept if lines else _escaped, text)


def indented(text: str) -> str:
    """The same with `lines`, where no line but the first can be taken for the first of another."""
    return printable(text, lines=True).replace("\n", "\n  ")


def json_printable(text: str) -> str:
    """JSON with the controls it allows in its strings as the escapes it has for them."""
    return _CONTROLS.sub(_in_json, text)


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()


def _kept(found: re.Match[str]) -> str:
    return found[0] if found[0] in "\n\t" else _escaped(found)


def _in_json(found: re.Match[str]) -> str:
    # Between its strings there are line feeds, and no other control.
    return found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}"
