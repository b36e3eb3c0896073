"""One connection to the server: RESP3, pipelined, shared by every caller of its event loop.

hiredis packs and parses; this file keeps the order. A call is written at once and its reply
resolves a future, so that any number of callers share one socket and one round trip. The server's
pushes (pub/sub) come in between and go to `on_push`.

Replies come in the order of the calls: that is the one invariant here. Each call leaves in the line
who is to be told its reply; a caller that stops waiting is told all the same, and it is dropped.
A subscription is answered by a push, its confirmation, or in its place by an error. So a push
counts as a reply only while the call in front asked for exactly that one: servers confirm some
unasked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, cast

import hiredis

__all__ = ["Connection", "ConnectionLost", "Reply", "Told"]

Reply = Any

Told = Callable[[Reply], None]
"""Takes a reply; an error reply, or `ConnectionLost`, as a value."""

_log = logging.getLogger("taskq.broker")

_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]
_PARTIAL: Final = object()


class ConnectionLost(ConnectionError):
    """The connection ended; what was sent and not answered may or may not have been done."""


class _Confirmed:
    """The place of a subscription in the line: told an error in its turn, or its confirmation."""

    def __init__(self, future: asyncio.Future[Reply], verb: str, channel: bytes) -> None:
        self._future = future
        self._confirmation = [verb.lower().encode(), channel]

    def __call__(self, reply: Reply) -> None:
        _resolve(self._future, reply)

    def is_confirmed_by(self, push: list[Any]) -> bool:
        return push[:2] == self._confirmation


class Connection(asyncio.Protocol):
    """A connected socket. `call` sends one command and returns the future of its reply.

    `send` sends one whose reply is given to a function there and then.

    An error reply resolves the future with a `hiredis.ReplyError`, as a value: the caller looks.
    `on_push` takes what the server says unasked; it raises `ConnectionLost` to end the connection.
    `sent` counts bytes; `dropped` tells that the other end closed it and owed replies.
    """

    def __init__(self, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=ConnectionLost, replyError=hiredis.ReplyError, notEnoughData=_PARTIAL
        )
        self._waiting: deque[tuple[Told, float]] = deque()
        self._transport: asyncio.Transport | None = None
        self.heard_at = self._loop.time()
        self.sent = 0
        self.lost = self.dropped = False

    def call(self, *command: Any) -> asyncio.Future[Reply]:
        """Send `command`; its reply's future fails with `ConnectionLost` when the line dies."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.send(partial(_resolve, future), *command)
        return future

    def subscribe(
        self, channel: bytes, verb: Literal["SUBSCRIBE", "UNSUBSCRIBE"] = "SUBSCRIBE"
    ) -> asyncio.Future[Reply]:
        """Begin or end to hear `channel`; the future is as that of `call`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.send(_Confirmed(future, verb, channel), verb, channel)
        return future

    def send(self, told: Told, *command: Any) -> None:
        """Send `command`; `told` is called with its reply as soon as that is read."""
        if self._transport is None or self.lost:
            told(ConnectionLost("the connection is closed"))
            return
        # Before it stands in the line: what cannot be written would take the reply to another.
        packed = _pack(command)
        self._waiting.append((told, self._loop.time()))
        self.sent += len(packed)
        self._transport.write(packed)

    @property
    def owed_since(self) -> float:
        """When the oldest call was made that is not answered; now when there is none."""
        return self._waiting[0][1] if self._waiting else self._loop.time()

    def oldest_wait(self) -> float:
        """Seconds since anything was heard while a reply is owed; 0 when none is owed."""
        if not self._waiting:
            return 0.0
        now = self._loop.time()
        return min(now - self._waiting[0][1], now - self.heard_at)

    def abort(self) -> None:
        """Close without waiting; every owed reply fails with `ConnectionLost`."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance(): uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        self._reader.feed(data)
        while True:
            try:
                reply = self._reader.gets()
                if reply is _PARTIAL:
                    return
                if isinstance(reply, hiredis.PushNotification):
                    self._push(list(reply))
                elif self._waiting:
                    self._tell(reply)
            except ConnectionLost:
                self.abort()
                return

    def _push(self, message: list[Any]) -> None:
        first = self._waiting[0][0] if self._waiting else None
        if isinstance(first, _Confirmed) and first.is_confirmed_by(message):
            self._tell(message)
        else:
            self._on_push(message)

    def connection_lost(self, exc: Exception | None) -> None:
        self.dropped = bool(self._waiting)
        self._end()

    def _end(self) -> None:
        if self.lost:
            return
        self.lost = True
        while self._waiting:
            self._tell(ConnectionLost("the server closed the connection"))
        self._on_lost()

    def _tell(self, reply: Reply) -> None:
        told, _ = self._waiting.popleft()
        try:
            told(reply)
        except Exception:
            # It costs one reply, not the connection of everybody.
            _log.exception("a reply could not be taken, which is an error of taskq")


def _resolve(future: asyncio.Future[Reply], reply: Reply) -> None:
    if future.done():
        return
    if isinstance(reply, ConnectionLost):
        future.set_exception(reply)
    else:
        future.set_result(reply)
