"""From a function with the options of `@q.task` to a registered task."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import (
    Annotated,
    Any,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    get_args,
    get_origin,
    overload,
)

from taskq.codec.type_hints import resolve_hints
from taskq.core.errors import TaskDefinitionError
from taskq.core.options import TaskOptions, task_options
from taskq.core.signatures import call_signature, shown_signature, takes
from taskq.execution.ports import Injector
from taskq.execution.registry import Registry
from taskq.execution.resources import Resources
from taskq.execution.task import (
    AsyncTask,
    SyncTask,
    Task,
    TaskOptionValues,
    task_name,
)
from taskq.execution.task_context import TaskContext

__all__ = ["TaskDecorator", "define"]

P = ParamSpec("P")
R = TypeVar("R")

_FASTAPI_PARAMS = "fastapi.params"
"""Where `Depends` is defined; a function with a dependency has loaded this module."""


class TaskDecorator(Protocol):
    """The decorator that `@q.task(...)` with options returns; it keeps the function's types."""

    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload] - an async def is a function too
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


def define(
    function: Callable[..., Any],
    given: TaskOptionValues,
    context: TaskContext,
    registry: Registry,
    resources: Resources,
) -> Task[..., Any]:
    """Create and register the task of a function.

    Raises `TaskDefinitionError`, `UnknownOption` and `ConfigError`.
    """
    options = dict(given)
    name = cast("str | None", options.pop("name", None))
    _check_function(function)
    is_async = inspect.iscoroutinefunction(function)
    checked = task_options(is_async=is_async, given=options)
    kind: type[Task[..., Any]] = AsyncTask[..., Any] if is_async else SyncTask[..., Any]
    known_as = task_name(function, name)
    injector = _injector(function, known_as, checked, resources)
    task = kind(function, known_as, checked, context, injector)
    registry.add(task)
    return task


def _check_function(function: Callable[..., Any]) -> None:
    """Refuse functions that cannot be tasks, and say what to use instead."""
    what = getattr(function, "__qualname__", repr(function))
    if isinstance(function, Task):
        raise TaskDefinitionError(f"{what} is already a task")
    if isinstance(function, (staticmethod, classmethod)) or not callable(function):
        raise TaskDefinitionError(
            f"{what} is not a plain function; put @q.task on a function of a module"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{what} is a generator; a task returns one value")
    if not inspect.isfunction(function):
        raise TaskDefinitionError(
            f"{what} is not a plain function but a {type(function).__name__}; write a function in "
            "a module that calls it, and put @q.task on that"
        )
    first = _first_parameter(function)
    if first in ("self", "cls"):
        raise TaskDefinitionError(
            f"{what} is a method: its {first!r} cannot be sent through the queue. Write a function "
            "in a module that takes the id of the object, and put @q.task on that"
        )
    if function.__name__ == "<lambda>":
        raise TaskDefinitionError("a lambda has no name for jobs to refer to; write a def")


def _first_parameter(function: Callable[..., Any]) -> str:
    """The first parameter of a call; for a function in a class, of the method itself."""
    outside = function.__qualname__.rpartition(".")[0]
    in_class = bool(outside) and not outside.endswith("<locals>")
    signature = (shown_signature if in_class else call_signature)(function)
    return next(iter(signature.parameters), "") if signature is not None else ""


def _injector(
    function: Callable[..., Any], name: str, options: TaskOptions, resources: Resources
) -> Injector | None:
    """The injector for the dependencies of a task, if it has any."""
    filled = _dependencies_of(function)
    if not filled:
        return None
    if options.executor == "process":
        raise TaskDefinitionError(
            f"{name}: {', '.join(filled)} cannot be filled with executor='process': what "
            "dependencies open belongs to the worker's process. Open it inside the task, or use "
            "another executor"
        )
    # It needs FastAPI, which a module with dependencies has already imported.
    from taskq.execution.resolver import Resolver

    return Resolver(function, name, filled, lambda: resources.overrides)


def _dependencies_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that FastAPI's `Depends` fills, with their annotations resolved.

    For a wrapper, these are the parameters of the wrapped function that the wrapper accepts.

    Raises `TaskDefinitionError` for an annotation that cannot be resolved.
    """
    marker = getattr(sys.modules.get(_FASTAPI_PARAMS), "Depends", None)
    if marker is None:
        return {}
    called, shown = call_signature(function), shown_signature(function)
    if called is None or shown is None:
        return {}
    hints, _ = resolve_hints(function)
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in shown.parameters.items():
        annotation = _meant(hints.get(name, parameter.annotation))
        if isinstance(annotation, str) and "Depends(" in annotation:
            raise TaskDefinitionError(
                f"{function.__qualname__}: {name}: {annotation!r} uses a name that cannot be "
                "found; define it in the module, above the task"
            )
        marked = isinstance(parameter.default, marker) or _is_marked(annotation, marker)
        if marked and takes(called, name):
            found[name] = parameter.replace(annotation=annotation)
    return found


def _meant(annotation: Any) -> Any:
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def _is_marked(annotation: Any, marker: type) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(note, marker) for note in get_args(annotation)[1:]
    )
