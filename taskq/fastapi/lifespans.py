"""The lifespan of an application: the TaskQ, the application's own, and a worker inside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from taskq.app import TaskQ
from taskq.worker.settings import WorkerSettingValues

__all__ = ["ASGILifespan", "lifespan"]


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
