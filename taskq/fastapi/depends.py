"""How endpoints and their dependencies get background tasks: one collection for each request.

FastAPI makes a collection of its own class for every parameter annotated with a subclass of it, so
that a subclass would never be met. The annotation is therefore an alias for a dependency.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Annotated, Any, Final

import fastapi
from fastapi import Depends
from fastapi.dependencies.utils import get_dependant
from fastapi.requests import HTTPConnection
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from taskq.deferred.runner import DeferredRunner
from taskq.execution.lifespan import STATE_KEY
from taskq.fastapi.background import BackgroundTasks

__all__ = ["LEFT", "InjectedTasks", "StrictTasks"]

LATE_SECONDS: Final = 1.0

STACK_KEY: Final = "fastapi_inner_astack"
"""Where FastAPI keeps what a request is left with. The cases of a request's end watch over it."""


def _exits_after_the_response(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (0, 118)


LATE_EXIT: Final = _exits_after_the_response(fastapi.__version__)
"""Whether dependencies are left when the response is sent. Before FastAPI 0.118: before it is."""

LEFT = (asyncio.CancelledError, ClientDisconnect)
"""How a request ends whose client has left, or whose server stops: no fault of the endpoint.

A `ConnectionError` is none of these: it is how the endpoint hears of its database.
"""


async def _provide(connection: HTTPConnection, after: fastapi.BackgroundTasks) -> BackgroundTasks:
    """For FastAPI from 0.118 on: told of the end by the stack that the request is left with.

    A generator would be told as well, at a third of the cost of a small endpoint.
    """
    tasks = _collection(connection)
    end = _End(tasks)
    after.tasks.append(end)
    stack = connection.scope.get(STACK_KEY)
    if isinstance(stack, AsyncExitStack):
        stack.push_async_exit(end)
    return tasks


async def _provide_early(
    connection: HTTPConnection, after: fastapi.BackgroundTasks
) -> AsyncGenerator[BackgroundTasks, None]:
    """For older ones, which leave dependencies before the response is sent."""
    tasks = _collection(connection)
    after.tasks.append(_End(tasks))
    try:
        yield tasks
    except BaseException as error:
        await tasks.end(None if isinstance(error, LEFT) else error)
        raise
    loop = asyncio.get_running_loop()
    # A response with a background of its own never says that it was sent.
    loop.call_later(LATE_SECONDS, lambda: loop.create_task(tasks.end(None)))


def _collection(connection: HTTPConnection) -> BackgroundTasks:
    state: Mapping[str, Any] = connection.scope.get("state") or {}
    runner = state.get(STATE_KEY)
    return BackgroundTasks(via=runner if isinstance(runner, DeferredRunner) else None)


class _End(BackgroundTask):
    """The end of a request, for its collection.

    A response without a background of its own calls it when it is sent. The stack that the request
    is left with tells how that ended.
    """

    is_async = True

    def __init__(self, tasks: BackgroundTasks) -> None:
        # Not Starlette's, which finds out for each request what kind of function it is.
        self.func = tasks
        self.args = ()
        self.kwargs = {}

    async def __aenter__(self) -> None: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.func.end(None if isinstance(error, LEFT) else error)


async def _provide_strict(after: fastapi.BackgroundTasks) -> BackgroundTasks:
    tasks = BackgroundTasks(strict=True)
    # FastAPI runs its own collection, or forgets it.
    tasks.tasks = after.tasks
    return tasks


def _made(*args: Any, **kwargs: Any) -> BackgroundTasks:
    return BackgroundTasks(*args, **kwargs)


def _annotation(provide: Any) -> Any:
    """What endpoints are annotated with; called, it makes a collection by hand.

    Older versions of FastAPI refuse a dependency for a class that they fill themselves: for them it
    is annotated with a function that makes one.
    """
    alias = Annotated[BackgroundTasks, Depends(provide)]

    def endpoint(tasks: Any) -> None: ...

    endpoint.__annotations__["tasks"] = alias
    try:
        get_dependant(path="/", call=endpoint)
    except AssertionError:
        return Annotated[_made, Depends(provide)]
    return alias


InjectedTasks = _annotation(_provide if LATE_EXIT else _provide_early)
StrictTasks = _annotation(_provide_strict)
