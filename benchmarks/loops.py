"""Which event loop a process runs: the same for both sides of a comparison."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["LOOPS", "default_loop", "run"]

LOOPS = ("uvloop", "asyncio")

T = TypeVar("T")


def default_loop() -> str:
    """uvloop where it is installed, as workers choose."""
    return "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"


def run(main: Callable[[], Coroutine[Any, Any, T]], loop: str) -> T:
    """Run `main()` to its end on a loop of this kind."""
    with asyncio.Runner(loop_factory=_factory(loop)) as runner:
        return runner.run(main())


def _factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if loop == "uvloop":
        return importlib.import_module("uvloop").new_event_loop
    return asyncio.new_event_loop
