"""The tasks of one TaskQ by name. Names in messages are looked up here, never imported."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from taskq.core.errors import TaskDefinitionError, UnknownTask
from taskq.core.signatures import is_typed
from taskq.execution.task import Task

__all__ = ["Registry"]


class Registry:
    """Maps names to tasks. `on_replaced` are called with the name of a task that is redefined."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[Any, Any]] = {}
        self.on_replaced: list[Callable[[str], None]] = []
        self._executors: set[str] = set()

    def add(self, task: Task[Any, Any]) -> None:
        """Register a task.

        A task defined at a prompt or in a notebook replaces the one of the same name.

        Raises `TaskDefinitionError` if another task has its name.
        """
        other = self._tasks.get(task.name)
        if other is not None and is_typed(task.function) and is_typed(other.function):
            for forget in self.on_replaced:
                forget(task.name)
        elif other is not None:
            raise TaskDefinitionError(
                f"two tasks are called {task.name!r}: {_place(other)} and {_place(task)}; rename "
                "one of them: @q.task(name='...')"
            )
        self._tasks[task.name] = task
        self._executors.add(task.task_options.executor)

    def find(self, name: str) -> Task[Any, Any] | None:
        """The task of this name, or None."""
        return self._tasks.get(name)

    def unknown(self, name: str) -> UnknownTask:
        """The error for an unregistered name, with the nearest registered one."""
        near = difflib.get_close_matches(name, self._tasks, n=1, cutoff=0.5)
        hint = f"; the nearest registered name is {near[0]!r}" if near else ""
        return UnknownTask(
            f"no task is registered as {name!r}{hint}. Does the worker import the module that "
            "defines it?"
        )

    def executors(self) -> set[str]:
        """The executors that registered tasks use."""
        return self._executors

    def names(self) -> list[str]:
        """All registered names, sorted."""
        return sorted(self._tasks)

    def __iter__(self) -> Iterator[Task[Any, Any]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)


def _place(task: Task[Any, Any]) -> str:
    code = task.function.__code__
    return f"{task.function.__qualname__} ({code.co_filename}:{code.co_firstlineno})"
