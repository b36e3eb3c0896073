"""Arguments and results as bytes: the only serialiser of user values.

A payload is msgpack plus the extensions of `taskq.codec.extensions`: a call is the array
``[args, kwargs]``, a result is its value. No name in it is ever imported or called: an enum travels
as its value, a dataclass or a model as the state of its fields, and `taskq.codec.rebuild` rebuilds
them from the annotations of the task.

Anyone with write access to the server can write payloads, so the size, the depth and the number of
values are checked on the raw bytes, before any value is created.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from taskq.codec.encode import Encoder
from taskq.codec.extensions import ARRAY_CODES, AS_IS, holds_array, pack, unpack
from taskq.codec.unencodable import UnencodableValue
from taskq.core.errors import DecodeError, EncodeError, PayloadError, PayloadTooLarge

__all__ = [
    "PayloadLimits",
    "check_limits",
    "check_record",
    "decode_call",
    "decode_value",
    "encode_call",
    "encode_value",
    "may_exceed",
]


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """Limits of one payload.

    `max_bytes` (default 1 MiB) limits the size on the wire, `max_depth` (default 32) how deep
    lists, dictionaries, tuples and sets may nest, `max_nodes` (default 100,000) the number of
    values, containers and keys of dictionaries included.
    """

    max_bytes: int = 1_048_576
    max_depth: int = 32
    max_nodes: int = 100_000


# The headers of arrays and maps. Nesting needs one per level, so a payload with few of these bytes,
# wherever they are, cannot be deep: most payloads need no walk.
_OPENERS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
_NO_OPENERS = bytes(set(range(256)) - set(_OPENERS))


def may_exceed(data: bytes, limits: PayloadLimits) -> bool:
    """Whether `data`, which is within `max_bytes`, might exceed another limit.

    A value takes at least one byte and a level one header, so a small payload cannot.
    """
    if len(data) > limits.max_nodes:
        return True
    if len(data) <= limits.max_depth:
        return False
    return len(data.translate(None, _NO_OPENERS)) > limits.max_depth


def check_record(data: bytes, *, most_bytes: int, most_values: int) -> None:
    """Refuse bytes that cannot be one of taskq's own records, which are flat and hold few values.

    A value takes at least one byte, so short records need no walk. Raises `PayloadError`.
    """
    if len(data) > most_bytes:
        raise DecodeError(f"{len(data):,} bytes; at most {most_bytes:,} are read")
    if len(data) > most_values:
        limits = PayloadLimits(most_bytes, max_nodes=most_values)
        check_limits(data, limits, frame_depth=0, frame_nodes=0)


def check_limits(data: bytes, limits: PayloadLimits, *, frame_depth: int, frame_nodes: int) -> None:
    """Check `limits` on the headers in `data`, without creating a value.

    The frame is what surrounds the user's values. Raises `PayloadTooLarge` at the first value over
    `limits`, and `DecodeError` for a container longer than the payload: the decoder would read on
    into unchecked bytes. Other faults are left to the decoder, which stops where this walk stops.
    """
    max_depth = limits.max_depth + frame_depth
    max_nodes = limits.max_nodes + frame_nodes
    position, nodes, end = 0, 1, len(data)
    # How many values remain in this container, and in the enclosing ones.
    left, outer = 1, list[int]()
    try:
        while True:
            while not left:
                left = outer.pop()
            left -= 1
            first = data[position]
            size = _BODY_SIZES[first]
            if size >= 0:
                position += 1 + size
                continue
            position, children = _step(data, position, first)
            if children < 0:
                left += children == _AGAIN
                continue
            outer.append(left)
            left = children
            nodes += children
            if len(outer) > max_depth or nodes > max_nodes or children > end - position:
                raise _violation(len(outer) > max_depth, nodes - max_nodes, limits)
    except IndexError:
        # All values were seen, or the payload ends early, which the decoder reports.
        return


def _violation(deep: bool, over: int, limits: PayloadLimits) -> PayloadError:
    if deep:
        return PayloadTooLarge(
            f"the payload nests {limits.max_depth + 1} containers deep or more; the limit is "
            f"{limits.max_depth}: flatten it"
        )
    if over > 0:
        return PayloadTooLarge(
            f"the payload holds {limits.max_nodes + over:,} values or more; the limit is "
            f"{limits.max_nodes:,}: store the data elsewhere and pass its key"
        )
    return DecodeError("the payload ends inside a container")


#: In place of a number of children: not a container, and an extension whose array comes next.
_NONE, _AGAIN = -1, -2


def _step(data: bytes, position: int, first: int) -> tuple[int, int]:
    """Where the value after this header begins, and how many children the container has."""
    if first < 0xA0:
        return position + 1, first & 0x0F if first >= 0x90 else 2 * (first & 0x0F)
    if first in _FIXED_EXTENSIONS:
        return _extension(data, position + 1, _FIXED_EXTENSIONS[first])
    width = _LENGTH_WIDTHS.get(first)
    if width is None:
        raise IndexError("0xC1 is not a header")
    begin = position + 1 + width
    length = int.from_bytes(data[position + 1 : begin], "big")
    if first in _EXTENSIONS:
        return _extension(data, begin, length)
    if first >= _FIRST_MAP:
        return begin, 2 * length
    if first >= _FIRST_ARRAY:
        return begin, length
    return begin + length, _NONE


def _extension(data: bytes, position: int, length: int) -> tuple[int, int]:
    if data[position] in ARRAY_CODES:
        # An extension directly inside another would add a level that the depth does not count.
        if not holds_array(data[position + 1]):
            raise DecodeError("an extension does not hold an array")
        return position + 1, _AGAIN
    return position + 1 + length, _NONE


def _body_sizes() -> tuple[int, ...]:
    """For each header: how many bytes follow it if the value holds no other, else -1."""
    sizes = [-1] * 256
    for first in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)):
        sizes[first] = 0
    for first in range(0xA0, 0xC0):
        sizes[first] = first - 0xA0
    widths = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    for first, width in {**widths, 0xCA: 4, 0xCB: 8}.items():
        sizes[first] = width
    return tuple(sizes)


_BODY_SIZES = _body_sizes()
#: How many bytes of length follow the header of bytes, extensions, text, arrays and maps.
_LENGTH_WIDTHS = {
    first: width
    for width, headers in {
        1: (0xC4, 0xC7, 0xD9),
        2: (0xC5, 0xC8, 0xDA, 0xDC, 0xDE),
        4: (0xC6, 0xC9, 0xDB, 0xDD, 0xDF),
    }.items()
    for first in headers
}
_EXTENSIONS = frozenset({0xC7, 0xC8, 0xC9})
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_FIRST_ARRAY, _FIRST_MAP = 0xDC, 0xDE


_Check = Callable[[bytes, tuple[Any, ...], dict[str, Any]], None]
_DEFAULT = PayloadLimits()
_ADVICE = "store the data elsewhere (a file, an object store, a table) and pass its key"


def encode_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    limits: PayloadLimits = _DEFAULT,
    check: _Check | None = None,
) -> bytes:
    """Encode the arguments of a call.

    `check` receives the bytes and the arguments if some of these travel as a simpler type.

    Raises `EncodeError` for a value that cannot be encoded, with its path
    (``args[0]['sizes'][2]``, or ``width[2]`` for a keyword), and `PayloadTooLarge` over `limits`::

        encode_call(("a.png",), {"width": 400})
    """
    if (
        AS_IS.issuperset(map(type, args))
        and (not kwargs or AS_IS.issuperset(map(type, kwargs.values())))
        and len(args) + 2 * len(kwargs) <= limits.max_nodes
    ):
        try:
            data = pack([list(args), kwargs])
        except Exception:  # noqa: S110 - a value out of range: the walk below names it
            pass
        else:
            if len(data) <= limits.max_bytes:
                return data
    data, altered = _encode(lambda walk: walk.call(args, kwargs), limits)
    if len(data) > limits.max_bytes:
        raise _oversized("the arguments take", data, limits)
    if altered and check is not None:
        check(data, args, kwargs)
    return data


def decode_call(
    data: bytes, *, limits: PayloadLimits = _DEFAULT
) -> tuple[list[Any], dict[str, Any]]:
    """Decode what `encode_call` returned: positional and keyword arguments.

    Raises `DecodeError` for any other bytes, and `PayloadTooLarge` over `limits` before any value
    is created.
    """
    # `[args, kwargs]` itself nests two deep and counts three values.
    frame = _decode(data, limits, frame_depth=2, frame_nodes=3)
    if type(frame) is not list or len(cast("list[Any]", frame)) != 2:
        raise _unreadable(data, "not an array of arguments and keyword arguments")
    args, kwargs = cast("list[Any]", frame)
    if type(args) is not list or type(kwargs) is not dict:
        raise _unreadable(data, "not an array of arguments and keyword arguments")
    for name in cast("dict[Any, Any]", kwargs):
        if type(name) is not str:
            raise _unreadable(data, "the name of a keyword argument is not text")
    return cast("list[Any]", args), cast("dict[str, Any]", kwargs)


def encode_value(value: Any, *, limits: PayloadLimits = _DEFAULT) -> bytes:
    """Encode the result of a task.

    Raises `EncodeError` for a value that cannot be encoded, with its path (``result['rows'][0]``),
    and `PayloadTooLarge` over `limits`::

        encode_value({"width": 400})
    """
    if type(value) in AS_IS:
        try:
            data = pack(value)
        except Exception:  # a value out of range: the walk names it
            data, _ = _encode(lambda walk: walk.result(value), limits)
    else:
        data, _ = _encode(lambda walk: walk.result(value), limits)
    if len(data) > limits.max_bytes:
        raise _oversized("the result takes", data, limits)
    return data


def decode_value(data: bytes, *, limits: PayloadLimits = _DEFAULT) -> Any:
    """Decode what `encode_value` returned; raises as `decode_call` does."""
    return _decode(data, limits, frame_depth=0, frame_nodes=0)


def _encode(encode: Callable[[Encoder], Any], limits: PayloadLimits) -> tuple[bytes, bool]:
    """The bytes, and whether some values travel as a simpler type."""
    walk = Encoder(limits.max_depth, limits.max_nodes)
    try:
        return pack(encode(walk)), walk.altered
    except UnencodableValue as unencodable:
        raise unencodable.error() from unencodable.__cause__
    except Exception as error:
        raise _explain(encode, limits, error) from error


def _explain(
    encode: Callable[[Encoder], Any], limits: PayloadLimits, error: Exception
) -> PayloadError:
    try:
        encode(Encoder(limits.max_depth, limits.max_nodes, careful=True))
    except UnencodableValue as unencodable:
        return unencodable.error()
    except Exception as again:  # a proxy may raise for any attribute
        error = again
    return EncodeError(f"the payload cannot be encoded: {error!r}")


def _decode(data: bytes, limits: PayloadLimits, *, frame_depth: int, frame_nodes: int) -> Any:
    if len(data) > limits.max_bytes:
        raise _oversized("the payload takes", data, limits)
    if may_exceed(data, limits):
        check_limits(data, limits, frame_depth=frame_depth, frame_nodes=frame_nodes)
    try:
        return unpack(data)
    except Exception as error:  # msgpack documents that it may raise anything
        raise _unreadable(data, str(error) or type(error).__name__) from error


def _oversized(what: str, data: bytes, limits: PayloadLimits) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what} {len(data):,} bytes; the limit is {limits.max_bytes:,}: {_ADVICE}"
    )


def _unreadable(data: bytes, reason: str) -> DecodeError:
    # Never show the bytes: they hold user data.
    return DecodeError(
        f"not a taskq payload, or one of a newer version ({len(data):,} bytes): {reason}"
    )
