"""What workers and other processes say of themselves, as far as it can be believed."""

from __future__ import annotations

from typing import Any, Final, cast

import msgpack

__all__ = ["read_description"]

_MOST_BYTES: Final = 65_536
_PLAIN: Final = (str, int, float)


def read_description(data: bytes | None) -> dict[str, Any]:
    """A description as a dictionary; of another version, or of nobody, what fits in.

    Counts are whole numbers, `started_at` and `oldest` are numbers, `queues` is a list of text,
    `stopping` is true or false.
    """
    try:
        if not data or len(data) > _MOST_BYTES:
            return {}
        told: object = msgpack.unpackb(data, max_array_len=1024, max_map_len=64)
    except Exception:  # msgpack documents that any may come
        return {}
    if not isinstance(told, dict):
        return {}
    items = cast("dict[Any, Any]", told).items()
    return {name: value for name, value in items if type(name) is str and _fits(name, value)}


def _fits(name: str, value: Any) -> bool:
    if name == "host":
        return type(value) is str
    if name == "stopping":
        return type(value) is bool
    if name == "queues":
        return type(value) is list and all(type(item) is str for item in cast("list[Any]", value))
    if name in ("started_at", "oldest"):
        return type(value) in (int, float) and 0 <= value < 1e11
    return type(value) is int
