"""Whatever can be called can be deferred, and one that cannot start stops no other."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import httpx
import pytest
from fastapi import FastAPI

from taskq import TaskQ
from taskq.fastapi import BackgroundTasks
from tests.support.waiting import eventually


def plain(number: Any = 0) -> Any:
    return number


async def coroutine(number: Any = 0) -> Any:
    return number


class Service:
    def save(self, number: Any) -> Any:
        return number

    async def send(self, number: Any) -> Any:
        return number


class Proxy:
    """Pretends to be what it leads to, as those of werkzeug and wrapt do."""

    def __init__(self, target: Any) -> None:
        object.__setattr__(self, "target", target)

    @property
    def __class__(self) -> Any:
        return type(self.target)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "target"), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.target(*args, **kwargs)


class Unbound:
    """A proxy that leads nowhere: whatever is asked of it raises."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("working outside of its context")

    def __call__(self, number: Any) -> Any:
        return number


class Talkative:
    """Every attribute there is, and none that it says it has."""

    def __init__(self) -> None:
        self.name = self.spec = self.task_options = self.options = 7

    def __getattr__(self, name: str) -> Any:
        return Mock()

    def __call__(self, number: Any) -> Any:
        return number


class Nameless:
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        raise ValueError("no name")

    def __eq__(self, other: object) -> bool:
        raise ValueError("no equal")

    @property
    def __signature__(self) -> Any:
        raise ValueError("no signature")

    def __call__(self, number: Any) -> Any:
        return number


def with_signature(signature: Any) -> Callable[..., Any]:
    def function(number: Any) -> Any:
        return number

    function.__signature__ = signature
    return function


def of_no_module() -> Callable[..., Any]:
    known: dict[str, Any] = {}
    exec("def function(number): return number", known)
    return known["function"]


ODD: dict[str, Callable[[], Callable[..., Any]]] = {
    "AsyncMock()": AsyncMock,
    "AsyncMock(spec=coroutine)": lambda: AsyncMock(spec=coroutine),
    "MagicMock()": MagicMock,
    "MagicMock(spec=function)": lambda: MagicMock(spec=plain),
    "MagicMock(spec=coroutine)": lambda: MagicMock(spec=coroutine),
    "MagicMock(spec=class).method": lambda: MagicMock(spec=Service).save,
    "MagicMock(spec=class).coroutine": lambda: MagicMock(spec=Service).send,
    "create_autospec(function)": lambda: create_autospec(plain),
    "create_autospec(coroutine)": lambda: create_autospec(coroutine),
    "create_autospec(object).coroutine": lambda: create_autospec(Service()).send,
    "a method of a built-in class": lambda: str.upper,
    "a slot of a built-in class": lambda: str.__len__,
    "a method of a built-in object": lambda: "-".join,
    "a class": lambda: list,
    "a partial of a mock": lambda: functools.partial(MagicMock(spec=plain), 1),
    "a signature that is none": lambda: with_signature("(number)"),
    "a signature that is not its own": lambda: with_signature(inspect.Signature()),
    "a function of no module": of_no_module,
    "a cached function": lambda: functools.lru_cache(plain),
    "a proxy of a function": lambda: Proxy(plain),  # type: ignore[return-value]
    "a proxy of a coroutine": lambda: Proxy(coroutine),  # type: ignore[return-value]
    "a proxy of a mock": lambda: Proxy(AsyncMock()),  # type: ignore[return-value]
    "a proxy that leads nowhere": Unbound,
    "an object with every attribute": Talkative,
    "an object without a name, a hash or a signature": Nameless,
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_whatever_can_be_called_is_called(
    alone: TaskQ, odd: Callable[[], Callable[..., Any]]
) -> None:
    function = odd()
    handle = alone.defer(function, "a")

    value = await handle.result(timeout=5)

    # What a call in place gives: an awaitable's value, if it gives one
    expected = function("a")
    if inspect.isawaitable(expected):
        expected = await expected
    assert value == expected or isinstance(value, Mock)
    assert isinstance(repr(handle), str)


@pytest.fixture
async def served(alone: TaskQ) -> AsyncIterator[FastAPI]:
    app = FastAPI()
    async with alone.deferred.lifespan() as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state)}, receive, send)

        served: Any = with_state
        served.app = app
        yield served


@pytest.mark.parametrize("inside", [True, False], ids=["with a lifespan", "without one"])
async def test_odd_background_tasks_take_no_other_with_them(
    alone: TaskQ, served: Any, inside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    # Given an endpoint that adds odd callables, what cannot be called, and ordinary functions
    app: FastAPI = served.app
    mock, ran = AsyncMock(), list[str]()

    def generator() -> Any:
        yield 1

    @app.post("/")
    async def endpoint(tasks: BackgroundTasks) -> None:
        tasks.add_task(ran.append, "first")
        tasks.add_task(mock, 1, text="a")
        for odd in ODD.values():
            tasks.add_task(odd(), "a")
        tasks.add_task(plain, 1, 2, 3)  # pyright: ignore[reportCallIssue]
        tasks.add_task(generator)
        tasks.add_task(None)  # type: ignore[arg-type]
        tasks.add_task(Proxy(None), 1)
        tasks.options(durable=True).add_task(plain)
        tasks.add_task(ran.append, "last")

    # When it is asked
    with caplog.at_level(logging.ERROR, "taskq.fastapi"):
        transport = httpx.ASGITransport(app=served if inside else app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.post("/")

    # Then all that can run do, and each of the others is named
    assert response.status_code == 200
    await eventually(lambda: ran == ["first", "last"])
    await eventually(lambda: mock.await_count == 1)
    mock.assert_awaited_once_with(1, text="a")
    refused = [record.getMessage() for record in caplog.records if "cannot run" in record.message]
    assert len(refused) == 4, refused
