"""Resources that a process opens once for all attempts: database pools, clients, models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final

from taskq.core.errors import ConfigError, TaskqError

__all__ = ["STATE_KEY", "Lifespan", "OpenResources", "Overrides", "Resources"]

OpenResources = Callable[[], AbstractAsyncContextManager[Any]]
Overrides = dict[Callable[..., Any], Callable[..., Any]]


STATE_KEY: Final = "taskq"
"""The key of the deferred runner in the state of a lifespan, where requests find it."""


class Resources:
    """The state that a lifespan yields, kept open as long as it has users in this event loop.

    Each event loop has its own state, since connections belong to loops. `overrides` maps
    dependencies to their replacements.
    """

    def __init__(self, lifespan: OpenResources | None) -> None:
        self.overrides: Overrides = {}
        self._lifespan = lifespan
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}

    @property
    def state(self) -> Any:
        """What the lifespan yielded; in a thread, what it yielded in the first loop that opened it.

        Raises `TaskqError` while nothing is open.
        """
        try:
            kept = self._kept.get(asyncio.get_running_loop())
        except RuntimeError:
            kept = next(iter(self._kept.values()), None)
        if kept is None or not kept.opened.done():
            raise TaskqError(_why_closed(self._lifespan))
        return kept.opened.result()

    async def open(self) -> None:
        """Enter the lifespan unless it is open; raises what it raises."""
        if self._lifespan is None:
            return
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None:
            kept = self._kept[loop] = _Kept(_managed(self._lifespan()))
        kept.users += 1
        try:
            await asyncio.shield(kept.opened)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Leave the lifespan if this was its last user; raises what it raises."""
        kept = self._kept.get(asyncio.get_running_loop())
        if kept is None:
            return
        kept.users -= 1
        if kept.users == 0:
            del self._kept[asyncio.get_running_loop()]
            await kept.close()

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Keep it open inside the block."""
        await self.open()
        try:
            yield
        finally:
            await self.close()


class _Kept:
    """An open lifespan, in a task of its own: the task that enters a context must also leave it."""

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self.users = 0
        self.opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._task = asyncio.create_task(self._keep(manager), name="taskq-lifespan")

    async def close(self) -> None:
        self._over.set()
        await self._task

    async def _keep(self, manager: AbstractAsyncContextManager[Any]) -> None:
        try:
            async with manager as state:
                self.opened.set_result(state)
                await self._over.wait()
        except BaseException as error:
            if self.opened.done():
                raise
            # `open` awaits this future, whatever the outcome.
            cancelled = isinstance(error, asyncio.CancelledError)
            self.opened.set_exception(_cancelled(error) if cancelled else error)
            if not cancelled and not isinstance(error, Exception):
                raise


def _cancelled(error: BaseException) -> TaskqError:
    # Unwrapped, it would look like a cancellation of the caller of `open`.
    failure = TaskqError(f"TaskQ(lifespan=...) was cancelled while it opened: {error!r}")
    failure.__cause__ = error
    return failure


def _managed(manager: Any) -> AbstractAsyncContextManager[Any]:
    if not hasattr(manager, "__aenter__"):
        raise ConfigError(
            f"TaskQ(lifespan=...) returned {type(manager).__name__}, which `async with` cannot "
            "enter: put @asynccontextmanager on the function"
        )
    return manager


def _why_closed(lifespan: OpenResources | None) -> str:
    if lifespan is None:
        return "q.state needs a lifespan: TaskQ(lifespan=...)"
    return (
        "q.state exists while a worker runs, or an application with lifespan=q.lifespan; neither "
        "runs here"
    )


class Lifespan(AbstractAsyncContextManager[dict[str, Any]]):
    """A context created by `open`. Called with an application, it returns another such context.

    So `FastAPI(lifespan=q.lifespan)`, `FastAPI(lifespan=q.lifespan(scheduler=True))` and `async
    with q.lifespan():` inside your own lifespan all work. It yields the state that requests see.
    """

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[dict[str, Any]]]) -> None:
        self._open = open
        self._opened = open()

    def __call__(self, app: object) -> Lifespan:
        """The lifespan for an application; frameworks pass themselves in."""
        return Lifespan(self._open)

    async def __aenter__(self) -> dict[str, Any]:
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, trace)
