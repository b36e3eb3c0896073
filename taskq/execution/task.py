"""Tasks: functions with their options, and the typed ways to run them later."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast

from taskq.codec.arrival_check import check_arrival
from taskq.codec.rebuild import CallRebuilder, result_rebuilder
from taskq.codec.secret_arguments import SecretWrapper
from taskq.core.durations import Duration
from taskq.core.errors import CallError, ConfigError, TaskDefinitionError
from taskq.core.foreign_names import NAMES_FOR_TASKS, ForeignNames
from taskq.core.ids import check_name
from taskq.core.options import ExecutorName, JobOptions, Order, TaskOptions, WhenFull
from taskq.core.retry import Retry
from taskq.core.signatures import call_signature
from taskq.execution.address import module_name
from taskq.execution.handle import Deferred, Job
from taskq.execution.middleware import JobDraft, call_through, checked_handle
from taskq.execution.ports import Injector, JobBackend
from taskq.execution.request import PLAIN, Request, TaskSpec
from taskq.execution.task_context import TaskContext

__all__ = [
    "AsyncTask",
    "ConfiguredTask",
    "JobOptionValues",
    "Signature",
    "SyncTask",
    "Task",
    "TaskOptionValues",
    "backend_of",
    "job_options_of",
    "remote_task",
    "request_of",
    "task_name",
    "task_spec_of",
]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_NOTHING: frozenset[str] = frozenset()


class TaskOptionValues(TypedDict, total=False):
    """The keywords of `@q.task(...)`; see `TaskOptions` for their meaning and defaults."""

    name: str | None
    queue: str
    priority: int
    retry: Retry | int | None
    timeout: Duration | None
    soft_timeout: Duration | None
    executor: ExecutorName | None
    result_ttl: Duration
    expires: Duration | None


class JobOptionValues(TypedDict, total=False):
    """The keywords of `Task.options(...)`.

    `delay` (a duration) or `eta` (an aware datetime): the earliest start. `expires` (a duration
    from now, or an aware datetime): the latest start. `id`: the job's id; enqueueing an id that
    exists returns a handle of the job that has it. The others override the task's options for this
    job.

    Only for `defer`: `key` identifies equal calls of a task: while one of them waits, another call
    returns its handle. `debounce` (a duration): the call of a `key` starts when this time has
    passed without another one, with the arguments of the last. `order="submitted"`: calls with the
    same `key`, or without a key in the same request, run one after another. `durable`: the job is
    also in the queue, which runs it if this process dies. `when_full`: `wait`, `reject` or `spill`.
    """

    queue: str
    priority: int
    delay: Duration | None
    eta: datetime | None
    expires: Duration | datetime | None
    id: str | None
    timeout: Duration | None
    result_ttl: Duration | None
    retry: Retry | int | None
    headers: dict[str, str]
    key: str | None
    debounce: Duration | None
    order: Order | None
    durable: bool
    when_full: WhenFull | None


@dataclass(frozen=True, slots=True)
class Signature(Generic[R_co]):
    """A task with its arguments, `args` and `kwargs`, not yet a job: `resize.s("a.png")`."""

    _backend: JobBackend
    _spec: TaskSpec
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    _options: JobOptions = PLAIN

    def options(self, **changes: Unpack[JobOptionValues]) -> Signature[R_co]:
        """The same signature with other options; see `JobOptionValues`."""
        return replace(self, _options=self._options.with_changes(**changes))

    async def enqueue(self) -> Job[R_co]:
        """Enqueue a job of this task with these arguments; raises as `Task.enqueue`."""
        return await _enqueue(self._backend, self._spec, self._options, self.args, self.kwargs)


class Task(ForeignNames, Generic[P, R]):
    """A registered function: call it as before, `enqueue` it, or `defer` it.

    `@q.task` makes it. `name` is how jobs refer to it, `function` the plain function, and
    `task_options` its options, a `TaskOptions`.
    """

    _foreign_names = NAMES_FOR_TASKS

    def __init__(
        self,
        function: Callable[P, Any],
        name: str,
        options: TaskOptions,
        context: TaskContext,
        injector: Injector | None = None,
    ) -> None:
        self._look_like(function)
        self.function = function
        self.name = name
        self.task_options = options
        self._context = context
        self._backend = context.backend
        filled = injector.names if injector is not None else _NOTHING
        call_rebuilder = functools.cache(lambda: CallRebuilder.of(function, filled))
        self._spec = TaskSpec(
            name,
            options,
            check=_checker(name, function, filled),
            rebuild=_LazyResult[R](function),
            conceal=SecretWrapper.of(function, filled),
            arrives=functools.partial(check_arrival, call_rebuilder),
            call_rebuilder=call_rebuilder,
            injector=injector,
            middleware=context.middleware,
        )

    def _look_like(self, function: Callable[P, Any]) -> None:
        functools.update_wrapper(cast("Callable[P, Any]", self), function)

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job, which a worker runs.

        Raises `CallError` for arguments that do not fit the signature, `EncodeError` for those that
        cannot be serialised, `ServerUnavailable` and `QueueFull`; then nothing was enqueued.

        >>> job = await resize.enqueue("a.png", width=400)
        """
        return await _enqueue(self._backend, self._spec, PLAIN, args, kwargs)

    def defer(self, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Run it in this process, concurrently with the caller.

        In a web request it starts before the response and before a later commit. Below
        `taskq.fastapi.AfterResponse`, and with `BackgroundTasks`, it starts after them, and not at
        all if the endpoint failed.

        Nothing is serialised, and the call returns at once. It works in threads and in scripts
        without an event loop, too. With options: `f.options(timeout=5, key="a").defer(...)`.

        Raises `CallError` for arguments that do not fit the signature, and `BacklogFull`.

        >>> handle = resize.defer("a.png", width=400)
        """
        return self._context.deferrer().take(self, PLAIN, args, kwargs)

    def options(self, **changes: Unpack[JobOptionValues]) -> ConfiguredTask[P, R]:
        """This task with options for a single job; see `JobOptionValues`.

        Raises `UnknownOption` and `ConfigError`.

        >>> await resize.options(delay=30, priority=9).enqueue("a.png")
        """
        return ConfiguredTask(self._backend, self._spec, PLAIN.with_changes(**changes), self)

    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """A signature: this task with arguments, not yet a job."""
        return Signature(self._backend, self._spec, args, kwargs)

    def job(self, job_id: str) -> Job[R]:
        """A handle for the id of a job of this task, without a call to the server.

        Its result has the type that this function returns; that of `q.job(id)` is plain data.

        >>> await resize.job(job_id).result()
        'a-800.png'
        """
        return Job(
            self._backend,
            check_name("job id", job_id),
            keeps_result=self.task_options.result_ttl > 0,
            rebuild=self._spec.rebuild,
            on_wait=self._spec.waited_for,
        )

    def __repr__(self) -> str:
        return f"<task {self.name}>"


def task_spec_of(what: Task[..., Any] | Signature[Any]) -> TaskSpec:
    """The spec of a task, or of the task of a signature."""
    return what._spec  # pyright: ignore[reportPrivateUsage]


def backend_of(signature: Signature[Any]) -> JobBackend:
    """Where the job of a signature is submitted."""
    return signature._backend  # pyright: ignore[reportPrivateUsage]


def job_options_of(signature: Signature[Any]) -> JobOptions:
    """The options of a signature."""
    return signature._options  # pyright: ignore[reportPrivateUsage]


def request_of(signature: Signature[Any]) -> Request:
    """The job of a signature, checked and serialised; raises as `Task.enqueue`."""
    options = job_options_of(signature).for_the_queue()
    return Request.of(task_spec_of(signature), options, signature.args, signature.kwargs)


class AsyncTask(Task[P, R]):
    """A task from an `async def` function."""

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function directly."""
        # A coroutine function itself, so that frameworks recognise it as one.
        return await self.function(*args, **kwargs)


class SyncTask(Task[P, R]):
    """A task from a plain `def` function."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the plain function directly."""
        return self.function(*args, **kwargs)


class ConfiguredTask(ForeignNames, Generic[P, R]):
    """A task with options for a single job; see `Task.options`."""

    _foreign_names = NAMES_FOR_TASKS
    __slots__ = ("_backend", "_options", "_spec", "_task")

    def __init__(
        self,
        backend: JobBackend,
        spec: TaskSpec,
        options: JobOptions,
        task: Task[P, R] | None = None,
    ) -> None:
        self._backend = backend
        self._spec = spec
        self._options = options
        self._task = task

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Enqueue a job with these options; raises as `Task.enqueue`."""
        return await _enqueue(self._backend, self._spec, self._options, args, kwargs)

    def defer(self, /, *args: P.args, **kwargs: P.kwargs) -> Deferred[R]:
        """Run it in this process with these options; raises as `Task.defer`."""
        task = self._task
        if task is None:
            raise TaskDefinitionError(
                f"{self._spec.name} is known only by name and cannot run in this process: import "
                "its task, or enqueue it"
            )
        deferrer = task._context.deferrer()  # pyright: ignore[reportPrivateUsage]
        return deferrer.take(task, self._options, args, kwargs)

    def options(self, **changes: Unpack[JobOptionValues]) -> ConfiguredTask[P, R]:
        """The same task with further options."""
        changed = self._options.with_changes(**changes)
        return ConfiguredTask(self._backend, self._spec, changed, self._task)

    def s(self, /, *args: P.args, **kwargs: P.kwargs) -> Signature[R]:
        """A signature: this task with arguments and these options, not yet a job."""
        return Signature(self._backend, self._spec, args, kwargs, self._options)


def remote_task(context: TaskContext, name: str) -> ConfiguredTask[..., Any]:
    """A task known only by name, for producers that do not import its code."""
    options, around = TaskOptions(), context.middleware
    spec = TaskSpec(check_name("task", name), options, middleware=around)
    return ConfiguredTask(context.backend, spec, PLAIN)


async def _enqueue(
    backend: JobBackend,
    spec: TaskSpec,
    options: JobOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Job[Any]:
    if spec.middleware.enqueues:
        return await _enqueue_through(backend, spec, options, args, kwargs)
    if options is not PLAIN:
        options.for_the_queue()
    return await Request.of(spec, options, args, kwargs).submit(backend, spec)


async def _enqueue_through(
    backend: JobBackend,
    spec: TaskSpec,
    options: JobOptions,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Job[Any]:
    async def submit(draft: JobDraft) -> Job[Any]:
        options = draft.options.for_the_queue()
        return await Request.of(spec, options, draft.args, draft.kwargs).submit(backend, spec)

    draft = JobDraft(task=spec.name, args=args, kwargs=kwargs, options=options)
    handle = await call_through(spec.middleware.enqueues, draft, submit)
    return checked_handle(Job[Any], Job, handle, draft)


def _checker(
    name: str, function: Callable[..., Any], filled: frozenset[str]
) -> Callable[[tuple[Any, ...], dict[str, Any]], None] | None:
    """A check of arguments against the signature, with a fast path for positional ones.

    None if the function has no signature; the call itself then raises. `filled`: parameters that
    dependencies fill and callers must not pass.
    """
    declared = call_signature(function)
    if declared is None:
        return None
    parameters = [item for item in declared.parameters.values() if item.name not in filled]
    signature = declared.replace(parameters=parameters)
    plain = all(item.kind is item.POSITIONAL_OR_KEYWORD for item in parameters)
    least = sum(item.default is item.empty for item in parameters) if plain else 1_000_000
    most = len(parameters)

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not kwargs and least <= len(args) <= most:
            return
        passed = next((key for key in kwargs if key in filled), None)
        if passed is not None:
            raise CallError(
                f"{name}{signature} cannot be called with {passed}=, which a dependency fills: "
                "leave it out"
            )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise CallError(f"{name}{signature} cannot be called like this: {error}") from None

    return check


class _LazyResult(Generic[R]):
    """Converts results to the return annotation, which is resolved when the first one arrives."""

    __slots__ = ("_function", "_rebuild", "_resolved")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._resolved = False
        self._rebuild: Callable[[Any], R] | None = None

    def __call__(self, value: Any) -> R:
        if not self._resolved:
            self._rebuild = cast("Callable[[Any], R] | None", result_rebuilder(self._function))
            self._resolved = True
        return value if self._rebuild is None else self._rebuild(value)


def task_name(function: Callable[..., Any], name: str | None) -> str:
    """The name of a task: `name`, or else `module.function`."""
    if name is not None:
        return check_name("task", name)
    module = module_name(function)
    derived = f"{module}.{function.__qualname__}".replace(".<locals>.", ".")
    try:
        return check_name("task", derived)
    except ConfigError:
        raise TaskDefinitionError(
            f"the function's own name {derived!r} cannot name a task; use @q.task(name='...')"
        ) from None
