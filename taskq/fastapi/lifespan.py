"""An application's lifespan with its TaskQ and a worker, and the `AfterResponse` middleware."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskq.app import TaskQ
from taskq.deferred.runner import HELD, HeldCalls
from taskq.fastapi.depends import LEFT
from taskq.worker.settings import WorkerSettingValues

__all__ = ["ASGILifespan", "AfterResponse", "lifespan"]


class AfterResponse:
    """ASGI middleware: `f.defer(...)` in a request starts when the request is over.

    Without it a deferred call starts at once, beside the endpoint, which may not have committed
    what it works on. Below it the call starts after the response is sent and the dependencies are
    left, and not at all when the endpoint failed: when it raised, or answered with a status of 400
    or more. Those calls are cancelled, and a warning names them.

    The calls of one request start in their order; their handles cannot be awaited within it. Works
    with every ASGI framework, and for `q.defer` too. What a websocket defers starts at once.

    >>> app = FastAPI(lifespan=q.lifespan)  # doctest: +SKIP
    >>> app.add_middleware(AfterResponse)  # doctest: +SKIP
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or HELD.get() is not None:
            # The outermost of two decides.
            await self._app(scope, receive, send)
        else:
            await self._handle(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        held = HeldCalls()
        before = HELD.set(held)
        try:
            await self._app(scope, receive, watched)
        except BaseException as error:
            _end(held, status, error)
            raise
        else:
            _end(held, status, None)
        finally:
            HELD.reset(before)


def _end(held: HeldCalls, status: int, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, LEFT):
        held.drop(f"ended with {error!r}")
    elif error is not None and not status:
        held.drop("was given up before it had an answer")
    elif status >= 400:
        held.drop(f"was answered with status {status}")
    else:
        held.release()


class InnerWorker(WorkerSettingValues, total=False):
    """The settings of a worker inside the application: those of `q.worker(...)`."""

    queues: Sequence[str] | None


ASGILifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    q: TaskQ,
    *own: ASGILifespan,
    worker: bool | InnerWorker = False,
    scheduler: bool = False,
) -> ASGILifespan:
    """A lifespan for FastAPI that opens `q`, then `own` ones, and closes them in opposite order.

    What they yield for `request.state` is put together. `worker` runs a worker in each process of
    the web server: True, or the settings of `q.worker(...)`; it fires schedules too. `scheduler`
    does that alone, without a worker. They are for development, and for little work that waits more
    than it computes.

    >>> own = lifespan(q, my_lifespan, worker={"concurrency": 10})  # doctest: +SKIP
    >>> app = FastAPI(lifespan=own)  # doctest: +SKIP
    """

    @asynccontextmanager
    async def together(app: Any) -> AsyncGenerator[dict[str, Any], None]:
        async with AsyncExitStack() as stack:
            # The application's own are left first: what they defer at their end is run by `q`.
            state = dict(await stack.enter_async_context(q.lifespan(app)))
            for one in own:
                state.update(await stack.enter_async_context(one(app)) or {})
            if worker is not False:
                settings: InnerWorker = {} if worker is True else worker
                await stack.enter_async_context(q.worker(**{"grace": 5.0, **settings}))
            if scheduler:
                await stack.enter_async_context(q.scheduler())
            yield state

    return together
