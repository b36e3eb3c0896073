"""Making a connection: socket, TLS, RESP3, user, name, database, and the channels listened to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import hiredis

from taskq.broker.connection import Connection, ConnectionLost
from taskq.broker.replies import translate
from taskq.broker.url import Address
from taskq.core.errors import ServerError, ServerRefused, ServerUnavailable
from taskq.core.peer import ForeignPeer, check_peer

__all__ = ["Admit", "Locate", "dial"]

Locate = Callable[[], Awaitable[Address]]
"""Where the server is now. Asked before each connection: it may start one, or follow a failover."""

Admit = Callable[[Callable[..., Awaitable[Any]], str], Awaitable[None]]
"""Looks at a server through a new connection's `call`, and raises when it is not fit to be used."""


async def dial(
    address: Address,
    protocol: Callable[[], Connection],
    *,
    name: str,
    channels: Sequence[bytes],
    timeout: float,
    admit: Admit | None = None,
) -> Connection:
    """A greeted connection to `address`, within `timeout` seconds.

    Raises `ServerUnavailable` when nobody answers and `ServerRefused` when it does not let us in,
    and what `admit` raises.
    """
    try:
        async with asyncio.timeout(min(timeout, address.connect_timeout or timeout)):
            connection = await _open(address, protocol)
            try:
                await _greet(connection, address, name, channels)
                if admit is not None:
                    await admit(connection.call, str(address))
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
