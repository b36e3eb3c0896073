"""How many things are said to a script: in pieces of bounded size, and in runs of what is alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["MESSAGE_BYTES", "in_pieces", "in_runs"]

MESSAGE_BYTES = 4_194_304
"""No request and no reply has more, unless it is about a single job that is larger.

As `lua/include/bytes.lua`: a server ends the connection of a listener that has 32 MiB unread.
"""

T = TypeVar("T")


def in_runs(items: Iterable[tuple[tuple[Any, ...], tuple[Any, ...]]]) -> list[Any]:
    """Items of (shared part, own part) as runs: how many, what they share, then each one's own.

    >>> in_runs([(("a", 1), ("x",)), (("a", 1), ("y",)), (("b", 2), ("z",))])
    [2, 'a', 1, 'x', 'y', 1, 'b', 2, 'z']
    """
    said: list[Any] = []
    alike: tuple[Any, ...] | None = None
    count_at = 0
    for common, own in items:
        if common != alike:
            alike, count_at = common, len(said)
            said += (0, *common)
        said[count_at] += 1
        said += own
    return said


def in_pieces(
    items: Iterable[T], size_of: Callable[[T], int], most: int, most_bytes: int
) -> list[tuple[list[T], int]]:
    """Items in pieces of at most `most` items and `most_bytes`, each with its bytes.

    One that is larger by itself is a piece of its own.

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
