"""How endpoints and their dependencies get background tasks: one collection for each request.

FastAPI makes a collection of its own class for every parameter annotated with a subclass of it, so
that a subclass would never be met. The annotation is therefore an alias for a dependency.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any, Final

import fastapi
from fastapi import Depends
from fastapi.requests import HTTPConnection
from starlette.requests import ClientDisconnect

from taskq.deferred.runner import DeferredRunner
from taskq.execution.lifespan import STATE_KEY
from taskq.fastapi.background import BackgroundTasks

__all__ = ["InjectedTasks", "StrictTasks"]

LATE_SECONDS: Final = 1.0


def _exits_after_the_response(version: str) -> bool:
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= (0, 118)


LATE_EXIT: Final = _exits_after_the_response(fastapi.__version__)
"""Whether dependencies are left when the response is sent. Before FastAPI 0.118: before it is."""

_LEFT = (asyncio.CancelledError, ClientDisconnect, ConnectionError)
"""How a request ends whose client has left, or whose server stops: no fault of the endpoint."""


async def _provide(
    connection: HTTPConnection, after: fastapi.BackgroundTasks
) -> AsyncGenerator[BackgroundTasks, None]:
    state: Mapping[str, Any] = connection.scope.get("state") or {}
    runner = state.get(STATE_KEY)
    tasks = BackgroundTasks(via=runner if isinstance(runner, DeferredRunner) else None)
    # A response without a background of its own runs these at its end.
    after.add_task(tasks)
    try:
        yield tasks
    except _LEFT:
        await tasks.end(None)
        raise
    except BaseException as error:
        await tasks.end(error)
        raise
    if LATE_EXIT:
        await tasks.end(None)
    else:
        loop = asyncio.get_running_loop()
        # The response is still to be sent; one with a background of its own says nothing.
        loop.call_later(LATE_SECONDS, lambda: loop.create_task(tasks.end(None)))


async def _provide_strict(after: fastapi.BackgroundTasks) -> BackgroundTasks:
    tasks = BackgroundTasks(strict=True)
    # FastAPI runs its own collection, or forgets it.
    tasks.tasks = after.tasks
    return tasks


InjectedTasks = Annotated[BackgroundTasks, Depends(_provide)]
StrictTasks = Annotated[BackgroundTasks, Depends(_provide_strict)]
