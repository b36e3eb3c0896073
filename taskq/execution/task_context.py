"""What the tasks of one TaskQ share: where jobs are submitted, and who runs deferred calls."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from taskq.core.errors import TaskqError
from taskq.core.options import JobOptions
from taskq.execution.handle import Deferred
from taskq.execution.middleware import Middleware
from taskq.execution.ports import JobBackend

__all__ = ["Deferrer", "TaskContext", "farewell_of"]


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

    def reset_after_fork(self) -> None:
        """In a process that was forked off: leave calls and event loop to the parent."""
        ...


class Background(Protocol):
    """The event loop behind `q.run`."""

    def loop(self) -> asyncio.AbstractEventLoop:
        """It, started if it does not run yet."""
        ...

    def owns(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is it."""
        ...


class TaskContext:
    """Where jobs are handed in, who runs calls in this process, and what is wrapped around both.

    `deferrer` is asked for when something is deferred for the first time. `loop` is the event loop
    that opened the TaskQ: calls deferred in other threads run there, and where there is none in the
    loop of `background`. `drains`: whether somebody drains calls of a loop that did not
    open the TaskQ, as a worker does.
    """

    __slots__ = (
        "__weakref__",
        "_deferrer",
        "_make",
        "backend",
        "background",
        "drains",
        "loop",
        "middleware",
    )

    def __init__(self, backend: JobBackend, deferrer: Callable[[TaskContext], Deferrer]) -> None:
        self.backend = backend
        self.middleware = Middleware()
        self.loop: asyncio.AbstractEventLoop | None = None
        # Weak, because the thread of that loop leads here.
        self.background: weakref.ref[Background] | None = None
        self.drains = False
        self._make = deferrer
        self._deferrer: Deferrer | None = None
        _contexts.add(self)

    def deferrer(self) -> Deferrer:
        """The deferred runner, made when first needed."""
        if self._deferrer is None:
            self._deferrer = self._make(self)
        return self._deferrer

    def background_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of `q.run`, started if it does not run yet; raises `TaskqError`."""
        background = None if self.background is None else self.background()
        if background is None:
            raise TaskqError("nothing can be deferred here: no event loop runs in this thread")
        return background.loop()

    def is_background(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is that of `q.run`, which is drained at its end."""
        background = None if self.background is None else self.background()
        return background is not None and background.owns(loop)

    def reset_after_fork(self) -> None:
        """In a process that was forked off: leave the event loop to the parent, and its calls."""
        self.loop = None
        if self._deferrer is not None:
            self._deferrer.reset_after_fork()

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


def farewell_of(context: TaskContext) -> Callable[[], Coroutine[Any, Any, None]]:
    """What ends the use of a TaskQ in an event loop, without keeping the TaskQ alive until then."""
    backend, known = context.backend, weakref.ref(context)

    async def farewell() -> None:
        if (alive := known()) is not None:
            await alive.drain()
        await backend.aclose()

    return farewell


_contexts: Final[weakref.WeakSet[TaskContext]] = weakref.WeakSet()


def _forked() -> None:
    for context in _contexts:
        context.reset_after_fork()


os.register_at_fork(after_in_child=_forked)
