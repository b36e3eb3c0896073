"""The frames that an executor and its child process exchange: a length, then a msgpack map.

::

    to the child    {"load": [module, qualname, main_path, main_name], "argv": [...],
                     "levels": {logger: level}}
                    {"call": [module, ...], "payload": bytes, "context": {...}, "soft": seconds}
    from the child  {"ready": true}       the function is imported
                    {"m": message}        what the running job sent over its `ChildLink`
                    {"log": {...}}        a log record, as plain data
                    {"ok": bytes}         the result, serialised
                    {"error": {...}}      the failure, as text

The child answers `load` with `ready` or `error`, and `call` with any number of `m` and then `ok` or
`error`; `log` may come in between. Nothing else is sent, and nothing in a frame is code.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, cast

import msgpack

__all__ = ["FRAME_LIMIT", "HEADER_SIZE", "frame_size", "how_it_ended", "pack_frame", "unpack_frame"]


def how_it_ended(code: int) -> str:
    """An exit code (negative: the signal that killed the process) in words.

    >>> how_it_ended(3)
    'ended with exit code 3'
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (by a user, or by the kernel when memory ran out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


HEADER_SIZE = 4

FRAME_LIMIT = 256 * 1024 * 1024
"""No frame of taskq comes near it; a larger length means that the pipe was written to by others."""


_packb = cast("Callable[..., bytes]", msgpack.packb)
_unpackb = cast("Callable[..., Any]", msgpack.unpackb)


def pack_frame(frame: dict[str, Any]) -> bytes:
    """The bytes of a frame; raises `TypeError` or `ValueError` for values msgpack cannot encode."""
    body = _packb(frame)
    return len(body).to_bytes(HEADER_SIZE, "big") + body


def frame_size(header: bytes) -> int:
    """How many bytes follow this header; raises `ValueError` over `FRAME_LIMIT`."""
    size = int.from_bytes(header, "big")
    if size > FRAME_LIMIT:
        raise ValueError(f"a frame of {size} bytes is over the limit of {FRAME_LIMIT}")
    return size


def unpack_frame(body: bytes) -> dict[str, Any]:
    """The frame in `body`; raises `ValueError` if there is none."""
    try:
        frame = _unpackb(body, strict_map_key=False)
    except Exception as error:  # msgpack may raise any exception
        raise ValueError(f"not a frame: {error}") from error
    if not isinstance(frame, dict):
        raise ValueError("not a frame: it must be a map")
    return cast("dict[str, Any]", frame)
