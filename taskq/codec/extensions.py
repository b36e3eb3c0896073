"""The types that msgpack lacks: one extension code each, encoder and decoder.

=====  ==========  ==========================================================================
code   type        body
=====  ==========  ==========================================================================
1      int         over 64 bits: signed, big-endian
2      tuple       a msgpack array of its items
3      set         a msgpack array of its members
4      frozenset   a msgpack array of its members
5      datetime    year u16, month, day, hour, minute, second u8, microsecond u32, marks u8, zone
6      date        year u16, month, day u8
7      time        hour, minute, second u8, microsecond u32, marks u8, zone
8      timedelta   days i32, seconds u32, microseconds u32
9      Decimal     its text
10     UUID        16 bytes
11     Secret      a msgpack array of its one value
12     Record      a msgpack array: a class's name, the names of its unset fields (separated by
                   spaces), then the fields of an object, name and value in turn
=====  ==========  ==========================================================================

Marks: bit 0 is the fold, bits 1 and 2 say what the zone is: none (0), an offset from UTC in
microseconds as i64, empty for UTC itself (1), or an IANA name (2). Codes and bodies are part of the
wire format: one version reads jobs that another wrote, so a body never changes; a new format gets a
new code. Bodies of 2, 3, 4, 11 and 12 start with the header of an array: the check of limits relies
on it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack

from taskq.codec.secret import Secret

__all__ = [
    "ARRAY_CODES",
    "AS_IS",
    "MAX_INT_BITS",
    "SCALAR_EXTENSIONS",
    "Record",
    "array_extension",
    "holds_array",
    "holds_secret",
    "pack",
    "unpack",
]

#: What msgpack itself carries, byte for byte.
AS_IS: frozenset[type] = frozenset({type(None), bool, int, float, str, bytes, bytearray})

MAX_INT_BITS = 4096

_BIG_INT, _TUPLE, _SET, _FROZENSET, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID = range(
    1, 11
)
_SECRET, _RECORD = 11, 12
_DATETIME_BODY = struct.Struct(">HBBBBBIB")
_DATE_BODY = struct.Struct(">HBB")
_TIME_BODY = struct.Struct(">BBBIB")
_TIMEDELTA_BODY = struct.Struct(">iII")
_OFFSET_BODY = struct.Struct(">q")

#: The extensions whose body is an array of values.
ARRAY_CODES = frozenset({_TUPLE, _SET, _FROZENSET, _SECRET, _RECORD})

_MICROSECOND = timedelta(microseconds=1)
_NO_ZONE, _OFFSET, _NAME = 0, 1, 2

_HARMLESS_BYTES = 4096
"""Payloads up to this size are too small for hash collisions to matter."""
_MOST_COLLISIONS = 32

_Hook = Callable[[int, bytes], Any]

_msgpack = cast("Any", msgpack)  # it has no type hints
_Packer: Callable[..., Any] = _msgpack.Packer
_Unpacker: Callable[..., Any] = _msgpack.Unpacker
_unpackb: Callable[..., Any] = _msgpack.unpackb
_ExtType: Callable[[int, bytes], Any] = _msgpack.ExtType


class Record(dict[str, Any]):
    """The state of an object that was sent, by field. It is not input, so it is never validated.

    Without an annotation that names its class it stays a dictionary. `kind` is the name of the
    class: it tells the members of a union apart and is never used for a lookup. `unset` names the
    fields of a model that hold their defaults.
    """

    __slots__ = ("kind", "unset")

    kind: str
    unset: str

    @classmethod
    def of(cls, kind: str, unset: str, fields: Any) -> Record:
        """The state of an object of the class with this name."""
        record = cls(fields)
        record.kind, record.unset = kind, unset
        return record


def pack(value: Any) -> bytes:
    """Pack an encoded value: builtins of exact type, and extensions.

    Each call uses a new packer, which costs 0.1 us: a shared one is neither thread-safe nor
    re-entrant.
    """
    packed: bytes = _Packer(default=_beyond_64_bits, strict_types=True, buf_size=1024).pack(value)
    return packed


def unpack(data: bytes) -> Any:
    """Unpack what `pack` returned; raises whatever msgpack or a constructor raises on bad bytes.

    Timestamps of msgpack, which taskq never writes, become datetimes in UTC: producers in other
    languages have no other way to send one.
    """
    hook = _from_extension if len(data) <= _HARMLESS_BYTES else _CollisionGuard().extension
    return _unpackb(data, ext_hook=hook, strict_map_key=False, timestamp=3)


def array_extension(kind: type, items: list[Any]) -> Any:
    """The extension for a tuple, set, frozenset, secret or record of these encoded items."""
    return _ExtType(_CODE_OF[kind], pack(items))


def _beyond_64_bits(value: Any) -> Any:
    # The packer calls this for integers over 64 bits, and for any type it does not know.
    if type(value) is not int:
        raise TypeError(f"{type(value).__qualname__} was not encoded")
    bits = value.bit_length()
    if bits > MAX_INT_BITS:
        raise OverflowError(f"the integer has {bits} bits")
    return _ExtType(_BIG_INT, value.to_bytes(bits // 8 + 1, "big", signed=True))


def _zone(zone: tzinfo | None, offset: timedelta | None) -> tuple[int, bytes]:
    if isinstance(zone, ZoneInfo) and cast("str | None", zone.key):
        return _NAME, zone.key.encode()
    if offset is None:
        return _NO_ZONE, b""
    return _OFFSET, _OFFSET_BODY.pack(offset // _MICROSECOND) if offset else b""


def _from_zone(kind: int, body: bytes) -> tzinfo | None:
    if kind == _NAME:
        return _named_zone(body)
    if kind == _OFFSET:
        (offset,) = _OFFSET_BODY.unpack(body) if body else (0,)
        return timezone(timedelta(microseconds=offset))
    if kind != _NO_ZONE or body:
        raise ValueError("unknown kind of time zone")
    return None


# `ZoneInfo` itself caches only eight zones: datetimes in many zones would each read a file. There
# are about 600 zones, under three kinds of names.
@lru_cache(maxsize=2048)
def _named_zone(body: bytes) -> tzinfo:
    name = body.decode()
    try:
        return ZoneInfo(name)
    except Exception as error:  # a missing zone, a directory, an invalid path
        raise ValueError(
            f"the time zone {name[:60]!r} is not installed; the package `tzdata` has all of them"
        ) from error


def _datetime(value: datetime) -> Any:
    offset = value.utcoffset()
    if offset is None:
        raise ValueError(
            "is a naive datetime, which does not identify an instant; pass an aware one, such as "
            "`datetime.now(UTC)` or `value.replace(tzinfo=ZoneInfo('Europe/Berlin'))`"
        )
    kind, zone = _zone(value.tzinfo, offset)
    body = _DATETIME_BODY.pack(
        value.year,
        value.month,
        value.day,
        value.hour,
        value.minute,
        value.second,
        value.microsecond,
        value.fold | kind << 1,
    )
    return _ExtType(_DATETIME, body + zone)


def _from_datetime(body: bytes) -> datetime:
    *fields, marks = _DATETIME_BODY.unpack_from(body)
    zone = _from_zone(marks >> 1, body[_DATETIME_BODY.size :])
    if zone is None:
        raise ValueError("the datetime is naive")
    return datetime(*fields, tzinfo=zone, fold=marks & 1)


def _time(value: time) -> Any:
    kind, zone = _zone(value.tzinfo, value.utcoffset())
    if value.tzinfo is not None and kind == _NO_ZONE:
        raise ValueError(
            "is a time in a zone that cannot travel; use a `zoneinfo.ZoneInfo`, a "
            "`datetime.timezone`, or no zone"
        )
    marks = value.fold | kind << 1
    body = _TIME_BODY.pack(value.hour, value.minute, value.second, value.microsecond, marks)
    return _ExtType(_TIME, body + zone)


def _from_time(body: bytes) -> time:
    *fields, marks = _TIME_BODY.unpack_from(body)
    zone = _from_zone(marks >> 1, body[_TIME_BODY.size :])
    return time(*fields, tzinfo=zone, fold=marks & 1)


def _date(value: date) -> Any:
    return _ExtType(_DATE, _DATE_BODY.pack(value.year, value.month, value.day))


def _from_date(body: bytes) -> date:
    return date(*_DATE_BODY.unpack(body))


def _timedelta(value: timedelta) -> Any:
    body = _TIMEDELTA_BODY.pack(value.days, value.seconds, value.microseconds)
    return _ExtType(_TIMEDELTA, body)


def _from_timedelta(body: bytes) -> timedelta:
    return timedelta(*_TIMEDELTA_BODY.unpack(body))


def _decimal(value: Decimal) -> Any:
    return _ExtType(_DECIMAL, Decimal.__str__(value).encode("ascii"))


def _from_decimal(body: bytes) -> Decimal:
    try:
        return Decimal(body.decode("ascii"))
    except InvalidOperation:
        raise ValueError("not a decimal number") from None


def _uuid(value: UUID) -> Any:
    return _ExtType(_UUID, value.bytes)


def _from_uuid(body: bytes) -> UUID:
    return UUID(bytes=body)


def _from_big_int(body: bytes) -> int:
    value = int.from_bytes(body, "big", signed=True)
    if value.bit_length() > MAX_INT_BITS:
        raise ValueError(f"the integer has {value.bit_length()} bits")
    return value


def holds_array(first: int) -> bool:
    """Whether the body of an extension that begins with this byte is an array."""
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


def _items(body: bytes, hook: _Hook) -> list[Any]:
    # An extension directly inside another would recurse without an array in between, which the
    # check of depth does not see: refuse anything but an array before unpacking it.
    if not body or not holds_array(body[0]):
        raise ValueError("an extension does not hold an array")
    # Not `unpackb`: it takes 40 KB of C stack per level of nested tuples, more in all than the
    # stack of a small thread.
    size = len(body)
    unpacker = _Unpacker(
        ext_hook=hook,
        strict_map_key=False,
        timestamp=3,
        read_size=size,
        max_buffer_size=size,
    )
    unpacker.feed(body)
    items: list[Any] = unpacker.unpack()
    if unpacker.tell() != size:
        raise ValueError("an extension holds more than one array")
    return items


def _secret(items: list[Any]) -> Secret[Any]:
    if len(items) != 1:
        raise ValueError(f"a secret holds {len(items)} values")
    return Secret(items[0])


def _record(items: list[Any]) -> Record:
    kind, unset, *flat = items
    names, values = flat[::2], flat[1::2]
    if len(names) != len(values) or not {str}.issuperset(map(type, (kind, unset, *names))):
        raise ValueError("the state of an object is malformed")
    return Record.of(kind, unset, zip(names, values, strict=True))


def holds_secret(data: bytes) -> bool:
    """Whether a payload may hold a secret. False is certain, true is not."""
    return _SECRET in data


def _from_extension(code: int, body: bytes, hook: _Hook | None = None) -> Any:
    collect = _COLLECTORS.get(code)
    if collect is not None:
        return collect(_items(body, hook or _from_extension))
    decoder = _DECODERS.get(code)
    if decoder is None:
        raise ValueError(f"this version of taskq does not know extension {code}")
    return decoder(body)


class _CollisionGuard:
    """Decodes the extensions of one payload, and refuses values that were chosen to collide.

    Building a set or dictionary of values with one hash takes time quadratic in their number, here
    or in a task. Text and bytes are safe, because each process hashes them with its own secret, and
    integers of 64 bits cannot collide often.
    """

    def __init__(self) -> None:
        self._first: dict[int, Any] = {}
        self._others: dict[int, list[Any]] = {}

    def extension(self, code: int, body: bytes) -> Any:
        """The value of an extension."""
        value = _from_extension(code, body, self.extension)
        if code not in _COLLIDING:
            return value
        try:
            hashed = hash(value)
        except TypeError:  # a tuple that holds a list
            return value
        first = self._first.setdefault(hashed, value)
        if first is not value and first != value:
            self._collide(hashed, value)
        return value

    def _collide(self, hashed: int, value: Any) -> None:
        others = self._others.setdefault(hashed, [])
        if value not in others:
            others.append(value)
        if len(others) >= _MOST_COLLISIONS:
            raise ValueError(
                f"more than {_MOST_COLLISIONS} different values have the same hash, as in an attack"
            )


#: The encoder of each type that is neither msgpack's own nor a container.
SCALAR_EXTENSIONS: dict[type, Callable[[Any], Any]] = {
    datetime: _datetime,
    date: _date,
    time: _time,
    timedelta: _timedelta,
    Decimal: _decimal,
    UUID: _uuid,
}
_CODE_OF: dict[type, int] = {
    tuple: _TUPLE,
    set: _SET,
    frozenset: _FROZENSET,
    Secret: _SECRET,
    Record: _RECORD,
}
_DECODERS: dict[int, Callable[[bytes], Any]] = {
    _BIG_INT: _from_big_int,
    _DATETIME: _from_datetime,
    _DATE: _from_date,
    _TIME: _from_time,
    _TIMEDELTA: _from_timedelta,
    _DECIMAL: _from_decimal,
    _UUID: _from_uuid,
}
_COLLECTORS: dict[int, Callable[[list[Any]], Any]] = {
    _TUPLE: tuple,
    _SET: set,
    _FROZENSET: frozenset,
    _SECRET: _secret,
    _RECORD: _record,
}
_COLLIDING = frozenset({_BIG_INT, _TUPLE, _FROZENSET, _DECIMAL, _UUID})
