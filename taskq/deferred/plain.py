"""Plain functions as tasks: what `q.defer(function)` runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

from taskq.core.errors import TaskDefinitionError
from taskq.core.options import TaskOptions
from taskq.execution.home import Home
from taskq.execution.task import Task, module_name

__all__ = ["PlainTask", "PlainTasks"]

_COROUTINE, _FUNCTION = TaskOptions(executor="loop"), TaskOptions(executor="thread")


class PlainTask(Task[..., Any]):
    """A callable that is no task: it runs in this process, and cannot go to the queue."""

    def __init__(self, function: Callable[..., Any], home: Home) -> None:
        options = _COROUTINE if is_coroutine_function(function) else _FUNCTION
        super().__init__(function, name_of(function), options, home)


class PlainTasks:
    """The tasks of plain functions; those of a module's functions are made once."""

    def __init__(self, home: Home) -> None:
        self._home = home
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
        if isinstance(function, Task):
            return cast("Task[..., Any]", function)
        if inspect.iscoroutine(function):
            function.close()
            raise TaskDefinitionError(
                f"{function.__qualname__}(...) was called already: type q.defer(function, "
                "argument, ...)"
            )
        if not callable(function):
            raise TaskDefinitionError(f"{function!r} cannot be called; type q.defer(function, ...)")
        if is_generator_function(function):
            raise TaskDefinitionError(
                f"{name_of(function)} is a generator: to call it runs nothing of it. Defer a "
                "function that goes through it: for item in generator(...): ..."
            )
        if not inspect.isfunction(function) or "<" in function.__qualname__:
            # Methods, partials and functions inside of others are new objects each time.
            return PlainTask(function, self._home)
        known = self._known[function] = PlainTask(function, self._home)
        return known


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine, as far as it can be told before."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or (
        not inspect.isroutine(function)
        and not inspect.isclass(function)
        and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    )


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a generator, of either kind, as far as it can be told before."""
    while isinstance(function, functools.partial):
        function = function.func
    called = function
    if not inspect.isroutine(function) and not inspect.isclass(function):
        called = function.__call__
    return inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)


def name_of(function: Callable[..., Any]) -> str:
    """A name for logs."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    # Methods of built-in classes are of no module.
    return f"{module_name(named.__module__ or 'builtins')}.{named.__qualname__}"
