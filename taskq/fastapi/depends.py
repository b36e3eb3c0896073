"""Passes background tasks to endpoints and their dependencies: one collection for each request.

FastAPI fills every parameter annotated with a subclass of its own class with an instance of its own
class. The annotation is therefore an alias for a dependency.
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
from taskq.execution.resources import STATE_KEY
from taskq.fastapi.background import BackgroundTasks

__all__ = ["CLIENT_GONE", "InjectedTasks", "StrictTasks"]

LATE_SECONDS: Final = 1.0
"""How long an older FastAPI's response may take to be sent before its tasks start anyway."""

STACK_KEY: Final = "fastapi_inner_astack"
"""Where FastAPI keeps the exit stack of a request; tests of each way a request ends cover it."""


def _exits_after_response(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (0, 118)


LATE_EXIT: Final = _exits_after_response(fastapi.__version__)
"""Whether dependencies exit after the response is sent. Before FastAPI 0.118 they exit earlier."""

CLIENT_GONE = (asyncio.CancelledError, ClientDisconnect)
"""How a request ends when the client disconnects or the server stops: not the endpoint's error.

`ConnectionError` is not among them: the endpoint's database may have raised it.
"""


async def _provide(connection: HTTPConnection, after: fastapi.BackgroundTasks) -> BackgroundTasks:
    """For FastAPI from 0.118 on: the exit stack of the request reports its end.

    A generator dependency would work too, but costs a third as much as a small endpoint.
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
    """For older versions, which exit dependencies before the response is sent."""
    tasks = _collection(connection)
    after.tasks.append(_End(tasks))
    try:
        yield tasks
    except BaseException as error:
        await tasks.end(None if isinstance(error, CLIENT_GONE) else error)
        raise
    loop = asyncio.get_running_loop()
    # A response with a background of its own does not report that it was sent.
    loop.call_later(LATE_SECONDS, lambda: loop.create_task(tasks.end(None)))


def _collection(connection: HTTPConnection) -> BackgroundTasks:
    state: Mapping[str, Any] = connection.scope.get("state") or {}
    runner = state.get(STATE_KEY)
    return BackgroundTasks(via=runner if isinstance(runner, DeferredRunner) else None)


class _End(BackgroundTask):
    """Ends the collection of a request.

    A response without a background of its own calls it when it is sent; the exit stack of the
    request passes it the error that the request ended with.
    """

    is_async = True

    def __init__(self, tasks: BackgroundTasks) -> None:
        # Starlette's __init__ would inspect the function for each request.
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
        await self.func.end(None if isinstance(error, CLIENT_GONE) else error)


async def _provide_strict(after: fastapi.BackgroundTasks) -> BackgroundTasks:
    tasks = BackgroundTasks(strict=True)
    # FastAPI runs, or drops, the tasks of its own collection.
    tasks.tasks = after.tasks
    return tasks


def _made(*args: Any, **kwargs: Any) -> BackgroundTasks:
    return BackgroundTasks(*args, **kwargs)


def _annotation(provide: Any) -> Any:
    """The annotation for endpoints; calling it makes a collection by hand.

    Older versions of FastAPI refuse a dependency for a class that they fill themselves. For them
    the annotated type is a function that makes a collection.
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
