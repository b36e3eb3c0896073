"""Turns a schedule's hash into `StoredSchedule`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgpack

from taskq.broker.lenient import count_of, text_of, time_of
from taskq.codec.signing import Signing
from taskq.core.errors import UntrustedMessage

__all__ = ["Skip", "StoredSchedule", "read_schedule", "revision_of"]


class Skip(NamedTuple):
    """The last time a schedule skipped fires: when (ms), how many, and why."""

    at: int
    number: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A schedule as it is stored; times in milliseconds.

    `untrusted` says why `spec` is left out: its signature is not valid. `broken`: it is paused
    because its next fire could not be computed, and not because a user paused it.
    """

    id: str
    revision: str
    spec: bytes
    untrusted: str = ""
    next: int | None = None
    last: int | None = None
    paused: str | None = None
    broken: bool = False
    fired: int = 0
    skipped: int = 0
    last_skip: Skip | None = None
    waits: bool = False
    running: tuple[str, ...] = ()
    added: int = 0
    changed: int = 0


def read_schedule(row: Sequence[bytes], signing: Signing) -> StoredSchedule:
    """Read a schedule's hash; `row` is its id, then field, value, ...

    An unreadable field does not hide the others.
    """
    fields = {row[i]: row[i + 1] for i in range(1, len(row) - 1, 2)}
    id = text_of(row[0])
    spec, untrusted = fields.get(b"s", b""), ""
    try:
        spec = signing.open(spec, "schedule", id)
    except UntrustedMessage as error:
        spec, untrusted = b"", str(error)
    return StoredSchedule(
        id=id,
        revision=revision_of(fields.get(b"v", b"")),
        spec=spec,
        untrusted=untrusted,
        next=time_of(fields.get(b"n")),
        last=time_of(fields.get(b"l")) or None,
        paused=text_of(fields[b"p"]) if b"p" in fields else None,
        broken=b"e" in fields,
        fired=count_of(fields.get(b"c")),
        skipped=count_of(fields.get(b"k")),
        last_skip=_skip(fields.get(b"x")),
        waits=b"w" in fields,
        running=tuple(text_of(fields.get(b"j", b"")).split()),
        added=time_of(fields.get(b"a")) or 0,
        changed=time_of(fields.get(b"m")) or 0,
    )


def revision_of(value: bytes) -> str:
    """A revision as text that encodes to the same bytes, also where they are foreign data."""
    return value.decode("latin-1")


def _skip(packed: bytes | None) -> Skip | None:
    try:
        _, at, number, why = msgpack.unpackb(packed) if packed else (0, 0, 0, "")
        skip = Skip(int(at), int(number), str(why))
    except Exception:  # msgpack documents that any may come
        return None
    return skip if skip.number and time_of(b"%d" % skip.at) is not None else None
