"""Something that happens once, and may be awaited from any event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Latch"]


class Latch:
    """Set once; waiting for it afterwards takes no time.

    Setting writes the flag before it looks for waiters, and waiting leaves the waiter before it
    looks at the flag: one of the two sees the other, whatever threads they run in.
    """

    __slots__ = ("_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: list[Callable[[], None]] = []

    def set(self) -> None:
        """It has happened."""
        self.is_set = True
        while self._waiting:
            self._waiting.pop()()

    def then(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when it happens, or now; at least once, in any thread."""
        self._waiting.append(callback)
        if self.is_set:
            callback()

    async def wait(self) -> None:
        """Wait until it has happened."""
        if self.is_set:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                # That loop is closed: nobody waits there any more.
                return

        def wake() -> None:
            if _running_loop() is loop:
                _resolve(future)
            else:
                tell()

        self.then(wake)
        await future


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
