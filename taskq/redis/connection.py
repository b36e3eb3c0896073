"""One connection to the server: RESP3, pipelined, shared by all callers of its event loop.

hiredis packs and parses; this module opens the socket (TLS, user, name, database) and keeps the
order of replies. A call is written at once and its reply resolves a future, so any number of
callers share one socket and one round trip. The server's pushes (pub/sub) arrive in between and go
to `on_push`.

The invariant: replies arrive in the order of the calls. Each call appends its reply handler to a
queue; when a caller stops waiting, its reply is still read, and dropped. A subscription is answered
by its confirmation, which is a push, or by an error in its place. A push therefore counts as a
reply only while the first call in the queue asked for exactly that confirmation: servers also send
unrequested ones.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Literal, cast

import hiredis

from taskq.core.errors import QueueFull, ServerError, ServerRefused, ServerUnavailable
from taskq.core.peer import ForeignPeer, check_peer
from taskq.redis.url import Address

__all__ = [
    "MESSAGE_BYTES",
    "Connection",
    "ConnectionLost",
    "Locate",
    "Reply",
    "ReplyHandler",
    "ServerCheck",
    "connect",
    "demoted",
    "translate",
]

MESSAGE_BYTES = 4_194_304
"""The largest request and reply, unless a single job is larger.

As `lua/include/bytes.lua`: a server closes the connection of a subscriber with 32 MiB unread.
"""

Locate = Callable[[], Awaitable[Address]]
"""Finds the server before each connection; may start it, or follow a failover."""

ServerCheck = Callable[[Callable[..., Awaitable[Any]], str], Awaitable[None]]
"""Checks a server through a new connection's `call`; raises when it is unfit for use."""


async def connect(
    address: Address,
    protocol: Callable[[], Connection],
    *,
    name: str,
    channels: Sequence[bytes],
    timeout: float,
    check: ServerCheck | None = None,
) -> Connection:
    """Open a connection to `address` and authenticate, within `timeout` seconds.

    Raises `ServerUnavailable` when there is no answer, `ServerRefused` when the server rejects
    this client, and what `check` raises.
    """
    try:
        async with asyncio.timeout(min(timeout, address.connect_timeout or timeout)):
            connection = await _open(address, protocol)
            try:
                await _greet(connection, address, name, channels)
                if check is not None:
                    await check(connection.call, str(address))
            except BaseException:
                connection.abort()
                raise
            return connection
    except TimeoutError:
        raise ServerUnavailable(f"{address} did not answer within {timeout:g} s") from None
    except ConnectionLost as error:
        raise ServerUnavailable(f"{address}: {error}") from None
    except ServerError:
        raise
    except ssl.SSLError as error:
        raise ServerRefused(
            f"{address}: TLS failed: {error.reason or error}; is it a rediss:// server, and is its "
            "certificate signed by an authority this machine trusts (?ssl_ca_certs=/path/ca.pem)?"
        ) from None
    except OSError as error:
        raise ServerUnavailable(
            f"cannot reach {address}: {error.strerror or error}; is the server running, and is "
            "TASKQ_URL right?"
        ) from None


async def _open(address: Address, protocol: Callable[[], Connection]) -> Connection:
    loop = asyncio.get_running_loop()
    if address.path is not None:
        transport, connection = await loop.create_unix_connection(protocol, address.path)
        if address.uid is not None:
            try:
                check_peer(transport.get_extra_info("socket"), address.uid, address.path)
            except ForeignPeer as error:
                connection.abort()
                raise ServerRefused(str(error)) from None
        return connection
    transport, connection = await loop.create_connection(
        protocol, address.host, address.port, ssl=address.ssl_context()
    )
    if address.keepalive:
        opened: socket.socket = transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


async def _greet(
    connection: Connection, address: Address, name: str, channels: Sequence[bytes]
) -> None:
    hello: list[str] = ["HELLO", "3"]
    user, password = await address.credentials()
    if password is not None or user is not None:
        # A user without a password must not become the default user.
        hello += ["AUTH", user or "default", password or ""]
    greetings = [connection.call(*hello, "SETNAME", name)]
    if address.database:
        greetings.append(connection.call("SELECT", address.database))
    greetings.extend(map(connection.subscribe, channels))
    try:
        # Await all before checking any: asyncio warns of futures that are never awaited.
        replies = await asyncio.gather(*greetings)
    except ConnectionLost:
        # The server sends its reason for rejecting a client, but the reason may be lost when the
        # connection is closed with unread data.
        raise ServerUnavailable(
            f"{address} closed the connection without an answer: it may have reached its "
            "maxclients, or expect TLS (rediss://)"
        ) from None
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise translate(reply, str(address))


_WAIT: Final = {
    "LOADING": "is loading its data; waiting for it",
    "BUSY": "is busy running a script; waiting for it. SCRIPT KILL ends the script",
    "READONLY": "is a replica and takes no writes; looking for the primary again. If "
    "TASKQ_URL names a replica, change it to the primary",
    "MASTERDOWN": "is a replica that lost its primary; waiting for it",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write; waiting for them",
    "MISCONF": "cannot write its data to its disk; waiting for it. Free disk space, or make "
    "its directory writable",
    "CLUSTERDOWN": "belongs to a cluster that is down; waiting for it",
    "TRYAGAIN": "is moving its keys; waiting for it",
    "UNBLOCKED": "ended a blocked call; repeating it",
    "ERR max number of clients": "has reached its maxclients; waiting for it. "
    "Raise maxclients, or run fewer processes",
}
"""Errors that pass by themselves, by code: what the message says of the server."""

_CODES = [code for code in _WAIT if " " not in code]

_REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index")

