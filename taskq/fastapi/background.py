"""Background tasks with the interface of FastAPI's, run by the deferred runner.

An application without a runner gets one for the single request.
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
from taskq.deferred.ports import DeferralStore
from taskq.deferred.report import DeferredSettings
from taskq.deferred.runner import DeferredRunner
from taskq.execution.handle import Deferred
from taskq.execution.request import PLAIN
from taskq.execution.task import JobOptionValues
from taskq.execution.task_context import TaskContext

__all__ = ["Adding", "BackgroundTasks", "When", "runner_on_the_spot"]


@asynccontextmanager
async def runner_on_the_spot() -> AsyncGenerator[DeferredRunner, None]:
    """A runner without a queue; what still runs at the end of the block is interrupted."""
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
    """The queue of an application that has none."""

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

    def deferrals(self) -> DeferralStore:
        _refuse()

    async def aclose(self) -> None:
        """There is nothing to close."""


_QUEUE: Final = _NoQueue()


def _refuse() -> NoReturn:
    raise ConfigError(
        "the application has no queue to keep background tasks in: type "
        "FastAPI(lifespan=q.lifespan)"
    )


_log = logging.getLogger("taskq.fastapi")

P = ParamSpec("P")

When = Literal["success", "always"]


class AddingOptionValues(JobOptionValues, total=False):
    """The keywords of `BackgroundTasks.options(...)`."""

    when: When


class BackgroundTasks(fastapi.BackgroundTasks):
    """Tasks that run after the response, in this process: FastAPI's, with the same calls.

    Change the import, and leave the endpoints as they are. Tasks run at the same time, each for
    itself: one that fails is logged and stops nobody, `def` functions have threads of their own,
    and neither a background of the response's own nor a client that leaves loses them. They belong
    to the runner of the TaskQ whose `lifespan` the application has, and the application waits for
    them when it stops. Without one they run as part of the request.

    `strict=True`: exactly as FastAPI's, one after the other until one fails. `via`: the runner of
    a collection that is made by hand: `Response(background=BackgroundTasks(via=q.deferred))`.

    >>> @app.post("/signup")  # doctest: +SKIP
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
        # Not Starlette's: it does the same, a call deeper, for each request.
        self.tasks = list(tasks) if tasks else []
        self.strict = strict
        self._via = via
        self._taken = 0
        self._ended = False

    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `func` called after the response: a coroutine function, a plain one, or a task."""
        if self.strict:
            super().add_task(func, *args, **kwargs)
        else:
            self._add(_Entry(func, args, kwargs))

    def options(self, **changes: Unpack[AddingOptionValues]) -> Adding:
        """Options for single tasks: `tasks.options(retry=3).add_task(...)`.

        Those of `q.deferred.options(...)`, and `when`: "success" (the default) runs the task when
        the endpoint has succeeded, "always" also when it has raised.

        Raises `UnknownOption` with the nearest known one, and `ConfigError`; strict tasks have no
        options.
        """
        if self.strict:
            raise ConfigError(
                "strict background tasks are FastAPI's and have no options: leave out strict=True, "
                "or type BackgroundTasks instead of StrictBackgroundTasks"
            )
        check_known("background tasks", changes, AddingOptionValues.__annotations__)
        given: dict[str, Any] = {**changes}
        when = given.pop("when", "success")
        if when not in ("success", "always"):
            raise ConfigError(f"when={when!r}: type 'success' or 'always'")
        return Adding(self._add, PLAIN.with_changes(**given), when)

    async def __call__(self) -> None:
        """Run what was added and has not begun; a response calls this at its end."""
        if self.strict:
            await super().__call__()
            return
        if self._via is not None:
            self._begin(self._via, self._take())
            return
        while entries := self._take():
            await self._run(entries)

    async def end(self, error: BaseException | None) -> None:
        """The request is over; `error` is what it ended with.

        What has not begun begins now, but for what an error is to keep from running. What is added
        later begins at once.
        """
        self._ended = self._via is not None
        if self._taken == len(self.tasks):
            return
        entries = self._take()
        dropped = [] if error is None else [item for item in entries if item.when == "success"]
        if dropped:
            _log.warning(
                "%d background tasks are dropped, since their request ended with %s: %s; "
                "tasks.options(when='always').add_task(...) adds what shall run all the same",
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
            self._begin(self._via, self._take())

    def _take(self) -> list[_Entry]:
        fresh, self._taken = self.tasks[self._taken :], len(self.tasks)
        return [_Entry.of(item) for item in fresh]

    async def _run(self, entries: list[_Entry]) -> None:
        """Hand them to the runner; without one, run them to their end."""
        if self._via is not None or not entries:
            self._begin(self._via, entries)
            return
        async with runner_on_the_spot() as runner:
            begun = self._begin(runner, entries)
            await asyncio.gather(*(item.result() for item in begun), return_exceptions=True)

    def _begin(
        self, runner: DeferredRunner | None, entries: Iterable[_Entry]
    ) -> list[Deferred[Any]]:
        begun: list[Deferred[Any]] = []
        for entry in entries:
            try:
                begun.append(entry.begin(cast("DeferredRunner", runner)))
            except Exception as error:
                # Of one: too many wait already, say. The others know nothing of it.
                _log.error("the background task %s cannot run: %s", name_of(entry.func), error)
        return begun


class Adding:
    """Options for single background tasks; made by `BackgroundTasks.options(...)`."""

    __slots__ = ("_add", "_options", "_when")

    def __init__(self, add: Callable[[_Entry], None], options: JobOptions, when: When) -> None:
        self._add = add
        self._options = options
        self._when: When = when

    def add_task(self, func: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `func` called after the response, with these options."""
        self._add(_Entry(func, args, kwargs, self._options, self._when))


class _Entry(BackgroundTask):
    """A task as Starlette keeps it, with its options and the context it was added in."""

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions = PLAIN,
        when: When = "success",
    ) -> None:
        # Not Starlette's, which finds out what kind of function it is: the runner knows.
        self.func = func
        self.args = args
        self.kwargs = kwargs
        self.when: When = when
        self._options = options
        self._context = copy_context()

    @property
    def is_async(self) -> bool:
        """What Starlette's own has as an attribute."""
        return is_coroutine_function(self.func)

    @classmethod
    def of(cls, task: BackgroundTask) -> _Entry:
        """An entry for a task of Starlette's own."""
        if isinstance(task, _Entry):
            return task
        return cls(task.func, tuple(task.args), dict(task.kwargs))

    def begin(self, runner: DeferredRunner) -> Deferred[Any]:
        """Defer it."""
        return runner.take(self.func, self._options, self.args, self.kwargs, self._context)
