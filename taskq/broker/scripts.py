"""Loads the Lua scripts, one file per operation, and packs long lists of arguments for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

from taskq.redis.client import Script

__all__ = ["ClockOffset", "group_consecutive", "in_pieces", "script"]


@dataclass(slots=True)
class ClockOffset:
    """Milliseconds that every script adds to the server's clock; 0 outside tests.

    All parts of one TaskQ share one object, so that moving it moves them all.
    """

    ms: int = 0


T = TypeVar("T")


def group_consecutive(items: Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> list[Any]:
    """Pack items of (shared part, own part) as runs: count, shared part, then each own part.

    >>> group_consecutive([(("a", 1), ("x",)), (("a", 1), ("y",)), (("b", 2), ("z",))])
    [2, 'a', 1, 'x', 'y', 1, 'b', 2, 'z']
    """
    flat: list[Any] = []
    shared: tuple[Any, ...] | None = None
    count_at = 0
    for common, own in items:
        if common != shared:
            shared, count_at = common, len(flat)
            flat += (0, *common)
        flat[count_at] += 1
        flat += own
    return flat


def in_pieces(
    items: Iterable[T], size_of: Callable[[T], int], most: int, most_bytes: int
) -> list[tuple[list[T], int]]:
    """Split items into pieces of at most `most` items and `most_bytes`, each with its size.

    A larger item is a piece of its own.

    >>> in_pieces(["a", "bb", "cccc", "d", "e", "f"], len, 2, 3)
    [(['a', 'bb'], 3), (['cccc'], 4), (['d', 'e'], 2), (['f'], 1)]
    """
    pieces: list[tuple[list[T], int]] = []
    piece: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if piece and (len(piece) == most or total + size > most_bytes):
            pieces.append((piece, total))
            piece, total = [], 0
        piece.append(item)
        total += size
    if piece:
        pieces.append((piece, total))
    return pieces


_INCLUDE = re.compile(r"^--@include (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^\s*--.*\n", re.MULTILINE)


_FOLDER: Final = Path(__file__).parent / "lua"

# The module's loader also reads the files beside it, from an archive too. importlib.resources would
# add 5 ms to every import of taskq.
_loader: Final[Any] = __spec__.loader


@lru_cache
def script(name: str) -> Script:
    """Load `lua/<name>.lua` with its includes.

    A missing file is a packaging error.
    """

    def included(match: re.Match[str]) -> str:
        return _read(_FOLDER / "include" / f"{match.group(1)}.lua")

    text = _COMMENT.sub("", _INCLUDE.sub(included, _read(_FOLDER / f"{name}.lua")))
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _read(path: Path) -> str:
    source: bytes = _loader.get_data(str(path))
    return source.decode()
