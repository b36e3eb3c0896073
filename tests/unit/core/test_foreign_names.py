"""What people who come from another library try first gets them the right word."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from taskq import TaskQ

q = TaskQ("redis://localhost:1")


@q.task
async def resize(path: str) -> str:
    return path


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("delay", r"\.enqueue\(\.\.\.\)"),
        ("send", r"\.enqueue\(\.\.\.\)"),
        ("kiq", r"\.enqueue\(\.\.\.\)"),
        ("apply_async", r"\.options\(delay=\.\.\., queue=\.\.\.\)\.enqueue\(\.\.\.\)"),
        ("signature", r"\.s\(\.\.\.\)"),
    ],
)
@pytest.mark.parametrize("task", [resize, resize.options(delay=5)], ids=["task", "configured"])
def test_a_task_says_what_another_librarys_name_is_called_here(
    task: Any, name: str, instead: str
) -> None:
    with pytest.raises(AttributeError, match=rf"no attribute '{name}'; use {instead}"):
        getattr(task, name)("a.png")
    # It is a hint, not an attribute
    assert not hasattr(task, name)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("enqueue", "the task's own .enqueue"), ("send_task", "q.send"), ("actor", "@q.task")],
)
def test_a_taskq_says_what_another_librarys_name_is_called_here(name: str, instead: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}'; use {instead}"):
        getattr(q, name)


def test_any_other_name_is_missing_as_of_any_object() -> None:
    with pytest.raises(AttributeError, match=r"^'AsyncTask' object has no attribute 'nonsense'$"):
        resize.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert copy.copy(resize).name == resize.name
