"""Finds the server: at a URL, where a redis-py client connects to, or embedded in a directory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from taskq.core.errors import ConfigError
from taskq.redis.client import Locate
from taskq.redis.url import Address, Tls

__all__ = ["RedisClient", "locator", "server_directory"]


class RedisClient(Protocol):
    """A `redis.asyncio.Redis`."""

    connection_pool: Any


def server_directory(home: Path) -> Path:
    """The directory of the embedded server for programs in `home`: TASKQ_DIR, or `.taskq`."""
    return home / (os.environ.get("TASKQ_DIR") or ".taskq")


def locator(url: str | RedisClient | None) -> Locate:
    """Find the server: that of the URL or client given, else at TASKQ_URL, else an embedded one.

    The environment is read at each connection, so it may be set after the import.

    Raises `ConfigError` for an invalid URL, and for a client that cannot be used.
    """
    if isinstance(url, str):
        given = Address.parse(url) if url else None
    else:
        given = None if url is None else _address_of(url)
    home = Path.cwd()

    async def locate() -> Address:
        if given is not None:
            return given
        if from_environment := os.environ.get("TASKQ_URL"):
            return Address.parse(from_environment)
        from taskq.embedded.server import EmbeddedServer

        server = EmbeddedServer(server_directory(home))
        return Address(path=str(await asyncio.to_thread(server.ensure)), uid=os.geteuid())

    return locate


def _address_of(client: Any) -> Address:
    """Where a client of redis-py connects to, with its TLS settings and its credentials."""
    connection = _connection_of(getattr(client, "connection_pool", None))
    if connection is None:
        raise ConfigError(
            f"url= is a {type(client).__name__}, which is neither a text nor a redis.asyncio.Redis;"
            " use TaskQ('redis://localhost:6379/0')"
        )
    if connection.redis_connect_func is not None:
        raise ConfigError(
            "url= is a client with a redis_connect_func, which taskq does not call; use its "
            "credential_provider"
        )
    provider = connection.credential_provider
    tls = getattr(connection, "ssl_context", None)
    names = ("ca_certs", "ca_path", "certfile", "keyfile")
    files: dict[str, Any] = {name: getattr(tls, name, None) for name in names}
    return Address(
        host=getattr(connection, "host", "localhost"),
        port=int(getattr(connection, "port", 6379)),
        path=getattr(connection, "path", None),
        database=int(connection.db or 0),
        username=connection.username or None,
        password=connection.password or None,
        tls=None if tls is None else Tls(**files),
        connect_timeout=connection.socket_connect_timeout,
        keepalive=bool(getattr(connection, "socket_keepalive", False)),
        make_context=None if tls is None else tls.get,
        provider=None if provider is None else partial(_credentials, provider),
    )


async def _credentials(provider: Any) -> Sequence[str]:
    """What a `CredentialProvider` gives; redis-py before 5.3 knows no asynchronous ones."""
    ask = getattr(provider, "get_credentials_async", None)
    return provider.get_credentials() if ask is None else await ask()


def _connection_of(pool: Any) -> Any:
    """A connection of `pool` that is not open; None if it is not a pool of `redis.asyncio`."""
    try:
        # Already imported by the program that made the pool.
        from redis.asyncio.connection import ConnectionPool
        from redis.asyncio.sentinel import SentinelConnectionPool
    except ImportError:
        return None
    if isinstance(pool, SentinelConnectionPool):
        raise ConfigError(
            "url= is a client that finds its server through Sentinel, which taskq does not support "
            "yet; use the URL of the primary"
        )
    return pool.make_connection() if isinstance(pool, ConnectionPool) else None
