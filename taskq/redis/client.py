"""The client: runs scripts, sends a few commands, subscribes to channels.

A `Client` keeps one connection alive: it connects on first use and again after a loss, waits while
the server loads its data, and renews its subscriptions. It never sends a call again by itself: a
call whose reply is lost raises `ConnectionLost`, and only a caller that knows the call to be
idempotent sends it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import hiredis

from taskq.core.errors import ServerError, ServerUnavailable
from taskq.core.liveness import CONNECT_SECONDS, REPLY_SECONDS
from taskq.core.rng import RNG
from taskq.redis.connection import (
    Connection,
    ConnectionLost,
    Locate,
    ReplyHandler,
    ServerCheck,
    connect,
    demoted,
    translate,
)
from taskq.redis.monitor import ConnectionMonitor
from taskq.redis.url import Address

__all__ = ["Client", "Locate", "Script", "retrying"]


@dataclass(frozen=True, slots=True)
class Script:
    """A script: its name, its text, and the SHA-1 by which the server knows it."""

    name: str
    text: str
    sha: str


_log = logging.getLogger("taskq.broker")

T = TypeVar("T")

_ENDED = (b"unsubscribe", b"sunsubscribe")
_CLOSED = "this connection was closed; open the TaskQ again"


class ClientClosed(ServerUnavailable):
    """The connection was closed on purpose; trying again does not help."""


class Client:
    """A connection that is opened when needed and reopened after a loss.

    The connection counts as dead when a reply is outstanding and nothing was received for
    `reply_timeout` seconds. `connect_timeout` (seconds) bounds one attempt to connect. `check`
    examines the server before the first call.
    """

    def __init__(
        self,
        locate: Locate,
        *,
        name: str = "taskq",
        connect_timeout: float = CONNECT_SECONDS,
        reply_timeout: float = REPLY_SECONDS,
        check: ServerCheck | None = None,
    ) -> None:
        self._locate = locate
        self._admit = check
        self._name = name
        self._connect_timeout = connect_timeout
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._handlers: dict[bytes, Callable[[bytes], None]] = {}
        self._on_reconnect: list[Callable[[], None]] = []
        self._monitor = ConnectionMonitor(reply_timeout, locate, name)
        self._lost_before = False
        self._reconnecting: asyncio.Task[None] | None = None
        self.closed = False
        self.address: Address | None = None

    async def script(self, script: Script, keys: tuple[str, ...], *args: Any) -> Any:
        """Run `script` by its hash, or by its text if the server does not know it."""
        reply = await self._call("EVALSHA", script.sha, len(keys), *keys, *args)
        if isinstance(reply, hiredis.ReplyError):
            if str(reply).startswith("NOSCRIPT"):
                reply = await self._call("EVAL", script.text, len(keys), *keys, *args)
            if isinstance(reply, hiredis.ReplyError):
                raise _error(reply, self._connection, self.where)
        return reply

    def send_nowait(
        self, on_reply: ReplyHandler, script: Script, keys: tuple[str, ...], *args: Any
    ) -> bool:
        """Send a script now and return; `on_reply` is called with its reply.

        Returns False, without sending anything, when there is no connection. A reply that is an
        exception means that the call was lost or refused; send it again with `script`.
        """
        connection = self._connection
        if connection is None or connection.lost:
            return False
        connection.send(on_reply, "EVALSHA", script.sha, len(keys), *keys, *args)
        return True

    async def command(self, *command: Any) -> Any:
        """Send one command that is not a script."""
        reply = await self._call(*command)
        if isinstance(reply, hiredis.ReplyError):
            raise _error(reply, self._connection, self.where)
        return reply

    async def subscribe(self, channel: str, handler: Callable[[bytes], None]) -> None:
        """Call `handler` with each message on `channel`, also after reconnections."""
        self._handlers[channel.encode()] = handler
        # Also on a new connection: its greeting may have been sent before this channel was added.
        connection = await self.connect()
        reply = await connection.subscribe(channel.encode())
        if isinstance(reply, hiredis.ReplyError):
            raise _error(reply, connection, self.where)

    async def unsubscribe(self, channel: str) -> None:
        """Stop listening to `channel`."""
        if self._handlers.pop(channel.encode(), None) and self._connection:
            await self._connection.subscribe(channel.encode(), "UNSUBSCRIBE")

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each reconnection."""
        self._on_reconnect.append(callback)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._connection is not None and not self._connection.lost

    @property
    def where(self) -> str:
        """The server's address for messages, without its password."""
        return str(self.address) if self.address else "the server"

    async def connect(self) -> Connection:
        """Connect now if not connected.

        Raises `ServerUnavailable` when the server does not answer, and `ServerRefused` when it
        rejects this client.
        """
        async with self._connecting:
            if self._connection is not None and not self._connection.lost:
                return self._connection
            if self.closed:
                raise ClientClosed(_CLOSED)
            self.address = await self._locate()
            connection = await connect(
                self.address,
                lambda: Connection(self._on_push, self._on_lost),
                name=self._name,
                channels=list(self._handlers),
                timeout=self._connect_timeout,
                check=self._admit,
            )
            if self.closed:
                connection.abort()
                raise ClientClosed(_CLOSED)
            self._connection = connection
            self._monitor.watch(connection, self.address)
        if self._lost_before:
            for callback in self._on_reconnect:
                callback()
        return connection

    async def aclose(self) -> None:
        """Close the connection; later calls raise `ServerUnavailable`."""
        self.closed = True
        self._monitor.end()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if self._connection is not None:
            self._connection.abort()
            await asyncio.sleep(0)

    async def _call(self, *command: Any) -> Any:
        connection = self._connection
        if connection is None or connection.lost:
            connection = await self.connect()
        return await connection.call(*command)

    def _on_push(self, message: list[Any]) -> None:
        if message[0] in _ENDED and message[1] in self._handlers:
            raise ConnectionLost("the server ended a subscription by itself")
        if message[0] != b"message" or len(message) != 3:
            return
        handler = self._handlers.get(message[1])
        if handler is None:
            return
        try:
            handler(message[2])
        except Exception as error:
            # Any client can publish anything; a bad message must not end the connection.
            _log.warning("ignored a message that taskq did not send: %r", error)

    def _on_lost(self) -> None:
        self._lost_before = True
        if self._handlers and not self.closed and self._reconnecting is None:
            # There may be no calls for a while, but subscriptions need a connection.
            self._reconnecting = asyncio.create_task(self._reconnect())

    async def _reconnect(self) -> None:
        pause = 0.02
        try:
            while not self.closed:
                await asyncio.sleep(RNG.uniform(pause / 2, pause))
                pause = min(1.0, pause * 2)
                try:
                    await self.connect()
                except ServerUnavailable:
                    continue
                return
        except ServerError:
            # The server refuses this client: the next call raises that to its caller.
            return
        finally:
            self._reconnecting = None


