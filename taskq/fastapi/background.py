"""Background tasks with FastAPI's interface, run by the deferred runner.

An application without a runner gets a temporary one for each request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any, Final, Literal, NoReturn, ParamSpec, Unpack, cast

import fastapi
from starlette.background import BackgroundTask

from taskq.core.errors import ConfigError
from taskq.core.job import Ending, JobInfo, NewJob
from taskq.core.options import JobOptions, check_known
from taskq.deferred.plain import is_coroutine_function, name_of
from taskq.deferred.report import DeferredSettings
from taskq.deferred.runner import DeferredRunner
from taskq.execution.handle import Deferred
from taskq.execution.request import PLAIN
from taskq.execution.task import JobOptionValues
from taskq.execution.task_context import TaskContext

__all__ = ["BackgroundTasks", "ConfiguredBackgroundTasks", "When", "temporary_runner"]

_log = logging.getLogger("taskq.fastapi")


@asynccontextmanager
async def temporary_runner() -> AsyncGenerator[DeferredRunner, None]:
    """A runner without a queue; calls that still run at the end of the block are interrupted."""
    context = TaskContext(
        _QUEUE, lambda context: DeferredRunner(context, _QUEUE, DeferredSettings())
    )
    context.drains = True
    runner = DeferredRunner(context, _QUEUE, DeferredSettings())
    try:
        yield runner
    finally:
        await runner.drain(0)


class _NoQueue:
    """Stands in for the queue of an application without one."""

    @property
    def connected(self) -> bool:
        return False

    @property
    def configured(self) -> bool:
        return False

    def submit(self, jobs: Sequence[NewJob], *, awaited: bool = False) -> Awaitable[list[bool]]:
        _refuse()

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        _refuse()

    async def look(self, job_id: str) -> Ending:
        _refuse()

    async def job_info(self, job_id: str) -> JobInfo | None:
        _refuse()

    async def cancel_job(self, job_id: str) -> int:
        _refuse()

    def durable_calls(self) -> NoReturn:
        _refuse()

    async def aclose(self) -> None:
        """Do nothing: there is no connection."""


_QUEUE: Final = _NoQueue()


def _refuse() -> NoReturn:
    raise ConfigError(
        "the application has no queue to store background tasks in: use "
        "FastAPI(lifespan=q.lifespan)"
    )


P = ParamSpec("P")

When = Literal["success", "always"]


class BackgroundTaskOptionValues(JobOptionValues, total=False):
    """The keywords of `BackgroundTasks.options(...)`."""

    when: When


class BackgroundTasks(fastapi.BackgroundTasks):
    """Tasks that run after the response, in this process: a drop-in for FastAPI's class.

    Change the import, and leave the endpoints as they are. Tasks run concurrently and
    independently: a failure is logged and stops no other task, `def` functions run in threads, and
    no task is lost when the response has a background of its own or the client disconnects. They
    run in the runner of the TaskQ whose `lifespan` the application uses, and the application waits
    for them when it stops. Without such a lifespan they run as part of the request.

    `strict=True`: exactly as FastAPI does, one after the other until one fails. `via`: the runner
    for tasks collected by hand: `Response(background=BackgroundTasks(via=q.deferred))`.

    >>> @app.post("/signup")
    ... async def signup(mail: str, tasks: BackgroundTasks) -> None:
    ...     tasks.add_task(welcome, mail)
    ...     tasks.options(retry=3, durable=True).add_task(enter_in_crm, mail)
    """

    def __init__(
        self,
        tasks: Sequence[BackgroundTask] | None = None,
        *,
        strict: bool = False,
        via: DeferredRunner | None = None,
    ) -> None:
        # Starlette's __init__ does the same, with one more call for each request.
        self.tasks = list(tasks) if tasks else []
        self.strict = strict
        self._via = via
        self._taken = 0
        self._ended = False

    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `func` after the response: a coroutine function, a plain function, or a task."""
        if self.strict:
            super().add_task(func, *args, **kwargs)
        else:
            self._add(_Entry(func, args, kwargs))

    def options(self, **changes: Unpack[BackgroundTaskOptionValues]) -> ConfiguredBackgroundTasks:
        """Options for single tasks: `tasks.options(retry=3).add_task(...)`.

        The options of `q.deferred.options(...)`, and `when`: "success" (the default) runs the task
        only if the endpoint succeeded, "always" also if it raised.

        Raises `UnknownOption` with the nearest known one, and `ConfigError`, also for strict tasks,
        which have no options.
        """
        if self.strict:
            raise ConfigError(
                "strict background tasks, like FastAPI's, have no options: remove strict=True, "
                "or use BackgroundTasks instead of StrictBackgroundTasks"
            )
        check_known("background tasks", changes, BackgroundTaskOptionValues.__annotations__)
        given: dict[str, Any] = {**changes}
        when = given.pop("when", "success")
        if when not in ("success", "always"):
            raise ConfigError(f"when={when!r}: use 'success' or 'always'")
        return ConfiguredBackgroundTasks(self._add, PLAIN.with_changes(**given), when)

    async def __call__(self) -> None:
        """Run the tasks that have not started; a response calls this when it is sent."""
        if self.strict:
            await super().__call__()
            return
        if self._via is not None:
            self._start(self._via, self._take())
            return
        while entries := self._take():
            await self._run(entries)

    async def end(self, error: BaseException | None) -> None:
        """Start the tasks that have not started: the request is over, and ended with `error`.

        After an error only tasks with `when="always"` start. Tasks added later start at once.
        """
        self._ended = self._via is not None
        if self._taken == len(self.tasks):
            return
        entries = self._take()
        dropped = [] if error is None else [item for item in entries if item.when == "success"]
        if dropped:
            _log.warning(
                "%d background tasks are dropped because their request ended with %s: %s; to run a "
                "task all the same, use tasks.options(when='always').add_task(...)",
                len(dropped),
                repr(error),
                ", ".join(name_of(item.func) for item in dropped),
            )
        await self._run([item for item in entries if item not in dropped])
        if error is None:
            await self()

    def _add(self, entry: _Entry) -> None:
        self.tasks.append(entry)
        if self._ended:
            self._start(self._via, self._take())

    def _take(self) -> list[_Entry]:
        fresh, self._taken = self.tasks[self._taken :], len(self.tasks)
        return [_Entry.of(item) for item in fresh]

    async def _run(self, entries: list[_Entry]) -> None:
        """Hand tasks to the runner; without one, run them and wait for them."""
        if self._via is not None or not entries:
            self._start(self._via, entries)
            return
        async with temporary_runner() as runner:
            started = self._start(runner, entries)
            await asyncio.gather(*(item.result() for item in started), return_exceptions=True)

    def _start(
        self, runner: DeferredRunner | None, entries: Iterable[_Entry]
    ) -> list[Deferred[Any]]:
        started: list[Deferred[Any]] = []
        for entry in entries:
            try:
                started.append(entry.start(cast("DeferredRunner", runner)))
            except Exception as error:
                # The backlog is full, for example. The other tasks are not affected.
                _log.error("the background task %s cannot run: %s", name_of(entry.func), error)
        return started


