"""Docstrings as the reference shows them: examples as examples, drawings as drawings.

In the source an example is a doctest and a drawing a literal block (`::`); `help()` shows both
as they are, Markdown would take the first for a quotation.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Docstrings"]

_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1\S.*|\n\1 +\S.*)*", re.MULTILINE)
_LITERAL = re.compile(r"(^|\S)::$", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites each docstring when its object has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with every object."""
        if obj.docstring is not None:
            obj.docstring.value = shown(obj.docstring.value)


def shown(text: str) -> str:
    """The docstring in Markdown.

    >>> print(shown("Add.\\n\\n>>> add(1, 2)\\n3"))
    Add.
    <BLANKLINE>
    ```pycon
    >>> add(1, 2)
    3
    ```
    """
    text = _EXAMPLE.sub(_fenced, text)
    return _LITERAL.sub(lambda found: f"{found[1]}:" if found[1] else "", text)


def _fenced(found: re.Match[str]) -> str:
    indent = found[1]
    lines = [line.removeprefix(indent) for line in found[0].splitlines()]
    return "\n".join(["```pycon", *lines, "```"])
