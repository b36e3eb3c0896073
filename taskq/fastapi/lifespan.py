"""The lifespan that opens a TaskQ with an application, and the `AfterResponse` middleware."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskq.app import TaskQ
from taskq.deferred.runner import HELD, HeldCalls
from taskq.fastapi.depends import CLIENT_GONE
from taskq.worker.settings import WorkerSettingValues

__all__ = ["ASGILifespan", "AfterResponse", "lifespan"]


class AfterResponse:
    """ASGI middleware: `f.defer(...)` in a request starts when the request is over.

    Without it a deferred call starts at once, while the endpoint may not have committed the data
    that the call needs. With it the call starts after the response is sent and the dependencies
    have exited, and not at all if the endpoint failed: if it raised, or answered with a status of
    400 or more. Those calls are cancelled, and a warning names them.

    The calls of one request start in their order; their handles cannot be awaited within it. Works
    with every ASGI framework, and for `q.defer` too. Calls deferred by a websocket start at once.

    >>> app = FastAPI(lifespan=q.lifespan)
    >>> app.add_middleware(AfterResponse)
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or HELD.get() is not None:
            # With two of them, the outer one decides.
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
    if error is not None and not isinstance(error, CLIENT_GONE):
        held.drop(f"ended with {error!r}")
    elif error is not None and not status:
        held.drop("ended before it was answered")
    elif status >= 400:
        held.drop(f"was answered with status {status}")
    else:
        held.release()


class InnerWorker(WorkerSettingValues, total=False):
    """The settings of a worker inside the application: the same as for `q.worker(...)`."""

    queues: Sequence[str] | None


ASGILifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


def lifespan(
    q: TaskQ,
    *own: ASGILifespan,
    worker: bool | InnerWorker = False,
    scheduler: bool = False,
) -> ASGILifespan:
    """A lifespan for FastAPI that opens `q`, then the `own` lifespans; closes in reverse order.

    The states that they yield for `request.state` are merged. `worker` runs a worker in each
    process of the web server: True, or the settings of `q.worker(...)`; it fires schedules too.
    `scheduler` only fires schedules, without a worker. Both are meant for development, and for
    small amounts of I/O-bound work.

    >>> own = lifespan(q, my_lifespan, worker={"concurrency": 10})
    >>> app = FastAPI(lifespan=own)
    """

    @asynccontextmanager
    async def together(app: Any) -> AsyncGenerator[dict[str, Any], None]:
        async with AsyncExitStack() as stack:
            # The application's own close first: `q` still runs what they defer while closing.
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
