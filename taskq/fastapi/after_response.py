"""Middleware below which what is deferred starts after the response."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskq.deferred.held import HELD, HeldCalls
from taskq.fastapi.injecting import LEFT

__all__ = ["AfterResponse"]


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
