"""The Lua scripts: one file per operation, put together and hashed once."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

__all__ = ["Script", "script"]

_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


_FOLDER: Final = Path(__file__).parent / "lua"

# What brought this module brings the files beside it, from an archive too. Not importlib.resources:
# it costs every program that imports taskq 5 ms.
_loader: Final[Any] = __spec__.loader


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

    def included(match: re.Match[str]) -> str:
        return _read(_FOLDER / "include" / f"{match.group(1)}.lua")

    text = _COMMENT.sub("", _INCLUDE.sub(included, _read(_FOLDER / f"{name}.lua")))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(path: Path) -> str:
    source: bytes = _loader.get_data(str(path))
    return source.decode()
