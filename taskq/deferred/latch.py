"""Something that happens once, and may be awaited from any event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Latch"]


class Latch:
    """Set once; waiting for it afterwards takes no time.

    Setting writes the flag before it looks for waiters, and waiting leaves the waiter before it
    looks at the flag: one of the two sees the other, whatever threads they run in.
    """

    __slots__ = ("_callbacks", "_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._callbacks: list[Callable[[], None]] = []
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        """It has happened. Called in an event loop."""
        self.is_set = True
        here = asyncio.get_running_loop()
        while self._waiting:
            _tell(self._waiting.pop(), here)
        while self._callbacks:
            self._callbacks.pop()()

    def then(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it happens, or now; at least once, in any thread."""
        self._callbacks.append(callback)
        if self.is_set:
            callback()

    async def wait(self) -> None:
        """Wait until it has happened."""
        here = asyncio.get_running_loop()
        future = here.create_future()
        self._waiting.append(future)
        if not self.is_set:
            await future


def _tell(future: asyncio.Future[None], here: asyncio.AbstractEventLoop) -> None:
    loop = future.get_loop()
    if loop is here:
        _resolve(future)
        return
    with suppress(RuntimeError):
        # That loop may be closed: nobody waits there any more.
        loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
