"""Plain functions as tasks: what `q.defer(function)` runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CoroutineType, FunctionType
from typing import Any, cast

from taskq.core.errors import TaskDefinitionError
from taskq.core.options import TaskOptions
from taskq.execution.middleware import module_name
from taskq.execution.task import Task
from taskq.execution.task_context import TaskContext

__all__ = ["PlainTask", "PlainTasks", "is_coroutine_function", "name_of"]

_COROUTINE, _FUNCTION = TaskOptions(executor="loop"), TaskOptions(executor="thread")


class PlainTask(Task[..., Any]):
    """A callable that is no task: it runs in this process, and cannot go to the queue."""

    def __init__(self, function: Callable[..., Any], context: TaskContext) -> None:
        options = _COROUTINE if is_coroutine_function(function) else _FUNCTION
        super().__init__(function, name_of(function), options, context)

    def _look_like(self, function: Callable[..., Any]) -> None:
        """Nobody sees it, and the attributes of a callable may be anything."""


class PlainTasks:
    """The tasks of plain functions; those of a module's functions are made once."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._known: dict[Callable[..., Any], PlainTask] = {}

    def of(self, function: Task[Any, Any] | Callable[..., Any]) -> Task[..., Any]:
        """The task of a function; a task is its own.

        Raises `TaskDefinitionError` for what cannot be called, and for generators.
        """
        if type(function) is FunctionType:
            # The common case: it was checked when it was deferred first.
            known = self._known.get(function)
            if known is not None:
                return known
        elif (task := _task_of(function)) is not None:
            return task
        else:
            task = _task_of(function)
            if task is not None:
                return task
            _refuse_called(function)
        if not callable(function):
            raise TaskDefinitionError(f"{function!r} cannot be called; use q.defer(function, ...)")
        if is_generator_function(function):
            raise TaskDefinitionError(
                f"{name_of(function)} is a generator: to call it runs nothing of it. Defer a "
                "function that goes through it: for item in generator(...): ..."
            )
        if type(function) is not FunctionType or "<" in function.__qualname__:
            # Methods, partials and functions inside of others are new objects each time.
            return PlainTask(function, self._context)
        known = self._known[function] = PlainTask(function, self._context)
        return known


def _refuse_called(function: Any) -> None:
    if type(function) is CoroutineType:
        function.close()
        raise TaskDefinitionError(
            f"{function.__qualname__}(...) was called already: use q.defer(function, argument, ...)"
        )


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, as far as it can be told before."""
    return any(_is(inspect.iscoroutinefunction, face) for face in _faces(function))


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, of either kind, as far as it can be told before."""
    return any(
        _is(inspect.isgeneratorfunction, face) or _is(inspect.isasyncgenfunction, face)
        for face in _faces(function)
    )


def name_of(function: Callable[..., Any]) -> str:
    """A name for logs."""
    whole: Any = _whole(function)
    shown = isinstance(_attribute(whole, "__qualname__"), str)
    named = whole if shown else cast("type[Any]", type(whole))
    # Methods of built-in classes are of no module.
    module = _attribute(named, "__module__")
    return f"{module_name(named) if isinstance(module, str) else 'builtins'}.{named.__qualname__}"


def _task_of(function: Any) -> Task[..., Any] | None:
    try:
        return cast("Task[..., Any]", function) if isinstance(function, Task) else None
    except Exception:  # a proxy that leads nowhere
        return None


def _whole(function: Any) -> Any:
    while issubclass(type(function), functools.partial):
        function = function.func
    return function


def _faces(function: Any) -> tuple[Any, Any]:
    """Where it shows what a call gives: in the callable, or in the `__call__` of its class."""
    whole = _whole(function)
    return whole, type(whole).__call__


def _is(kind: Callable[[Any], bool], face: Any) -> bool:
    flags = _attribute(_attribute(face, "__code__"), "co_flags")
    try:
        # Those of a mock are a mock, and true.
        return (flags is None or isinstance(flags, int)) and kind(face)
    except Exception:  # as below
        return False


def _attribute(thing: Any, name: str) -> Any:
    """An attribute, or None: proxies and mocks raise what they like."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None
