"""TaskQ: the object that applications create, which wires all rooms together."""

from __future__ import annotations

import asyncio
import inspect
import os
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import fields
from functools import cached_property, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, Unpack, cast, overload

from taskq.broker.broker import BrokerSettings
from taskq.broker.keys import Keys
from taskq.broker.pool import BrokerPool
from taskq.broker.scripts import ClockOffset
from taskq.core.errors import CallError
from taskq.core.foreign_names import NAMES_FOR_TASKQ, ForeignNames
from taskq.core.ids import check_job_id
from taskq.core.liveness import ENQUEUE_SECONDS
from taskq.core.options import Retention, check_known
from taskq.deferred.report import DeferredSettings
from taskq.definition import TaskDecorator, define
from taskq.execution.address import refuse_unguarded_main
from taskq.execution.bulk import enqueue_all
from taskq.execution.handle import Deferred, Job
from taskq.execution.middleware import AttemptMiddleware, EnqueueMiddleware, MiddlewareKind
from taskq.execution.portal import Portal
from taskq.execution.registry import Registry
from taskq.execution.resources import STATE_KEY, Lifespan, Overrides, Resources
from taskq.execution.task import (
    AsyncTask,
    ConfiguredTask,
    Signature,
    SyncTask,
    Task,
    TaskOptionValues,
    remote_task,
)
from taskq.execution.task_context import TaskContext, closer_of
from taskq.location import RedisClient, locator

if TYPE_CHECKING:
    from taskq.deferred.runner import DeferredRunner
    from taskq.schedules.api import Schedules
    from taskq.schedules.declared import Declarations
    from taskq.schedules.policy import ScheduleOptionValues
    from taskq.schedules.scheduler import Scheduler
    from taskq.triggers.trigger import Trigger
    from taskq.worker.settings import WorkerSettingValues
    from taskq.worker.worker import Worker

