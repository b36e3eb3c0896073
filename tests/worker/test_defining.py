"""What can be a task, and what is refused with the way out."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import taskq
from taskq import TaskDefinitionError, TaskQ


class Painter:
    def paint(self) -> None: ...

    @classmethod
    def open(cls) -> None: ...

    def __call__(self) -> None: ...


def numbers() -> Iterator[int]:
    yield 1


async def ticks() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (Painter.paint, "Painter.paint is a method: its 'self' cannot be sent"),
        (Painter.open, "not a plain function"),
        (Painter().paint, "not a plain function but a method"),
        (Painter(), "not a plain function but a Painter"),
        (Painter, "not a plain function but a type"),
        (functools.partial(print, "a"), "not a plain function but a partial"),
        (lambda: None, "a lambda has no name for jobs to refer to; write a def"),
        (numbers, "numbers is a generator; a task returns one value"),
        (ticks, "ticks is a generator; a task returns one value"),
        (len, "not a plain function but a builtin_function_or_method"),
        (staticmethod(numbers), "not a plain function"),
        ("app.tasks.resize", "not a plain function"),
    ],
)
def test_what_cannot_be_a_task_is_refused_with_a_way_out(thing: object, reason: str) -> None:
    q = TaskQ("redis://localhost")

    with pytest.raises(TaskDefinitionError, match=reason):
        q.task(thing)  # type: ignore[call-overload]
    assert len(q._registry) == 0


def test_two_tasks_of_one_name_are_refused_with_the_place_of_both() -> None:
    q = TaskQ("redis://localhost")

    @q.task(name="resize")
    def one() -> None: ...

    with pytest.raises(TaskDefinitionError) as caught:

        @q.task(name="resize")
        def two() -> None: ...

    message = str(caught.value)
    assert "one" in message
    assert "two" in message
    assert message.count("test_defining.py:") == 2
    assert "@q.task(name='...')" in message
    assert q._registry.find("resize") is one


def test_a_task_is_not_made_twice() -> None:
    q = TaskQ("redis://localhost")

    @q.task
    def one() -> None: ...

    with pytest.raises(TaskDefinitionError, match="is already a task"):
        q.task(one)


def test_one_function_can_be_two_tasks_of_two_names() -> None:
    q = TaskQ("redis://localhost")

    def one() -> None: ...

    slow = q.task(name="slow", queue="slow")(one)
    fast = q.task(name="fast", queue="fast")(one)

    assert (slow.task_options.queue, fast.task_options.queue) == ("slow", "fast")


def test_a_decorated_function_is_a_task_like_any_other() -> None:
    q = TaskQ("redis://localhost")

    def logged(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return await function(*args, **kwargs)

        return wrapper

    @q.task(name="resize")
    @logged
    async def resize(path: str) -> str:
        return path

    assert resize.name == "resize"
    assert resize.task_options.executor == "loop"


def test_how_a_function_runs_follows_from_how_it_is_written() -> None:
    q = TaskQ("redis://localhost")

    @q.task
    async def coroutine() -> None: ...

    @q.task
    def plain() -> None: ...

    @q.task(executor="process")
    def computing() -> None: ...

    executors = [task.task_options.executor for task in (coroutine, plain, computing)]
    assert executors == ["loop", "thread", "process"]


def test_defining_tasks_and_signatures_needs_no_server() -> None:
    q = TaskQ("redis://no.such.host:1")

    @q.task
    async def resize(path: str) -> str:
        return path

    signature = resize.options(delay=5).s("a.png")

    assert signature.args == ("a.png",)
    assert q._registry.names() == [resize.name]


TASKS = """
from taskq import TaskQ

q = TaskQ("redis://localhost:1")

@q.task
def one() -> None: ...

print(one.name)
"""


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("tasks.py", "tasks.one"),
        ("-m tasks", "tasks.one"),
        ("-c 'import tasks'", "tasks.one"),
        ("-m cProfile -o profile tasks.py", "tasks.one"),
        ("-m cProfile -o profile -m pkg.tool", "pkg.tool.one"),
        ("-m trace --count -C counts tasks.py", "tasks.one"),
        ("-m pkg.tool", "pkg.tool.one"),
        ("-m runpy pkg.tool", "pkg.tool.one"),
        # What `taskq worker pkg.__main__:q` imports
        ("-c 'import pkg.__main__'", "pkg.one"),
        ("-m pkg", "pkg.one"),
        ("pkg", "pkg.one"),
        ("pkg/__main__.py", "pkg.one"),
        ("-m cProfile -o profile -m pkg", "pkg.one"),
        ("archive.pyz", "archive.one"),
        ("- < tasks.py", "__main__.one"),
        ('-c "$(cat tasks.py)"', "__main__.one"),
    ],
)
def test_a_task_has_the_name_others_import_it_by_however_its_module_is_run(
    tmp_path: Path, command: str, name: str
) -> None:
    (tmp_path / "pkg").mkdir()
    for file in ("tasks.py", "pkg/tool.py", "pkg/__main__.py"):
        (tmp_path / file).write_text(TASKS)
    (tmp_path / "pkg" / "__init__.py").touch()
    with zipfile.ZipFile(tmp_path / "archive.pyz", "w") as archive:
        archive.writestr("__main__.py", TASKS)

    done = subprocess.run(
        f"{shlex.quote(sys.executable)} {command}", shell=True,
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=20,
        env=os.environ | {"PYTHONPATH": str(Path(taskq.__file__).parents[1])},
    )  # fmt: skip

    assert done.stderr == ""
    assert done.stdout.splitlines()[0] == name


WRAPPED = """
def once(function):
    def wrapper(*args):
        return function(*args)
    wrapper.__qualname__ = function.__qualname__
    wrapper.__module__ = function.__module__
    return wrapper
"""


def test_a_decorator_of_another_module_does_not_give_a_task_its_name(tmp_path: Path) -> None:
    (tmp_path / "decorating.py").write_text(WRAPPED)
    (tmp_path / "tasks.py").write_text(
        TASKS.replace("def one", "@once\ndef one").replace(
            "import TaskQ", "import TaskQ\nfrom decorating import once"
        )
    )

    done = subprocess.run(
        [sys.executable, "tasks.py"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20,
        env=os.environ | {"PYTHONPATH": str(Path(taskq.__file__).parents[1])},
    )  # fmt: skip

    assert done.stdout == "tasks.one\n"
