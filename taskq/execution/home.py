"""What the tasks of one TaskQ share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from taskq.core.options import JobOptions
from taskq.execution.deferred import Deferred
from taskq.execution.middleware import Middleware
from taskq.execution.ports import Desk

__all__ = ["Deferrer", "Home"]


class Deferrer(Protocol):
    """Who runs calls in this process."""

    def take(
        self, task: Any, options: JobOptions, args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> Deferred[Any]:
        """Run a call of a task soon."""
        ...

    async def drain(self) -> None:
        """Let calls end, within the grace of the settings."""
        ...


class Home:
    """Where jobs are handed in, who runs calls in this process, and what is wrapped around both.

    `deferrer` is asked for when something is deferred for the first time. `loop` is the event loop
    that opened the TaskQ: calls deferred in other threads run there.
    """

    __slots__ = ("_deferrer", "_make", "desk", "loop", "middleware")

    def __init__(self, desk: Desk, deferrer: Callable[[Home], Deferrer]) -> None:
        self.desk = desk
        self.middleware = Middleware()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._make = deferrer
        self._deferrer: Deferrer | None = None

    def deferrer(self) -> Deferrer:
        """The deferred runner, made when first needed."""
        if self._deferrer is None:
            self._deferrer = self._make(self)
        return self._deferrer

    async def drain_if_not_open(self) -> None:
        """As `drain`, unless the TaskQ is open in this event loop: then its closing does that."""
        if self.loop is not asyncio.get_running_loop():
            await self.drain()

    async def drain(self) -> None:
        """Let what is deferred in this event loop end, if anything is."""
        if self.loop is asyncio.get_running_loop():
            self.loop = None
        if self._deferrer is not None:
            await self._deferrer.drain()