def _error(reply: hiredis.ReplyError, connection: Connection | None, where: str) -> ServerError:
    if demoted(reply) and connection is not None:
        # The next connection locates the server again, and finds the new primary.
        connection.abort()
    return translate(reply, where)


async def retrying(call: Callable[[bool], Awaitable[T]], *, seconds: float, what: str) -> T:
    """Await `call(repeated)` until it is answered, for at most `seconds`.

    Only for idempotent calls: `repeated` is true from the second time on. The pauses grow from
    20 ms to 1 s with jitter, so that a thousand clients do not come back at once. Raises
    `ServerUnavailable` with the last reason, also while a reply is outstanding on a silent
    connection, and at once when the client was closed.
    """
    pause, repeated = 0.02, False
    last: Exception | None = None
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            while True:
                try:
                    return await call(repeated)
                except ClientClosed as error:
                    raise ServerUnavailable(f"{what}: {error}") from error
                except (ServerUnavailable, ConnectionLost) as error:
                    repeated, last = True, error
                await asyncio.sleep(RNG.uniform(pause / 2, pause))
                pause = min(1.0, pause * 2)
    except TimeoutError:
        if not limit.expired():
            raise
        reason = last or "the server does not answer"
        raise ServerUnavailable(f"{what} within {seconds:g} s: {reason}") from last