__all__ = ["TaskQ", "backend_of", "declarations_of", "registry_of", "settings_of"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", bound=Task[..., Any])

CLOSING_SECONDS = 5.0
"""How long a program waits at exit for deferred calls, beyond their grace period."""


class TaskQ(ForeignNames):
    """A set of tasks and the queue through which they run.

    `url`: `redis://`, `rediss://` or `unix://`, or a `redis.asyncio.Redis`, whose address, TLS and
    credentials are used. Default: the environment variable TASKQ_URL, or an embedded server in the
    directory TASKQ_DIR, or in `./.taskq`. `namespace` separates applications that share a server.
    `enqueue_deadline` (seconds) limits how long an enqueue tries to reach the server. `retention`:
    how long failed, cancelled and expired jobs are kept. `signing_keys`: jobs and results are
    signed with the first key and verified with any of them; each has 32 bytes or more. Default: the
    environment variable TASKQ_SIGNING_KEYS, separated by commas; without it, nothing is signed.
    `lifespan`: an asynchronous context manager that takes this TaskQ and opens what its tasks need,
    once in each process that runs tasks; what it yields is `q.state` there. `deferred`: settings of
    deferred calls in this process.

    Raises `ConfigError` for an invalid URL, namespace or key. Connects when first used.

    >>> q = TaskQ("redis://localhost:6379/0", namespace="shop")
    """

    _foreign_names = NAMES_FOR_TASKQ

    def __init__(
        self,
        url: str | RedisClient | None = None,
        *,
        namespace: str = "taskq",
        enqueue_deadline: float = ENQUEUE_SECONDS,
        retention: Retention = Retention(),
        signing_keys: Sequence[str | bytes] | None = None,
        lifespan: Callable[[TaskQ], AbstractAsyncContextManager[Any]] | None = None,
        deferred: DeferredSettings = DeferredSettings(),
    ) -> None:
        self._registry = Registry()
        self._settings = BrokerSettings(
            locator(url),
            Keys(namespace),
            ClockOffset(),
            enqueue_deadline=enqueue_deadline,
            retention=retention,
            signing_keys=signing_keys,
            configured=lambda: bool(url or os.environ.get("TASKQ_URL")),
        )
        self._backend = BrokerPool(self._settings)
        self._context = TaskContext(self._backend, _deferrer(self._backend, deferred))
        self._resources = Resources(partial(lifespan, self) if lifespan is not None else None)
        self._portal = Portal(closer_of(self._context), deferred.grace + CLOSING_SECONDS)
        self._context.background = weakref.ref(self._portal)

    @cached_property
    def schedules(self) -> Schedules:
        """Schedules at run time: `await q.schedules.add(...)`."""
        # Importing it takes a fifth of the import time, and most processes only enqueue.
        from taskq.schedules.api import Schedules

        return Schedules(self._backend, self._registry)

    @cached_property
    def _declarations(self) -> Declarations:
        """The schedules that the code declares."""
        from taskq.schedules.declared import Declarations

        declarations = Declarations()
        self._registry.on_replaced.append(declarations.forget)
        return declarations

    def schedule(
        self, trigger: Trigger, /, *, id: str | None = None, **options: Unpack[ScheduleOptionValues]
    ) -> Callable[[T], T]:
        """Declare a schedule of a task: `@q.schedule(...)` above `@q.task`, once or several times.

        `id`: by default the task's name, with a number from the second schedule on. `options`: see
        `ScheduleOptionValues`. Workers and `taskq scheduler` store declared schedules when they
        start, and remove those that the code no longer declares.

        Raises `ConfigError` and `UnknownOption`, and `CallError` for arguments that do not fit.

        >>> @q.schedule(cron("0 8 * * mon-fri", tz="Asia/Shanghai"))
        ... @q.task
        ... async def daily_report() -> None: ...
        """
        return self._declarations.declare(trigger, id=id, **options)

    @property
    def state(self) -> Any:
        """What the lifespan of `TaskQ(lifespan=...)` yielded in this process.

        It exists while a worker runs, or an application with `lifespan=q.lifespan`, so endpoints
        and tasks can share code that uses it. Raises `TaskqError` elsewhere.
        """
        return self._resources.state

    @property
    def dependency_overrides(self) -> Overrides:
        """Replacements for dependencies of tasks, like the attribute of this name in FastAPI."""
        return self._resources.overrides

    @overload
    def task(  # pyright: ignore[reportOverlappingOverload] - an async def is a function too
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[TaskOptionValues]) -> TaskDecorator: ...

    def task(
        self, function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptionValues]
    ) -> Any:
        """Register a function as a task: `@q.task`, or `@q.task(queue="images", timeout=60)`.

        The options and their defaults are those of `TaskOptions`, and `name` (default:
        `module.function`).

        Raises `TaskDefinitionError` for a function that cannot be a task or whose name is taken,
        and `UnknownOption` and `ConfigError` for invalid options.

        >>> @q.task(retry=3, timeout=30)
        ... async def resize(path: str, width: int = 800) -> str: ...
        """
        if function is not None:
            return define(function, options, self._context, self._registry, self._resources)

        def decorate(decorated: Callable[..., Any], /) -> Task[..., Any]:
            return define(decorated, options, self._context, self._registry, self._resources)

        return decorate

    async def enqueue_many(self, signatures: Iterable[Signature[R]]) -> list[Job[R]]:
        """Enqueue many jobs in few round trips; their handles, in order.

        Raises as `Task.enqueue`; arguments are checked before anything is sent.

        >>> jobs = await q.enqueue_many([resize.s(p) for p in paths])
        """
        return await enqueue_all(self._backend, signatures)

    async def send(self, name: str, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueue a task by its name, without importing its code; the worker checks the arguments.

        >>> await q.send("app.tasks.resize", "a.png", width=400)
        """
        return await self.remote(name).enqueue(*args, **kwargs)

    def remote(self, name: str) -> ConfiguredTask[..., Any]:
        """A task by name: `q.remote("app.resize").options(queue="x").enqueue(...)`."""
        known = self._registry.find(name)
        return known.options() if known is not None else remote_task(self._context, name)

    @property
    def deferred(self) -> DeferredRunner:
        """The runner of deferred calls: `.stats()`, `.options(...)`, `.drain()`."""
        return cast("DeferredRunner", self._context.deferrer())

    @overload
    def defer(
        self, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]: ...

    @overload
    def defer(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[R]: ...

    def defer(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run any function, task or not, in this process; a plain `def` runs in a thread.

        With options: `q.deferred.options(timeout=5).defer(function, ...)`. Raises `BacklogFull`.

        >>> handle = q.defer(send_mail, "ada@example.org")
        """
        return self.deferred.defer(function, *args, **kwargs)

    @overload
    def middleware(self, around: AttemptMiddleware, /) -> AttemptMiddleware: ...

    @overload
    def middleware(
        self, around: Literal["attempt"], /
    ) -> Callable[[AttemptMiddleware], AttemptMiddleware]: ...

    @overload
    def middleware(
        self, around: Literal["enqueue"], /
    ) -> Callable[[EnqueueMiddleware], EnqueueMiddleware]: ...

    def middleware(self, around: Callable[..., Any] | MiddlewareKind, /) -> Any:
        """Wrap every attempt, `@q.middleware`, or every enqueue, `@q.middleware("enqueue")`.

        Middleware is `async (job, call_next)`; the first one registered is the outermost.

        Raises `ConfigError` for anything else to be wrapped.

        >>> @q.middleware
        ... async def measure(job, call_next): return await call_next(job)
        """
        return self._context.middleware.decorator(around)

    def job(self, job_id: str) -> Job[Any]:
        """A handle for the id of a job, without a call to the server."""
        return Job(self._backend, check_job_id(job_id))

    def run(self, awaitable: Awaitable[R], timeout: float | None = None) -> R:
        """Use taskq from synchronous code: run `awaitable` to its end and return its value.

        It works in scripts, threads and notebooks, and beside other event loops: each TaskQ has one
        background loop for it. `timeout` is in seconds.

        Raises what `awaitable` raises, `CallError` if it cannot be awaited, and `TaskqError` in a
        coroutine, where you can use `await`.

        >>> job = q.run(resize.enqueue("a.png"))
        """
        if not inspect.isawaitable(awaitable):
            raise CallError(
                f"q.run() takes something to await, and {awaitable!r} cannot be awaited: use "
                "q.run(add.enqueue(1, 2)), or for a signature q.run(signature.enqueue())"
            )
        return self._portal.run(awaitable, timeout)

    def worker(
        self, queues: Sequence[str] | None = None, **settings: Unpack[WorkerSettingValues]
    ) -> Worker:
        """A worker inside this program: `async with q.worker(concurrency=10): ...`.

        `queues`: by default all queues of the registered tasks. `settings`: see `WorkerSettings`.
        Leaving the block stops the worker as SIGTERM stops a worker process.

        Raises `UnknownOption` and `ConfigError` for invalid settings, and `ConfigError` in a child
        process that only imports this program: start it under `if __name__ == "__main__":`.
        """
        refuse_unguarded_main()
        # Importing it takes a third of the import time, and most processes only enqueue.
        from taskq.worker.settings import WorkerSettings
        from taskq.worker.worker import Worker

        if queues is None:
            queues = sorted({task.task_options.queue for task in self._registry}) or ["default"]
        check_known("workers", settings, [field.name for field in fields(WorkerSettings)])
        chosen = WorkerSettings(queues=queues, **cast("dict[str, Any]", settings))
        standby = self.scheduler() if chosen.scheduler and not chosen.burst else None
        on_shutdown, self._context.drains = self._context.drain_if_not_open, True
        return Worker(self._settings, self._registry, chosen, self._resources, standby, on_shutdown)

    def scheduler(self) -> Scheduler:
        """A scheduler without a worker: `async with q.scheduler(): ...`.

        Any number of processes may run one: one of them leads, and each fire creates one job.
        """
        from taskq.schedules.declared import home_of
        from taskq.schedules.scheduler import Scheduler

        modules = frozenset(home_of(task) for task in self._registry)
        return Scheduler(self._settings, tuple(self._declarations), modules)

    async def run_until_empty(
        self, queues: Sequence[str] | None = None, **settings: Unpack[WorkerSettingValues]
    ) -> int:
        """Work until nothing is due; returns how many attempts ended. For tests and scripts."""
        settings["burst"] = True
        worker = self.worker(queues, **settings)
        await worker.run()
        return worker.tally.finished

    def lifespan(self, app: object = None, *, scheduler: bool = False) -> Lifespan:
        """For ASGI: `FastAPI(lifespan=q.lifespan)` connects at startup and closes at shutdown.

        `FastAPI(lifespan=q.lifespan(scheduler=True))` also runs a scheduler: among any number of
        processes one fires schedules, and each fire creates one job.
        """
        del app
        return Lifespan(lambda: _alive(self, scheduler))

    async def __aenter__(self) -> TaskQ:
        await self._backend.current().client.connect()
        self._context.loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drain deferred calls and close the connection of this event loop.

        If the TaskQ is used again, it opens a new one.
        """
        await self._context.drain()
        await self._backend.aclose()


def settings_of(q: TaskQ) -> BrokerSettings:
    """The server, the namespace and the keys of a TaskQ."""
    return q._settings  # pyright: ignore[reportPrivateUsage]


def backend_of(q: TaskQ) -> BrokerPool:
    """The connections of a TaskQ, one for each event loop."""
    return q._backend  # pyright: ignore[reportPrivateUsage]


def registry_of(q: TaskQ) -> Registry:
    """The tasks of a TaskQ by name."""
    return q._registry  # pyright: ignore[reportPrivateUsage]


def declarations_of(q: TaskQ) -> Declarations:
    """The schedules that the code of a TaskQ declares."""
    return q._declarations  # pyright: ignore[reportPrivateUsage]


@asynccontextmanager
async def _alive(q: TaskQ, scheduler: bool) -> AsyncGenerator[dict[str, Any], None]:
    resources = q._resources  # pyright: ignore[reportPrivateUsage]
    async with resources.held(), q, q.scheduler() if scheduler else nullcontext():
        yield {STATE_KEY: q.deferred}


def _deferrer(
    backend: BrokerPool, settings: DeferredSettings
) -> Callable[[TaskContext], DeferredRunner]:
    def make(context: TaskContext) -> DeferredRunner:
        # As with the worker: a process that defers nothing does not import it.
        from taskq.deferred.runner import DeferredRunner

        return DeferredRunner(context, backend, settings)

    return make
