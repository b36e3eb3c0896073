"""Tasks: names, the check of calls, and what a task remembers of its function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from taskq import CallError, ConfigError, TaskDefinitionError, TaskQ
from taskq.execution.task import AsyncTask, SyncTask, task_name


def module_level() -> None: ...


class Namespace:
    @staticmethod
    def inner() -> None: ...


def test_a_name_is_derived_from_module_and_function() -> None:
    def local() -> None: ...

    assert task_name(module_level, None) == f"{__name__}.module_level"
    assert task_name(Namespace.inner, None) == f"{__name__}.Namespace.inner"
    derived = f"{__name__}.test_a_name_is_derived_from_module_and_function.local"
    assert task_name(local, None) == derived
    assert task_name(local, "app.resize") == "app.resize"


def test_a_name_that_cannot_be_derived_is_asked_for() -> None:
    def local() -> None: ...

    local.__qualname__ = "größe"
    with pytest.raises(TaskDefinitionError, match=r"use @q\.task\(name='\.\.\.'\)"):
        task_name(local, None)
    with pytest.raises(ConfigError, match="A-Z a-z 0-9"):
        task_name(local, "größe")


def positional(a: int, b: int = 2) -> None: ...


def only_positional(a: int, /, b: int) -> None: ...


def only_keyword(*, a: int, b: int = 2) -> None: ...


def anything(*args: Any, **kwargs: Any) -> None: ...


def nothing() -> None: ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (positional, (1,), {}),
        (positional, (1, 2), {}),
        (positional, (1,), {"b": 2}),
        (positional, (), {"b": 2, "a": 1}),
        (only_positional, (1, 2), {}),
        (only_positional, (1,), {"b": 2}),
        (only_keyword, (), {"a": 1}),
        (anything, (1, 2, 3), {"x": 1}),
        (nothing, (), {}),
    ],
)
def test_calls_that_fit(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    task = TaskQ("redis://localhost").task(name="app.task")(function)

    assert task._spec.check is not None
    task._spec.check(args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (positional, (), {}),
        (positional, (1, 2, 3), {}),
        (positional, (1,), {"a": 1}),
        (positional, (), {"b": 2}),
        (positional, (1,), {"c": 2}),
        (only_positional, (), {"a": 1, "b": 2}),
        (only_keyword, (1,), {}),
        (only_keyword, (), {}),
        (nothing, (1,), {}),
    ],
)
def test_calls_that_do_not_fit(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    # Given that Python itself would refuse them
    with pytest.raises(TypeError):
        inspect.signature(function).bind(*args, **kwargs)

    task = TaskQ("redis://localhost").task(name="app.task")(function)
    assert task._spec.check is not None
    with pytest.raises(CallError, match=r"app\.task\(.*cannot be called like this"):
        task._spec.check(args, kwargs)


def test_the_kind_of_a_task_follows_its_function() -> None:
    q = TaskQ("redis://localhost")

    async def coroutine() -> None: ...

    assert type(q.task(name="a")(coroutine)) is AsyncTask
    assert type(q.task(name="b")(nothing)) is SyncTask
    assert type(q.task(name="c", executor="process")(coroutine)) is AsyncTask


def test_a_task_looks_like_its_function() -> None:
    q = TaskQ("redis://localhost")

    def resize(path: str, width: int = 800) -> str:
        """Make it smaller."""
        return path

    task = q.task(resize)
    assert inspect.signature(task) == inspect.signature(resize)
    assert (task.__doc__, vars(task)["__name__"], task.__module__) == (
        "Make it smaller.",
        "resize",
        __name__,
    )
    assert inspect.unwrap(task) is resize
