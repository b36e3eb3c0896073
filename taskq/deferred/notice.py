"""Notice: what this process has deferred, for `taskq status`."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict

import msgpack

from taskq.core.errors import ServerError
from taskq.core.ids import process_name
from taskq.deferred.ports import Backing
from taskq.deferred.report import DeferredStats

__all__ = ["Notice"]

EVERY_SECONDS = 2.0


class Notice:
    """Writes a record every two seconds where there is a connection; it never makes one."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        backing: Backing,
        stats: Callable[[], DeferredStats],
    ) -> None:
        self._loop = loop
        self._backing = backing
        self._stats = stats
        self._process = process_name()
        self._born = time.time()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._written = False
        loop.call_soon_threadsafe(self._look)

    async def stop(self) -> None:
        """Take the record back."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        if self._written and self._backing.connected:
            await self._write(None)

    def _look(self) -> None:
        self._timer = self._loop.call_later(EVERY_SECONDS, self._look)
        if self._backing.connected and (self._writing is None or self._writing.done()):
            self._writing = self._loop.create_task(
                self._write(self._record()), name="taskq-deferred-notice"
            )

    async def _write(self, record: bytes | None) -> None:
        try:
            await self._backing.deferrals().show(self._process, record)
            self._written = True
        except (ServerError, ConnectionError):
            # The next one is two seconds away, and whoever needs the server says what is wrong.
            return

    def _record(self) -> bytes:
        told = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": self._born}
        return msgpack.packb(told | asdict(self._stats()))