# Redis 6.2 puts its own text before the code of an error inside a script, and every server puts
# ERR before an error that a script raises again.
_IN_SCRIPT = re.compile(
    rf"^ERR (?:Error running script .*?: -(?=[A-Z]+ )|(?=(?:{'|'.join(_CODES)})\b))(.*)", re.DOTALL
)


def translate(error: hiredis.ReplyError, where: str) -> ServerError:
    """Translate an error reply of the server at `where` into taskq's error."""
    text = _plain(error)
    if text.startswith("OOM") or "-OOM" in text or "OOM command not allowed" in text:
        return QueueFull(
            f"{where} is at its maxmemory and takes no more jobs; workers still drain it. Raise "
            "maxmemory, add workers, or try again later"
        )
    for code, words in _WAIT.items():
        if text.startswith(code):
            return ServerUnavailable(f"{where} {words} ({text})")
    if text.startswith(_REFUSALS):
        return ServerRefused(f"{where} refuses this client: {text}; check user, password and ACL")
    if "ACL failure" in text or "NOPERM" in text:
        return ServerRefused(
            f"{where} does not let this user do what taskq needs: {text}; `taskq doctor --acl` "
            "prints the ACL rule it needs"
        )
    return ServerRefused(f"{where} answered with an error: {text}")


def demoted(error: hiredis.ReplyError) -> bool:
    """Whether the server says that it is no longer the primary."""
    return _plain(error).startswith(("READONLY", "MASTERDOWN"))


def _plain(error: hiredis.ReplyError) -> str:
    text = str(error)
    inside = _IN_SCRIPT.match(text)
    return inside.group(1) if inside else text


Reply = Any

ReplyHandler = Callable[[Reply], None]
"""Receives a reply; an error reply or `ConnectionLost` comes as a value."""

_log = logging.getLogger("taskq.broker")

_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]
_PARTIAL: Final = object()


class ConnectionLost(ConnectionError):
    """The connection ended; calls without a reply may or may not have been executed."""


class _Confirmation:
    """The reply handler of a subscription: takes its confirmation, or an error in its place."""

    def __init__(self, future: asyncio.Future[Reply], verb: str, channel: bytes) -> None:
        self._future = future
        self._confirmation = [verb.lower().encode(), channel]

    def __call__(self, reply: Reply) -> None:
        _resolve(self._future, reply)

    def is_confirmed_by(self, push: list[Any]) -> bool:
        return push[:2] == self._confirmation


class Connection(asyncio.Protocol):
    """A connected socket. `call` sends one command and returns the future of its reply.

    `send` passes the reply to a function as soon as it is read.

    An error reply resolves the future with a `hiredis.ReplyError` as a value, which the caller has
    to check. `on_push` takes pushes; it raises `ConnectionLost` to end the connection. `sent`
    counts bytes; `dropped`: the server closed the connection while replies were outstanding.
    """

    def __init__(self, on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]) -> None:
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(
            protocolError=ConnectionLost, replyError=hiredis.ReplyError, notEnoughData=_PARTIAL
        )
        self._waiting: deque[tuple[ReplyHandler, float]] = deque()
        self._transport: asyncio.Transport | None = None
        self.heard_at = self._loop.time()
        self.sent = 0
        self.lost = self.dropped = False

    def call(self, *command: Any) -> asyncio.Future[Reply]:
        """Send `command`; the future of its reply may fail with `ConnectionLost`."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.send(partial(_resolve, future), *command)
        return future

    def subscribe(
        self, channel: bytes, verb: Literal["SUBSCRIBE", "UNSUBSCRIBE"] = "SUBSCRIBE"
    ) -> asyncio.Future[Reply]:
        """Subscribe to `channel` or unsubscribe from it; returns a future as `call` does."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        self.send(_Confirmation(future, verb, channel), verb, channel)
        return future

    def send(self, on_reply: ReplyHandler, *command: Any) -> None:
        """Send `command`; `on_reply` is called with its reply as soon as that is read."""
        if self._transport is None or self.lost:
            on_reply(ConnectionLost("the connection is closed"))
            return
        # Pack first: a handler for a command that cannot be packed would take the reply of another.
        packed = _pack(command)
        self._waiting.append((on_reply, self._loop.time()))
        self.sent += len(packed)
        self._transport.write(packed)

    @property
    def owed_since(self) -> float:
        """When the oldest unanswered call was made; now when there is none."""
        return self._waiting[0][1] if self._waiting else self._loop.time()

    def oldest_wait(self) -> float:
        """Seconds without any data while a reply is outstanding; 0 when none is."""
        if not self._waiting:
            return 0.0
        now = self._loop.time()
        return min(now - self._waiting[0][1], now - self.heard_at)

    def abort(self) -> None:
        """Close without waiting; every outstanding reply fails with `ConnectionLost`."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance(): uvloop's transports do not derive from asyncio's.
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
                    self._answer_next(reply)
            except ConnectionLost:
                self.abort()
                return

    def _push(self, message: list[Any]) -> None:
        first = self._waiting[0][0] if self._waiting else None
        if isinstance(first, _Confirmation) and first.is_confirmed_by(message):
            self._answer_next(message)
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
            self._answer_next(ConnectionLost("the server closed the connection"))
        self._on_lost()

    def _answer_next(self, reply: Reply) -> None:
        on_reply, _ = self._waiting.popleft()
        try:
            on_reply(reply)
        except Exception:
            # Only this reply is lost, and not the connection of all callers.
            _log.exception("a reply handler failed; this is a bug in taskq")


def _resolve(future: asyncio.Future[Reply], reply: Reply) -> None:
    if future.done():
        return
    if isinstance(reply, ConnectionLost):
        future.set_exception(reply)
    else:
        future.set_result(reply)
