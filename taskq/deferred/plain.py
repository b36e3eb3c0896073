"""Plain functions as tasks: what `q.defer(function)` runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CoroutineType, FunctionType
from typing import Any, cast

from taskq.core.errors import TaskDefinitionError
from taskq.core.options import TaskOptions
from taskq.execution.address import module_name
from taskq.execution.task import Task
from taskq.execution.task_context import TaskContext

__all__ = ["PlainTask", "PlainTasks", "is_coroutine_function", "name_of"]

_COROUTINE, _FUNCTION = TaskOptions(executor="loop"), TaskOptions(executor="thread")


class PlainTask(Task[..., Any]):
    """A callable that is not a task: it runs in this process and cannot be enqueued."""

    def __init__(self, function: Callable[..., Any], context: TaskContext) -> None:
        options = _COROUTINE if is_coroutine_function(function) else _FUNCTION
        super().__init__(function, name_of(function), options, context)

    def _look_like(self, function: Callable[..., Any]) -> None:
        """Copy nothing: users never see this task, and attributes may be anything."""


class PlainTasks:
    """Makes tasks from plain functions, once for each function of a module."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._known: dict[Callable[..., Any], PlainTask] = {}

    def of(self, function: Task[Any, Any] | Callable[..., Any]) -> Task[..., Any]:
        """The task for a function; a task is returned as it is.

        Raises `TaskDefinitionError` for generators and for what cannot be called.
        """
        if type(function) is FunctionType:
            # The common case: checked when it was first deferred.
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
                f"{name_of(function)} is a generator: calling it runs none of its code. Defer a "
                "function that iterates over it: for item in generator(...): ..."
            )
        if type(function) is not FunctionType or "<" in function.__qualname__:
            # Methods, partials and nested functions are new objects each time.
            return PlainTask(function, self._context)
        known = self._known[function] = PlainTask(function, self._context)
        return known


def _refuse_called(function: Any) -> None:
    if type(function) is CoroutineType:
        function.close()
        raise TaskDefinitionError(
            f"{function.__qualname__}(...) was already called: use q.defer(function, argument, ...)"
        )


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether calling it returns a coroutine, as far as can be known before the call."""
    return any(_is_kind(inspect.iscoroutinefunction, target) for target in _call_targets(function))


def is_generator_function(function: Callable[..., Any]) -> bool:
    """Whether calling it returns a generator, sync or async, as far as can be known before."""
    return any(
        _is_kind(inspect.isgeneratorfunction, target)
        or _is_kind(inspect.isasyncgenfunction, target)
        for target in _call_targets(function)
    )


def name_of(function: Callable[..., Any]) -> str:
    """A name for logs."""
    target: Any = _unwrap_partial(function)
    has_name = isinstance(_attribute(target, "__qualname__"), str)
    named = target if has_name else cast("type[Any]", type(target))
    # Methods of built-in classes have no module.
    module = _attribute(named, "__module__")
    return f"{module_name(named) if isinstance(module, str) else 'builtins'}.{named.__qualname__}"


def _task_of(function: Any) -> Task[..., Any] | None:
    try:
        return cast("Task[..., Any]", function) if isinstance(function, Task) else None
    except Exception:  # a proxy without a target
        return None


def _unwrap_partial(function: Any) -> Any:
    while issubclass(type(function), functools.partial):
        function = function.func
    return function


def _call_targets(function: Any) -> tuple[Any, Any]:
    """Where the kind of a callable shows: in itself, or in the `__call__` of its class."""
    target = _unwrap_partial(function)
    return target, type(target).__call__


def _is_kind(test: Callable[[Any], bool], target: Any) -> bool:
    flags = _attribute(_attribute(target, "__code__"), "co_flags")
    try:
        # The flags of a mock are a mock, and truthy.
        return (flags is None or isinstance(flags, int)) and test(target)
    except Exception:  # proxies, as in _attribute
        return False


def _attribute(thing: Any, name: str) -> Any:
    """An attribute, or None: proxies and mocks may raise anything."""
    try:
        return getattr(thing, name, None)
    except Exception:
        return None
