"""A call must fit what is called, which is a decorator's wrapper, and not what that wraps."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import Depends

from taskq import CallError, Secret, TaskDefinitionError, TaskQ
from tests.support.server import TestServer
from tests.worker.sample_wrappers import (
    Color,
    Point,
    added_in_process,
    injecting_first,
    injecting_keyword,
    passing,
    passing_plainly,
    taking_more,
)

Database = Annotated[str, Depends(lambda: "database")]


@injecting_first
async def send_first(session: str, number: int, *, text: str = "") -> str:
    return f"{session} {number} {text}"


@injecting_keyword
async def send_keyword(number: int, session: str, text: str = "") -> str:
    return f"{session} {number} {text}"


@taking_more
async def send_often(number: int) -> int:
    return number


@passing_plainly
async def send_plainly(number: int) -> int:
    return number


CALLS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
    (send_first, (1,), {}),
    (send_first, (1,), {"text": "a"}),
    (send_first, (), {"number": 1}),
    (send_keyword, (1,), {}),
    (send_keyword, (1,), {"text": "a"}),
    (send_often, (3, 1), {}),
    (send_often, (3,), {"number": 1, "suffix": "a"}),
    (send_plainly, (1,), {}),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
async def test_a_call_that_works_in_place_works_in_every_other_way(
    q: TaskQ,
    server: TestServer,
    namespace: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    # Given a task, a call of it that works, and a producer that knows its name alone
    task = q.task(name="send")(function)
    called = await task(*args, **kwargs)
    async with TaskQ(server.url, namespace=namespace) as other:
        # When the same call is enqueued by the function and by its name, and deferred
        jobs = [
            await task.enqueue(*args, **kwargs),
            await q.send("send", *args, **kwargs),
            q.job((await other.send("send", *args, **kwargs)).id),
            *await q.enqueue_many([task.s(*args, **kwargs)]),
        ]
        await q.run_until_empty()

        # Then each gives what the call in place gives
        assert [await job.result(timeout=5) for job in jobs] == [called] * 4
    assert await task.defer(*args, **kwargs) == called
    assert await q.defer(function, *args, **kwargs) == called


async def test_a_process_task_takes_what_its_wrapper_takes(q: TaskQ) -> None:
    task = q.task(name="add", executor="process")(added_in_process)

    job = await task.enqueue(1)
    await q.run_until_empty()

    assert await job.result(timeout=5) == "session 2"


async def test_a_call_that_the_wrapper_does_not_take_is_refused(q: TaskQ) -> None:
    @q.task(name="narrow")
    @functools.wraps(send_first)
    async def narrow(number: int) -> str:
        return await send_first(number, text="a")

    with pytest.raises(CallError, match=r"narrow\(number.*too many positional arguments"):
        await narrow.enqueue(1, 2)
    with pytest.raises(CallError, match="unexpected keyword argument 'text'"):
        narrow.defer(1, text="a")
    assert await narrow.defer(1) == "session 1 a"


async def test_a_signature_that_is_merely_declared_refuses_no_call(q: TaskQ) -> None:
    async def declared(*numbers: int) -> int:
        return sum(numbers)

    declared.__signature__ = inspect.Signature()
    wrong = q.task(name="declared")(declared)
    declared.__signature__ = "(*numbers)"
    bad = q.task(name="bad")(declared)

    jobs = [await wrong.enqueue(1, 2), await bad.enqueue(1, 2)]
    await q.run_until_empty()

    assert [await job.result(timeout=5) for job in jobs] == [3, 3]


async def test_arguments_are_made_anew_as_far_as_their_parameters_are_known(q: TaskQ) -> None:
    async def paint(color: Color, at: Point) -> list[str]:
        return [repr(color), repr(at)]

    async def in_session(color: Color, session: str) -> list[str]:
        return [repr(color), repr(session)]

    async def after_session(session: Secret[str], color: Color) -> list[str]:
        return [repr(session), repr(color)]

    passed = q.task(name="passed")(passing(paint))
    later = q.task(name="later")(injecting_keyword(in_session))
    before = q.task(name="before")(injecting_first(after_session))

    jobs = [
        # It fits the function as well: the wrapper passes it on
        await passed.enqueue(Color.RED, at=Point(1)),
        # It does not: by place it is taken for the first, by name there is nothing to guess
        await later.enqueue(Color.RED),
        await before.enqueue(color=Color.RED),
        # And nothing is made of what may be an argument of another parameter
        await before.enqueue("red"),
    ]
    await q.run_until_empty()

    assert [await job.result(timeout=5) for job in jobs] == [
        [repr(Color.RED), "Point(x=1)"],
        [repr(Color.RED), "'session'"],
        ["'session'", repr(Color.RED)],
        ["'session'", "'red'"],
    ]


async def test_annotations_of_the_wrapped_function_bind_neither_arguments_nor_results(
    q: TaskQ,
) -> None:
    async def area(at: Point) -> Point:
        return Point(2 * at.x)

    @q.task(name="area")
    @functools.wraps(area)
    async def by_number(at: int) -> int:
        return (await area(Point(at))).x

    job = await by_number.enqueue(3)  # type: ignore[arg-type]
    await q.run_until_empty()

    assert await job.result(timeout=5) == 6


async def test_secrets_are_concealed_through_wrappers(q: TaskQ) -> None:
    @q.task(name="login")
    @passing
    async def login(user: str, token: Secret[str]) -> str:
        return token.reveal()

    job = await login.enqueue("ada", "hunter2")

    assert "hunter2" not in repr(await job.info())
    await q.run_until_empty()
    assert await job.result(timeout=5) == "hunter2"


async def test_dependencies_are_filled_where_the_wrapper_takes_them(q: TaskQ) -> None:
    async def load(db: Database, number: int) -> str:
        return f"{db} {number}"

    async def load_in_session(session: str, number: int, db: Database) -> str:
        return f"{session} {db} {number}"

    @functools.wraps(load)
    async def own(number: int) -> str:
        return await load("own", number)

    tasks = [passing(load), injecting_first(load_in_session), own]
    jobs = [await q.task(name=f"load{at}")(task).enqueue(1) for at, task in enumerate(tasks)]
    await q.run_until_empty()

    assert [await job.result(timeout=5) for job in jobs] == [
        "database 1",
        "session database 1",
        "own 1",
    ]


def test_a_method_is_recognised_below_its_decorator_and_a_first_argument_self_is_none() -> None:
    q = TaskQ("redis://localhost")

    class Painter:
        @passing
        async def paint(self, number: int) -> None: ...

    async def bound(self: str, number: int) -> None: ...

    with pytest.raises(TaskDefinitionError, match="is a method: its 'self' cannot be sent"):
        q.task(Painter.paint)
    q.task(injecting_first(bound))
