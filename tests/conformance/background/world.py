"""What a case is played with: one kind of background tasks, an application, a real server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import fastapi
import httpx

from taskq import TaskQ
from taskq.fastapi import BackgroundTasks, StrictBackgroundTasks
from tests.support.serving import serving
from tests.support.waiting import eventually

__all__ = ["KINDS", "World"]

KINDS = {
    "fastapi": fastapi.BackgroundTasks,
    "strict": StrictBackgroundTasks,
    "taskq": BackgroundTasks,
}


class World:
    """One play of one case. `Tasks` is what endpoints are annotated with."""

    def __init__(self, kind: str, q: TaskQ) -> None:
        self.kind = kind
        self.q = q
        self.Tasks: Any = KINDS[kind]
        self.diary: list[str] = []
        self.log = _Log()
        lifespan = q.lifespan if kind == "taskq" else None
        self.app = fastapi.FastAPI(lifespan=lifespan)

    @property
    def is_taskq(self) -> bool:
        return self.kind == "taskq"

    def made(self, *arguments: Any) -> Any:
        """A collection of tasks made by hand."""
        if self.kind == "fastapi":
            return fastapi.BackgroundTasks(*arguments)
        return BackgroundTasks(*arguments, strict=self.kind == "strict")

    def always(self, tasks: Any) -> Any:
        """Where taskq is told to run a task whatever becomes of the request."""
        return tasks.options(when="always") if self.is_taskq else tasks

    def note(self, word: str) -> None:
        self.diary.append(word)

    async def noted(self, *words: str, within: float = 5.0) -> None:
        """Wait until all of these were noted."""
        await eventually(lambda: set(words) <= set(self.diary), within=within)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for a condition."""
        await eventually(condition, within=5)

    async def settled(self, *words: str) -> list[str]:
        """The diary, once it has these words and nothing is going on any more."""
        await self.noted(*words)
        if self.is_taskq:
            await self.q.deferred.drain()
        before: list[str] | None = None
        while before != self.diary:
            before = list(self.diary)
            await asyncio.sleep(0.05)
        return self.diary

    @contextlib.asynccontextmanager
    async def lived(self) -> AsyncIterator[dict[str, Any]]:
        """The application without a server: its state, between its start and its end."""
        async with self.app.router.lifespan_context(self.app) as state:
            yield dict(state or {})

    @contextlib.asynccontextmanager
    async def served(self, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
        """The application under a real uvicorn."""
        given = {"lifespan": "auto", "log_level": "error"} | options
        # uvicorn sets up logging when it starts.
        async with serving(self.app, 0, **given) as client:
            with self.log.kept():
                yield client


class _Log(logging.Handler):
    """What servers and taskq log; nothing of it reaches the terminal."""

    NAMES = ("uvicorn.error", "taskq.deferred", "taskq.fastapi", "asyncio")

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.lines.append(f"{record.getMessage()} {error!r}")

    def said(self, *words: str) -> bool:
        """Whether a line has all of these words."""
        return any(all(word in line for word in words) for line in self.lines)

    @contextlib.contextmanager
    def kept(self) -> Any:
        loggers = [logging.getLogger(name) for name in self.NAMES]
        for logger in loggers:
            logger.addHandler(self)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(self)


def in_main_thread() -> str:
    """Where this runs."""
    main = threading.current_thread() is threading.main_thread()
    return "loop" if main else "thread"


async def send_and_leave(
    client: httpx.AsyncClient, path: str, *, read: int = 0, until: asyncio.Event | None = None
) -> None:
    """Send a request, read so many bytes of the answer, and close the connection."""
    url = client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: app\r\n\r\n".encode())
    await writer.drain()
    if until is not None:
        await until.wait()
    if read:
        await reader.readexactly(read)
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


Maker = Callable[[str], World]
