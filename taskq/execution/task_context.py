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

__all__ = ["Deferrer", "TaskContext", "closer_of"]


class Deferrer(Protocol):
    """Runs calls in this process."""

    def take(
        self, task: Any, options: JobOptions, args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> Deferred[Any]:
        """Run a call of a task soon."""
        ...

    async def drain(self) -> None:
        """Wait for calls to end, for at most the grace period of the settings."""
        ...

    def reset_after_fork(self) -> None:
        """After a fork, in the child: leave calls and event loop to the parent."""
        ...


class Background(Protocol):
    """The event loop behind `q.run`."""

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; starts it if it does not run yet."""
        ...

    def owns(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is this loop."""
        ...


class TaskContext:
    """What the tasks of one TaskQ share: the backend, the deferred runner and the middleware.

    `deferrer` creates the deferred runner when it is first needed. `loop` is the event loop that
    opened the TaskQ: calls deferred in other threads run there, or else in the loop of
    `background`. `drains`: whether calls in a loop that did not open the TaskQ will be drained, as
    a worker does.
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
        # Weak, because the thread of that loop refers to this object.
        self.background: weakref.ref[Background] | None = None
        self.drains = False
        self._make = deferrer
        self._deferrer: Deferrer | None = None
        _contexts.add(self)

    def deferrer(self) -> Deferrer:
        """The deferred runner, created when first needed."""
        if self._deferrer is None:
            self._deferrer = self._make(self)
        return self._deferrer

    def background_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of `q.run`; starts it if it does not run yet. Raises `TaskqError`."""
        background = None if self.background is None else self.background()
        if background is None:
            raise TaskqError("cannot defer here: no event loop runs in this thread")
        return background.loop()

    def is_background(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is the loop of `q.run`, which is drained at its end."""
        background = None if self.background is None else self.background()
        return background is not None and background.owns(loop)

    def reset_after_fork(self) -> None:
        """After a fork, in the child: leave the event loop and its calls to the parent."""
        self.loop = None
        if self._deferrer is not None:
            self._deferrer.reset_after_fork()

    async def drain_if_not_open(self) -> None:
        """As `drain`, unless the TaskQ is open in this event loop and drains when it closes."""
        if self.loop is not asyncio.get_running_loop():
            await self.drain()

    async def drain(self) -> None:
        """Wait for the calls that are deferred in this event loop."""
        if self.loop is asyncio.get_running_loop():
            self.loop = None
        if self._deferrer is not None:
            await self._deferrer.drain()


def closer_of(context: TaskContext) -> Callable[[], Coroutine[Any, Any, None]]:
    """A function that closes a TaskQ in an event loop, but does not keep the TaskQ alive."""
    backend, known = context.backend, weakref.ref(context)

    async def close() -> None:
        if (alive := known()) is not None:
            await alive.drain()
        await backend.aclose()

    return close


_contexts: Final[weakref.WeakSet[TaskContext]] = weakref.WeakSet()


def _after_fork() -> None:
    for context in _contexts:
        context.reset_after_fork()


os.register_at_fork(after_in_child=_after_fork)
