"""From a function and what `@q.task` says of it to a registered task."""

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
    """What `@q.task(...)` with options gives: a decorator that keeps the function's types."""

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
    """Make and register the task of a function.

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
    """Refuse what cannot be a task, with what to type instead."""
    what = getattr(function, "__qualname__", repr(function))
    if isinstance(function, Task):
        raise TaskDefinitionError(f"{what} is a task already")
    if isinstance(function, (staticmethod, classmethod)) or not callable(function):
        raise TaskDefinitionError(f"{what} is no plain function; put @q.task on one of a module")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TaskDefinitionError(f"{what} is a generator; a task returns one value")
    if not inspect.isfunction(function):
        raise TaskDefinitionError(
            f"{what} is no plain function but a {type(function).__name__}; write a module's "
            "function that calls it, and put @q.task on that"
        )
    first = _first_parameter(function)
    if first in ("self", "cls"):
        raise TaskDefinitionError(
            f"{what} is a method: its {first!r} cannot travel through the queue. Write a module's "
            "function that takes the id of what it works on, and put @q.task on that"
        )
    if function.__name__ == "<lambda>":
        raise TaskDefinitionError("a lambda has no name to be found by; write a def")


def _first_parameter(function: Callable[..., Any]) -> str:
    """The first parameter of what is called; of a function of a class, that of the method."""
    outside = function.__qualname__.rpartition(".")[0]
    in_class = bool(outside) and not outside.endswith("<locals>")
    signature = (shown_signature if in_class else call_signature)(function)
    return next(iter(signature.parameters), "") if signature is not None else ""


def _injector(
    function: Callable[..., Any], name: str, options: TaskOptions, resources: Resources
) -> Injector | None:
    """What fills the dependencies of a task, if it has some."""
    filled = _dependencies_of(function)
    if not filled:
        return None
    if options.executor == "process":
        raise TaskDefinitionError(
            f"{name}: {', '.join(filled)} cannot be filled in a process of its own: what "
            "dependencies open belongs to the worker's. Open it inside the task, or leave out "
            "executor='process'"
        )
    # It needs FastAPI, which whoever has a dependency has imported.
    from taskq.execution.resolver import Resolver

    return Resolver(function, name, filled, lambda: resources.overrides)


def _dependencies_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that FastAPI's `Depends` fills, with their annotations resolved.

    Those of what a wrapper wraps count as far as the wrapper takes them.

    Raises `TaskDefinitionError` when it cannot tell.
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
                f"{function.__qualname__}: {name}: {annotation!r} names what cannot be found from "
                "here; define it in the module, above the task"
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
