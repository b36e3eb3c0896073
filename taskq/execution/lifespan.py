"""What opens an application's TaskQ and closes it: an async context for ASGI frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from types import TracebackType
from typing import Any, Final, TypeVar

__all__ = ["STATE_KEY", "Lifespan", "run_through"]

T = TypeVar("T")


def run_through(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, T],
    on_break: Callable[[BaseException | None], None],
    *,
    context: Context | None = None,
) -> T:
    """Run `coroutine` to its end, and give its value, though jobs end the loop on the way.

    asyncio ends a loop for a `SystemExit` or `KeyboardInterrupt` in any of its tasks, once it has
    told whoever awaits that task; a job may also stop the loop. Nothing in it is lost by that, and
    it goes on. `on_break` is told each time, with what was raised, or None for a stop.
    """
    main = loop.create_task(coroutine, context=context)
    over = False

    def end(_: asyncio.Task[T]) -> None:
        if not over:
            loop.stop()

    main.add_done_callback(end)
    while not main.done():
        broken: BaseException | None = None
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            broken = error
        if not main.done():
            on_break(broken)
    # It may be waiting to be called still, and the loop is used again.
    over = True
    return main.result()


STATE_KEY: Final = "taskq"
"""Under which name the state of a lifespan holds the deferred runner, for requests to find it."""


class Lifespan(AbstractAsyncContextManager[dict[str, Any]]):
    """A context that `open` makes. Called with an application it is another one of the same.

    So `FastAPI(lifespan=q.lifespan)` and `FastAPI(lifespan=q.lifespan(scheduler=True))` both do,
    and so does `async with q.lifespan():` inside a lifespan of one's own. It gives the state that
    requests see.
    """

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[dict[str, Any]]]) -> None:
        self._open = open
        self._opened = open()

    def __call__(self, app: object) -> Lifespan:
        """The lifespan of an application, which frameworks pass along."""
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
