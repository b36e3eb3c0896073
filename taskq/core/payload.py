"""Arguments and results as bytes: the only serialiser of what users pass.

A payload is msgpack plus the extensions of `taskq.core.extensions`: a call is the array
``[args, kwargs]``, a result is its value. No name in it is ever imported or called: an enum travels
as its value, a dataclass or a model as the state of its fields, and `taskq.core.rebuild` makes them
again from the annotations of the task.

Whoever can write to the server can write payloads, so a reader judges their size, depth and number
of values before it makes any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from taskq.core.errors import DecodeError, EncodeError, PayloadError, PayloadTooLarge
from taskq.core.extensions import AS_IS, pack, unpack
from taskq.core.lowering import Lowering, Refusal
from taskq.core.payload_limits import PayloadLimits, judge, may_break

__all__ = [
    "PayloadLimits",
    "decode_call",
    "decode_value",
    "encode_call",
    "encode_value",
]


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
    """Write the arguments of a call.

    `check` is given the bytes and the arguments where some of these travel as something plainer.

    Raises `EncodeError` for a value that cannot travel, with its path (``args[0]['sizes'][2]``, or
    ``width[2]`` for a keyword), and `PayloadTooLarge` over `limits`::

        encode_call(("a.png",), {"width": 400})
    """
    if (
        AS_IS.issuperset(map(type, args))
        and (not kwargs or AS_IS.issuperset(map(type, kwargs.values())))
        and len(args) + 2 * len(kwargs) <= limits.max_nodes
    ):
        try:
            data = pack([list(args), kwargs])
        except Exception:  # noqa: S110 - a value out of range: the walk finds and names it
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
    """Read what `encode_call` wrote: positional and keyword arguments.

    Raises `DecodeError` for any other bytes, and `PayloadTooLarge` over `limits` before anything is
    made of them.
    """
    # `[args, kwargs]` itself nests two deep and is three values: they are not the user's.
    frame = _decode(data, limits, frame_depth=2, frame_nodes=3)
    if type(frame) is not list or len(cast("list[Any]", frame)) != 2:
        raise _unreadable(data, "no call: not an array of arguments and keyword arguments")
    args, kwargs = cast("list[Any]", frame)
    if type(args) is not list or type(kwargs) is not dict:
        raise _unreadable(data, "no call: not an array of arguments and keyword arguments")
    for name in cast("dict[Any, Any]", kwargs):
        if type(name) is not str:
            raise _unreadable(data, "a keyword argument whose name is no text")
    return cast("list[Any]", args), cast("dict[str, Any]", kwargs)


def encode_value(value: Any, *, limits: PayloadLimits = _DEFAULT) -> bytes:
    """Write the result of a task.

    Raises `EncodeError` for a value that cannot travel, with its path (``result['rows'][0]``), and
    `PayloadTooLarge` over `limits`::

        encode_value({"width": 400})
    """
    if type(value) in AS_IS:
        try:
            data = pack(value)
        except Exception:  # an integer or a text out of range: the walk finds and names it
            data, _ = _encode(lambda walk: walk.result(value), limits)
    else:
        data, _ = _encode(lambda walk: walk.result(value), limits)
    if len(data) > limits.max_bytes:
        raise _oversized("the result takes", data, limits)
    return data


def decode_value(data: bytes, *, limits: PayloadLimits = _DEFAULT) -> Any:
    """Read what `encode_value` wrote; raises as `decode_call` does."""
    return _decode(data, limits, frame_depth=0, frame_nodes=0)


def _encode(lower: Callable[[Lowering], Any], limits: PayloadLimits) -> tuple[bytes, bool]:
    """The bytes, and whether some values travel as something plainer than they are."""
    walk = Lowering(limits.max_depth, limits.max_nodes)
    try:
        return pack(lower(walk)), walk.altered
    except Refusal as refusal:
        raise refusal.error() from refusal.__cause__
    except Exception as error:
        raise _explain(lower, limits, error) from error


def _explain(
    lower: Callable[[Lowering], Any], limits: PayloadLimits, error: Exception
) -> PayloadError:
    try:
        lower(Lowering(limits.max_depth, limits.max_nodes, careful=True))
    except Refusal as refusal:
        return refusal.error()
    except Exception as again:  # a proxy that raises for whatever is asked of it
        error = again
    return EncodeError(f"the payload cannot be written: {error!r}")


def _decode(data: bytes, limits: PayloadLimits, *, frame_depth: int, frame_nodes: int) -> Any:
    if len(data) > limits.max_bytes:
        raise _oversized("the payload takes", data, limits)
    if may_break(data, limits):
        judge(data, limits, frame_depth=frame_depth, frame_nodes=frame_nodes)
    try:
        return unpack(data)
    except Exception as error:  # msgpack documents that any exception may come
        raise _unreadable(data, str(error) or type(error).__name__) from error


def _oversized(what: str, data: bytes, limits: PayloadLimits) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"{what} {len(data):,} bytes; the limit is {limits.max_bytes:,}: {_ADVICE}"
    )


def _unreadable(data: bytes, reason: str) -> DecodeError:
    # The bytes themselves stay out of the message: they are what users passed.
    return DecodeError(
        f"no payload of taskq, or one of a newer version ({len(data):,} bytes): {reason}"
    )
