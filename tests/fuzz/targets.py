"""Everything that reads bytes somebody else may have written, and what each may raise."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgpack
from pydantic import BaseModel, PrivateAttr

from taskq.broker.consumer import handed_over
from taskq.broker.jobs import read_job
from taskq.codec.envelope import pack_envelope, pack_failure, unpack_envelope, unpack_failure
from taskq.codec.payload import decode_call, decode_value, encode_call, encode_value
from taskq.codec.rebuild import CallRebuilder
from taskq.codec.secret import Secret
from taskq.codec.signing import Signing
from taskq.core.errors import CallError, DecodeError, PayloadError
from taskq.core.outcome import Failed
from taskq.core.retry import Retry
from taskq.execution.executors.frames import pack_frame, unpack_frame
from taskq.ops.descriptions import read_description
from taskq.redis.connection import Connection
from taskq.schedules.spec import Spec

__all__ = ["TARGETS", "Target", "check", "seeds"]


@dataclass(frozen=True)
class Target:
    """A reader of bytes; anything it raises that is not in `refuses` is a bug."""

    read: Callable[[bytes], Any]
    refuses: tuple[type[Exception], ...] = ()


def check(name: str, data: bytes) -> None:
    """Give bytes to a reader; fails with what to do when it raises what it must not."""
    target = TARGETS[name]
    try:
        target.read(data)
    except target.refuses:
        return
    except Exception as error:
        raise AssertionError(
            f"{name} raised {error!r} for {data!r}; mend it, and keep these bytes as a file in "
            f"tests/corpus/{name}/"
        ) from error


def _record(data: bytes) -> Any:
    """A job's hash: its fields and values one after another, each with its length."""
    fields: dict[bytes, bytes] = {}
    while data:
        name, size = data[:1], int.from_bytes(data[1:3], "big")
        if name == b"h":
            name = b"h7"
        fields[name], data = data[3 : 3 + size], data[3 + size :]
    return read_job("id", fields, Signing("shop", ["k" * 32]), 0)


def _replies(data: bytes) -> None:
    """What a server sends, in two pieces; the connection ends or waits, and never raises."""
    if any(mark + b"9" in data for mark in (b"*", b"%", b"~", b">")) or b"00000" in data:
        return  # a count that asks for all memory: whoever sends that is the server itself

    async def receive() -> None:
        connection = Connection(lambda _: None, lambda: None)
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            if not connection.lost:
                connection.data_received(piece)

    asyncio.run(receive())


def _sealed(data: bytes) -> bytes:
    return Signing("shop", ["k" * 32]).open_job("id", "default/5", data)


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    color: Color = Color.RED
    inner: Point | list[Point] | None = None
    seen: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.seen += 1


class Shop(BaseModel):
    name: str
    inner: Shop | Point | dict[Color, Shop] | None = None
    _kept: Color = PrivateAttr(Color.RED)


def called(
    shop: Shop | Point, *points: Point | int, counts: Counter[Color] | None = None,
    by_name: defaultdict[str, list[Shop]] | None = None, **more: tuple[Color, Point],
) -> None:  # fmt: skip
    """What the arguments of this function are made of arrives as bytes of anybody."""


REBUILDER = CallRebuilder.of(called)


def _arguments(data: bytes) -> None:
    assert REBUILDER is not None
    REBUILDER.apply(*decode_call(data))


TARGETS: dict[str, Target] = {
    "call": Target(decode_call, (PayloadError,)),
    "arguments": Target(_arguments, (PayloadError, CallError)),
    "value": Target(decode_value, (PayloadError,)),
    "envelope": Target(unpack_envelope, (DecodeError,)),
    "failure": Target(unpack_failure),
    "sealed": Target(_sealed, (PayloadError,)),
    "handover": Target(handed_over, (DecodeError,)),
    "record": Target(_record),
    "description": Target(read_description),
    "schedule": Target(Spec.unpack, (DecodeError,)),
    "frame": Target(unpack_frame, (ValueError,)),
    "replies": Target(_replies),
}


def seeds() -> dict[str, list[bytes]]:
    """For each target bytes as taskq writes them, to be damaged."""
    shop = Shop(name="a", inner=Point(1, inner=[Point(2)]))
    arguments = encode_call(
        (shop, Point(1), 5),
        {"counts": Counter({Color.RED: 1}), "by_name": {"a": [shop]}, "b": (Color.RED, Point(1))},
    )
    call = encode_call(("a.png", 7), {"width": {1, 2}, "token": Secret("s"), "at": (1.5, None)})
    retry = Retry(max_attempts=3, backoff=1.0)
    envelope = pack_envelope("app.task", call, timeout=5.0, retry=retry, headers={"by": "me"})
    failure = pack_failure(Failed("ValueError", "no", "Traceback ...", "error"))
    attempt = msgpack.packb([b"1", 2, b"w1", b"error\nno"])
    fields = {
        b"e": envelope, b"s": b"f", b"q": b"default/5", b"a": b"2", b"c": b"1", b"k": b"0",
        b"t": b"1700000000000", b"p": b"\x93\x01\x02\xa0", b"h": attempt, b"E": failure,
        b"r": encode_value([1]), b"w": b"w1",
    }  # fmt: skip
    record = b"".join(n + len(v).to_bytes(2, "big") + v for n, v in fields.items())
    row = [b"id", b"default/5", b"1-0", b"1", envelope, b"1700000000000", b"1", b"0", b"0"]
    described = {"host": "h", "pid": 7, "queues": ["default"], "started_at": 1.5, "rss": 9}
    return {
        "call": [call, arguments],
        "arguments": [arguments, encode_call(({"name": "a", "inner": {"x": 1}},), {})],
        "value": [encode_value({"rows": [1, "two", b"three", 2**70]})],
        "envelope": [envelope, pack_envelope("t", call)],
        "failure": [failure],
        "sealed": [Signing("shop", ["k" * 32]).seal_job("id", "default/5", envelope)],
        "handover": [msgpack.packb(row), msgpack.packb(row[:6])],
        "record": [record],
        "description": [msgpack.packb(described)],
        "schedule": [msgpack.packb([1, {"task": "t", "trigger": [1, "every", {"seconds": 5}]}])],
        "frame": [pack_frame({"call": ["m", "f"], "payload": call, "context": {}})[4:]],
        "replies": [
            b"*2\r\n$2\r\nok\r\n:1\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\nwork\r\n",
        ],
    }
