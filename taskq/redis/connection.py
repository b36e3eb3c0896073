"""One connection to the server: RESP3, pipelined, shared by every caller of its event loop.

hiredis packs and parses; this module opens the socket (TLS, user, name, database) and keeps the
order of replies. A call is written at once and its reply resolves a future, so any number of
callers share one socket and one round trip. The server's pushes (pub/sub) arrive in between and go
to `on_push`.

The one invariant: replies arrive in the order of the calls. Each call leaves its reply handler in
the line; when a caller stops waiting, its reply is still read, and dropped. A subscription is
answered by a push, its confirmation, or by an error in its place. A push therefore counts as a
reply only while the call in front asked for exactly that one: servers confirm some unasked.
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
"""No request and no reply has more, unless it is about a single job that is larger.

As `lua/include/bytes.lua`: a server ends the connection of a listener that has 32 MiB unread.
"""

Locate = Callable[[], Awaitable[Address]]
"""Where the server is now. Asked before each connection: it may start one, or follow a failover."""

ServerCheck = Callable[[Callable[..., Awaitable[Any]], str], Awaitable[None]]
"""Looks at a server through a new connection's `call`, and raises when it is not fit to be used."""


async def connect(
    address: Address,
    protocol: Callable[[], Connection],
    *,
    name: str,
    channels: Sequence[bytes],
    timeout: float,
    check: ServerCheck | None = None,
) -> Connection:
    """A greeted connection to `address`, within `timeout` seconds.

    Raises `ServerUnavailable` when nobody answers and `ServerRefused` when it does not let us in,
    and what `check` raises.
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
    if address.password is not None or address.username is not None:
        # A user may need no password, and is not to become the default one for that.
        hello += ["AUTH", address.username or "default", address.password or ""]
    greetings = [connection.call(*hello, "SETNAME", name)]
    if address.database:
        greetings.append(connection.call("SELECT", address.database))
    greetings.extend(map(connection.subscribe, channels))
    try:
        # All are looked at before one is judged: a future nobody awaits would be complained about.
        replies = await asyncio.gather(*greetings)
    except ConnectionLost:
        # Who is turned away is told why, and may lose the words: a line that is closed with
        # something unread on it is torn down at once.
        raise ServerUnavailable(
            f"{address} closed the connection without an answer, as one does that has as many "
            "clients as its maxclients allows, or that expects TLS (rediss://)"
        ) from None
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise translate(reply, str(address))


_WAIT: Final = {
    "LOADING": "is loading its data, and is waited for",
    "BUSY": "is busy with somebody's script, and is waited for; SCRIPT KILL ends it",
    "READONLY": "takes no writes, for it is a replica now; the primary is looked for again. If "
    "TASKQ_URL names a replica, let it name the primary",
    "MASTERDOWN": "is a replica that lost its primary, and is waited for",
    "NOREPLICAS": "has fewer replicas than its min-replicas-to-write, and is waited for",
    "MISCONF": "cannot write its data to its disk, and is waited for; free space there, or make "
    "its directory writable",
    "CLUSTERDOWN": "belongs to a cluster that is down, and is waited for",
    "TRYAGAIN": "is moving its keys, and is waited for",
    "UNBLOCKED": "let go of a waiting call; it is made again",
    "ERR max number of clients": "has as many clients as its maxclients allows, and is waited for; "
    "raise maxclients, or run fewer processes",
}
"""By the code of an error that passes: what the server does."""

_CODES = [code for code in _WAIT if " " not in code]

_REFUSALS = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password", "ERR DB index")

# Redis 6.2 puts the code of an error inside a script behind words of its own, and any server puts
# one that a script raises again behind ERR.
_IN_SCRIPT = re.compile(
    rf"^ERR (?:Error running script .*?: -(?=[A-Z]+ )|(?=(?:{'|'.join(_CODES)})\b))(.*)", re.DOTALL
)


def translate(error: hiredis.ReplyError, where: str) -> ServerError:
    """The error tree's word for an error reply of the server at `where`."""
    text = _plain(error)
    if text.startswith("OOM") or "-OOM" in text or "OOM command not allowed" in text:
        return QueueFull(
            f"{where} is at its maxmemory and takes no more jobs; workers go on draining. Raise "
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
            "prints the rule to give it"
        )
    return ServerRefused(f"{where} answered an error: {text}")


def demoted(error: hiredis.ReplyError) -> bool:
    """Whether the server says that it is not the one to talk to any more."""
    return _plain(error).startswith(("READONLY", "MASTERDOWN"))


def _plain(error: hiredis.ReplyError) -> str:
    text = str(error)
    inside = _IN_SCRIPT.match(text)
    return inside.group(1) if inside else text


Reply = Any

ReplyHandler = Callable[[Reply], None]
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
        self._waiting: deque[tuple[ReplyHandler, float]] = deque()
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

    def send(self, on_reply: ReplyHandler, *command: Any) -> None:
        """Send `command`; `on_reply` is called with its reply as soon as that is read."""
        if self._transport is None or self.lost:
            on_reply(ConnectionLost("the connection is closed"))
            return
        # Before it stands in the line: what cannot be written would take the reply to another.
        packed = _pack(command)
        self._waiting.append((on_reply, self._loop.time()))
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
        on_reply, _ = self._waiting.popleft()
        try:
            on_reply(reply)
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
