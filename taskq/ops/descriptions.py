"""The self-descriptions of workers and of processes that defer calls, read leniently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import msgpack

from taskq.broker.lenient import text_of, time_of

__all__ = ["DESCRIPTION_MS", "DeferringState", "read_deferring", "read_description"]

DESCRIPTION_MS: Final = 60_000
"""The TTL of a description, as the heartbeat sets it; the rest of it tells its age."""

_MOST_BYTES: Final = 65_536
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

    If it dies, its `durable` calls run elsewhere and the others are lost.
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
    """Read the records of processes that defer calls, at `now` (the server's time in ms)."""
    for name, record in sorted(reply.items()):
        written, _, description = record.partition(b" ")
        silent = max(0.0, (now - (time_of(written) or 0)) / 1000)
        if silent > DESCRIPTION_MS / 1000:
            # The process died; the next one to write a record removes this one.
            continue
        described = read_description(description)
        started = described.get("started_at")
        yield DeferringState(
            name=text_of(name),
            host=str(described.get("host", "")),
            started_at=datetime.fromtimestamp(started, UTC) if started else None,
            oldest=described.get("oldest"),
            silent=silent,
            **{count: int(described.get(count, 0)) for count in _COUNTS},
        )


def read_description(data: bytes | None) -> dict[str, Any]:
    """Read a description; entries that do not fit, as of another version, are left out.

    Counts are whole numbers, `started_at` and `oldest` are numbers, `queues` is a list of text,
    `stopping` is true or false.
    """
    try:
        if not data or len(data) > _MOST_BYTES:
            return {}
        described: object = msgpack.unpackb(data, max_array_len=1024, max_map_len=64)
    except Exception:  # msgpack may raise any exception
        return {}
    if not isinstance(described, dict):
        return {}
    items = cast("dict[Any, Any]", described).items()
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
