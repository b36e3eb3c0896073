"""Where the server is: an address that was given, or an embedded server of our own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from taskq.core.errors import ConfigError
from taskq.redis.client import Locate
from taskq.redis.url import Address

__all__ = ["locator", "server_directory"]


def server_directory(home: Path) -> Path:
    """Where the embedded server of programs in `home` lives: TASKQ_DIR, or .taskq there."""
    return home / (os.environ.get("TASKQ_DIR") or ".taskq")


def locator(url: str | None) -> Locate:
    """Where the server is: the URL given, the environment's, or an embedded server of our own.

    The environment is read at each connection, so that it may be set after the import.
    """
    if url is not None and not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"url= is a {type(url).__name__}, not a text; use TaskQ('redis://localhost:6379/0')"
        )
    given = Address.parse(url) if url else None
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
