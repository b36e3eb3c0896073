"""What workers and other processes say of themselves, as far as it can be believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgpack

from taskq.broker.lenient import text_of, time_of

__all__ = ["DESCRIPTION_MS", "DeferringState", "read_deferring", "read_description"]

DESCRIPTION_MS: Final = 60_000
"""How long a description lives, as `beat.lua` sets it: what is left tells how old it is."""

_MOST_BYTES: Final = 65_536
_PLAIN: Final = (str, int, float)
_COUNTS: Final = (
    "pid",
    "running",
    "waiting",
    "scheduled",
    "durable",
    "succeeded",
    "failed",
    "spilled",
    "lost",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferringState:
    """A process that defers calls, as it described itself `silent` seconds ago.

    `durable` ones of its calls run elsewhere if it dies; the others are lost then.
    """

    name: str
    host: str = ""
    pid: int = 0
    running: int = 0
    waiting: int = 0
    scheduled: int = 0
    durable: int = 0
    oldest: float | None = None
    succeeded: int = 0
    failed: int = 0
    spilled: int = 0
    lost: int = 0
    started_at: datetime | None = None
    silent: float = 0.0


def read_deferring(reply: Mapping[bytes, bytes], now: int) -> Iterable[DeferringState]:
    """What each process defers, from its records at `now` (the server's time in ms)."""
    for name, record in sorted(reply.items()):
        written, _, description = record.partition(b" ")
        silent = max(0.0, (now - (time_of(written) or 0)) / 1000)
        if silent > DESCRIPTION_MS / 1000:
            # It did not say goodbye, and whoever comes next takes its record away.
            continue
        told = read_description(description)
        started = told.get("started_at")
        yield DeferringState(
            name=text_of(name),
            host=str(told.get("host", "")),
            started_at=datetime.fromtimestamp(started, UTC) if started else None,
            oldest=told.get("oldest"),
            silent=silent,
            **{count: int(told.get(count, 0)) for count in _COUNTS},
        )


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
