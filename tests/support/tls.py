"""The tests' server behind TLS, on a port of this machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

__all__ = ["CERTIFICATE", "tls_front"]

_FOLDER = Path(__file__).parent / "certificates"

CERTIFICATE = _FOLDER / "localhost.pem"
"""What a client has to trust; it is for `localhost` and no other name."""


@asynccontextmanager
async def tls_front(server: Path) -> AsyncGenerator[int]:
    """Take TLS connections and pass what they say to the server's socket; gives the port."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, _FOLDER / "localhost.key")
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, out = await asyncio.open_unix_connection(server)
        for pair in ((reader, out), (back, writer)):
            passing = asyncio.create_task(_pass_on(*pair))
            connections.add(passing)
            passing.add_done_callback(connections.discard)

    listener = await asyncio.start_server(connected, "localhost", 0, ssl=context)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        while connections:
            await asyncio.wait(connections)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, ssl.SSLError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
    with suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