class ConfiguredBackgroundTasks:
    """Options for single background tasks; made by `BackgroundTasks.options(...)`."""

    __slots__ = ("_add", "_options", "_when")

    def __init__(self, add: Callable[[_Entry], None], options: JobOptions, when: When) -> None:
        self._add = add
        self._options = options
        self._when: When = when

    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Call `func` after the response, with these options."""
        self._add(_Entry(func, args, kwargs, self._options, self._when))


class _Entry(BackgroundTask):
    """A task in Starlette's form, with its options and the context it was added in."""

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions = PLAIN,
        when: When = "success",
    ) -> None:
        # Starlette's __init__ inspects the function; the runner does that already.
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.when: When = when
        self._options = options
        self._context = copy_context()

    @property
    def is_async(self) -> bool:
        """Starlette's attribute of that name."""
        return is_coroutine_function(self.func)

    @classmethod
    def of(cls, task: BackgroundTask) -> _Entry:
        """The entry for a task; a plain Starlette task is converted."""
        if isinstance(task, _Entry):
            return task
        return cls(task.func, tuple(task.args), dict(task.kwargs))

    def start(self, runner: DeferredRunner) -> Deferred[Any]:
        """Start it in `runner`."""
        return runner.take(self.func, self._options, self.args, self.kwargs, self._context)
