"""The tasks of one TaskQ by name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from taskq import TaskDefinitionError, TaskQ, UnknownTask


def three_tasks() -> TaskQ:
    q = TaskQ("redis://localhost")
    for name in ("app.tasks.resize", "app.tasks.crop", "app.mail.send"):
        q.task(name=name)(new_function())
    return q


def new_function() -> Callable[[], Coroutine[Any, Any, None]]:
    async def work() -> None: ...

    return work


def test_a_task_is_found_by_its_name_and_no_other() -> None:
    registry = three_tasks()._registry

    found = registry.find("app.mail.send")
    assert found is not None
    assert found.name == "app.mail.send"
    for name in ("app.mail", "app.mail.send ", "APP.MAIL.SEND", "", "app.mail:send"):
        assert registry.find(name) is None


def test_it_can_be_listed_counted_and_walked() -> None:
    registry = three_tasks()._registry

    assert registry.names() == ["app.mail.send", "app.tasks.crop", "app.tasks.resize"]
    assert len(registry) == 3
    assert {task.name for task in registry} == set(registry.names())


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    registry = three_tasks()._registry

    error = registry.unknown("app.task.resise")
    assert isinstance(error, UnknownTask)
    assert isinstance(error, LookupError)
    assert "'app.task.resise'; the nearest registered name is 'app.tasks.resize'" in str(error)
    # And a name like no other with a question
    text = str(registry.unknown("zzz"))
    assert "nearest" not in text
    assert "Does the worker import the module that defines it?" in text


def test_a_name_is_given_once() -> None:
    q = three_tasks()

    with pytest.raises(TaskDefinitionError, match=r"two tasks are called 'app\.mail\.send'"):
        q.task(name="app.mail.send")(new_function())
    assert len(q._registry) == 3


def test_every_taskq_has_tasks_of_its_own() -> None:
    first, second = three_tasks(), TaskQ("redis://localhost")

    assert len(first._registry) == 3
    assert len(second._registry) == 0
