"""Runs an event loop to the end of a coroutine, even if a job stops the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["run_through"]

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
