"""What opens an application's TaskQ and closes it: a context that ASGI frameworks can call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Final

__all__ = ["STATE_KEY", "Lifespan"]

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
