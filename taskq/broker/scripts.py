"""The Lua scripts: one file per operation, put together and hashed once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

__all__ = ["Script", "script"]

_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script's name, whole text, and the SHA-1 by which the server knows it."""

    name: str
    text: str
    sha: str


@lru_cache
def script(name: str) -> Script:
    """Load `lua/<name>.lua` with its includes.

    A file missing from the installation is an error of the packaging, not of the user.
    """
    folder = resources.files("taskq.broker") / "lua"
    source = (folder / f"{name}.lua").read_text("utf-8")

    def included(match: re.Match[str]) -> str:
        return (folder / "include" / f"{match.group(1)}.lua").read_text("utf-8")

    text = _COMMENT.sub("", _INCLUDE.sub(included, source))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
