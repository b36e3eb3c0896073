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
    """Run `coroutine` to its end and return its value, restarting the loop when a job stops it.

    asyncio stops a loop when one of its tasks raises `SystemExit` or `KeyboardInterrupt`, and a job
    may stop it by itself. The tasks in the loop are unaffected, so it is run again. `on_break` is
    called each time with the exception, or None if the loop was stopped.
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
    # The callback may still be scheduled, and the loop is used again.
    over = True
    return main.result()
