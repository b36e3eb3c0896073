"""An ASGI application under a real uvicorn, in this event loop, and an HTTP client of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from tests.support.waiting import eventually

__all__ = ["serving"]


class _Server(uvicorn.Server):
    """Leaves when it is asked to, and not at its next look, a tenth of a second later."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._asked = asyncio.Event()

    def leave(self) -> None:
        self.should_exit = True
        self._asked.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self._asked.wait()


@contextlib.asynccontextmanager
async def serving(app: Any, place: Path | int, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve on the unix socket `place`, or on a port of this machine (0: any)."""
    where = {"uds": str(place)} if isinstance(place, Path) else {"port": place}
    # On a busy machine a connection may rest for longer than uvicorn keeps it by default.
    given: dict[str, Any] = {"log_level": "warning", "lifespan": "on", "timeout_keep_alive": 60}
    given |= {"ws": "none"} | where | options
    server = _Server(uvicorn.Config(app, **given))
    running = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or running.done())
    if running.done():
        running.result()
        raise RuntimeError("the application did not start")
    if isinstance(place, Path):
        # Reading the system's certificates takes longer than most tests.
        transport = httpx.AsyncHTTPTransport(verify=False, uds=str(place))
        base = "http://app"
    else:
        port = server.servers[0].sockets[0].getsockname()[1]
        transport, base = httpx.AsyncHTTPTransport(verify=False), f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(transport=transport, base_url=base, timeout=20) as client:
        yield client
    server.leave()
    await asyncio.wait_for(running, 20)
