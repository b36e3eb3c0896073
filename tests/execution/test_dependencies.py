"""FastAPI's dependencies in tasks, without a request."""

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI

from taskq import CallError, TaskQ, current_job
from taskq.codec.payload import encode_call
from taskq.core.outcome import Failed
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.runner import run_attempt
from taskq.execution.task import request_of
from tests.execution.attempts import Run, value_of
from tests.support.waiting import eventually

seen: list[str] = []


@pytest.fixture(autouse=True)
def nothing_seen_yet() -> None:
    seen.clear()


async def connection() -> AsyncIterator[str]:
    seen.append("connection opened")
    try:
        yield "connection"
    except BaseException as error:
        seen.append(f"connection met {type(error).__name__}")
        raise
    finally:
        seen.append("connection closed")


def session(connection: Annotated[str, Depends(connection)]) -> Iterator[str]:
    assert threading.current_thread() is not threading.main_thread()
    seen.append("session opened")
    try:
        yield f"session of {connection}"
        seen.append("session committed")
    except ValueError:
        seen.append("session rolled back")
        raise


Connection = Annotated[str, Depends(connection)]
Session = Annotated[str, Depends(session)]


class Users:
    def __init__(self, session: Session) -> None:
        self.session = session


@dataclass
class Size:
    width: int


async def test_a_task_gets_what_its_dependencies_give(run: Run) -> None:
    async def report(user: int, session: Session, width: int = 3) -> str:
        seen.append("function")
        return f"{user} {session} {width}"

    outcome = await run(report, 7, width=4)

    assert value_of(outcome) == "7 session of connection 4"
    assert seen == [
        "connection opened",
        "session opened",
        "function",
        "session committed",
        "connection closed",
    ]


async def test_a_plain_function_gets_them_in_its_thread(run: Run) -> None:
    def report(user: int, session: str = Depends(session), *rest: int, key: int = 0) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return f"{user} {session} {rest} {key}"

    assert value_of(await run(report, 1, 2, 3, key=4)) == "1 session of connection (2, 3) 4"


async def test_arguments_skip_the_dependencies_that_stand_between_them(run: Run) -> None:
    async def resize(session: Session, size: Size, users: Annotated[Users, Depends()]) -> int:
        assert isinstance(size, Size)
        assert users.session == session
        return size.width

    assert value_of(await run(resize, Size(3))) == 3
    assert value_of(await run(resize, size=Size(4))) == 4


async def test_a_dependency_may_have_any_name(run: Run) -> None:
    def plain(fn: Annotated[str, Depends(connection)]) -> str:
        return fn

    async def report(user: Annotated[str, Depends(plain)], fn: int) -> str:
        return f"{user} {fn}"

    assert value_of(await run(report, fn=3)) == "connection 3"


async def test_one_attempt_asks_once(run: Run) -> None:
    asked = []

    def counted() -> int:
        asked.append(1)
        return len(asked)

    async def below(number: Annotated[int, Depends(counted)]) -> int:
        return number

    async def report(
        one: Annotated[int, Depends(counted)],
        two: Annotated[int, Depends(below)],
        fresh: Annotated[int, Depends(counted, use_cache=False)],
    ) -> list[int]:
        return [one, two, fresh]

    assert value_of(await run(report)) == [1, 1, 2]
    assert value_of(await run(report)) == [3, 3, 4]


async def test_all_kinds_of_callables_are_dependencies(run: Run) -> None:
    class Checker:
        def __init__(self, word: str) -> None:
            self.word = word

        async def __call__(self) -> str:
            return self.word

    class Opener:
        async def __call__(self) -> AsyncIterator[str]:
            yield "opened"

    def plain(word: str = "default") -> str:
        return word

    async def coroutine(word: str) -> str:
        return word

    async def report(
        checker: Annotated[str, Depends(Checker("checked"))],
        opener: Annotated[str, Depends(Opener())],
        partial: Annotated[str, Depends(functools.partial(coroutine, word="partial"))],
        nothing: Annotated[str, Depends(lambda: "lambda")],
        default: Annotated[str, Depends(plain)],
    ) -> list[str]:
        return [checker, opener, partial, nothing, default]

    words = ["checked", "opened", "partial", "lambda", "default"]
    assert value_of(await run(report)) == words


async def test_a_failure_reaches_the_dependencies_as_in_an_endpoint(run: Run) -> None:
    async def report(session: Session) -> None:
        raise ValueError("no such user")

    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_text) == ("ValueError", "no such user")
    assert seen[-3:] == ["session rolled back", "connection met ValueError", "connection closed"]


async def test_a_dependency_cannot_make_a_success_of_a_failure(run: Run) -> None:
    async def forgiving() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            seen.append("forgiven")

    async def report(nothing: Annotated[None, Depends(forgiving)]) -> None:
        raise ValueError("no such user")

    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert outcome.error_type == "ValueError"
    assert seen == ["forgiven"]


async def test_what_fails_at_the_end_fails_the_attempt(run: Run) -> None:
    async def transaction() -> AsyncIterator[None]:
        yield
        raise OSError("the commit failed")

    async def report(nothing: Annotated[None, Depends(transaction)]) -> int:
        return 7

    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_text) == ("OSError", "the commit failed")


async def test_a_result_that_cannot_travel_is_rolled_back(run: Run) -> None:
    async def report(connection: Connection) -> object:
        return object()

    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "unfit_result"
    assert "connection met Unfit" in seen


async def test_a_dependency_that_fails_fails_the_attempt(run: Run) -> None:
    async def broken(connection: Connection) -> None:
        raise KeyError("setting")

    async def report(nothing: Annotated[None, Depends(broken)]) -> None:
        seen.append("function")

    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert outcome.error_type == "KeyError"
    assert seen == ["connection opened", "connection met KeyError", "connection closed"]


async def test_function_scope_ends_before_request_scope(run: Run) -> None:
    async def outer() -> AsyncIterator[None]:
        yield
        seen.append("request")

    async def inner() -> AsyncIterator[None]:
        yield
        seen.append("function")

    async def report(
        first: Annotated[None, Depends(inner, scope="function")],
        last: Annotated[None, Depends(outer)],
    ) -> None:
        seen.append("body")

    value_of(await run(report))
    assert seen == ["body", "function", "request"]


async def test_a_dependency_may_limit_how_often_it_is_open_at_once(run: Run) -> None:
    at_once, most = 0, 0

    async def scarce() -> AsyncIterator[None]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        yield
        at_once -= 1

    async def report(nothing: Annotated[None, Depends(scarce, max_concurrency=2)]) -> None:
        await asyncio.sleep(0)

    for outcome in await asyncio.gather(*(run(report) for _ in range(10))):
        value_of(outcome)
    assert most == 2


async def test_context_variables_of_dependencies_reach_the_task(run: Run) -> None:
    tenant: ContextVar[str] = ContextVar("tenant")

    async def choose() -> AsyncIterator[None]:
        tenant.set(current_job().id)
        yield

    async def report(nothing: Annotated[None, Depends(choose)]) -> str:
        return tenant.get()

    assert value_of(await run(report)) == "01h"


async def test_dependencies_can_be_overridden(local: TaskQ, run: Run) -> None:
    async def fake(connection: Connection, also: int = 3) -> AsyncIterator[str]:
        yield f"fake on {connection} {also}"

    async def report(users: Annotated[Users, Depends()]) -> str:
        return users.session

    assert value_of(await run(report)) == "session of connection"
    local.dependency_overrides[session] = fake
    assert value_of(await run(report)) == "fake on connection 3"
    local.dependency_overrides.clear()
    assert value_of(await run(report)) == "session of connection"


async def test_a_timeout_covers_the_dependencies_and_lets_them_clean_up(
    local: TaskQ, run: Run
) -> None:
    async def slow(connection: Connection) -> None:
        await asyncio.sleep(60)

    async def report(nothing: Annotated[None, Depends(slow)]) -> None: ...

    local.task(name="report", timeout=0.05)(report)
    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert outcome.kind == "timeout"
    assert seen[-2:] == ["connection met CancelledError", "connection closed"]


async def test_what_a_thread_opens_after_a_cancellation_is_closed(local: TaskQ) -> None:
    opening, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[None]:
        opening.set()
        go_on.wait(10)
        seen.append("opened")
        try:
            yield
        finally:
            seen.append("closed")

    @local.task(name="report")
    async def report(nothing: Annotated[None, Depends(slow)]) -> None:
        seen.append("function")

    # Given an attempt that is cancelled while a dependency opens in its thread
    executors = ExecutorSet(threads=1, processes=1)
    attempt = Attempt(report, "01h", encode_call((), {}))
    running = asyncio.create_task(run_attempt(attempt, executors))
    await eventually(opening.is_set)
    attempt.interrupt(Interruption.CANCEL)

    # When it has opened
    go_on.set()
    outcome = await running

    # Then it is closed, and the function never began
    assert type(outcome).__name__ == "Cancelled"
    assert seen == ["opened", "closed"]
    await executors.aclose()


async def test_leaving_never_waits_for_the_threads_of_the_tasks(local: TaskQ) -> None:
    # Given one connection, and one thread for tasks
    free = threading.Semaphore(1)

    def scarce() -> Iterator[None]:
        assert free.acquire(timeout=10), "nobody could give the connection back"
        yield
        free.release()

    @local.task(name="report")
    async def report(nothing: Annotated[None, Depends(scarce)]) -> None:
        await asyncio.sleep(0)

    # When many want it, the thread waits for it, and another thread gives it back
    executors = ExecutorSet(threads=1, processes=1)
    attempts = [Attempt(report, f"{n}", encode_call((), {})) for n in range(20)]
    outcomes = await asyncio.gather(
        *(asyncio.create_task(run_attempt(item, executors)) for item in attempts)
    )
    for outcome in outcomes:
        value_of(outcome)
    await executors.aclose()


async def test_the_same_dependency_serves_an_endpoint() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(users: Annotated[Users, Depends()]) -> str:
        return users.session

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        assert (await client.get("/")).json() == "session of connection"


def test_arguments_for_dependencies_are_refused(local: TaskQ) -> None:
    @local.task(name="report")
    async def report(user: int, session: Session, other: str = Depends(connection)) -> None: ...

    assert request_of(report.s(7)).job.id
    for args, kwargs in [((7, "session"), {}), ((7,), {"session": "x"}), ((), {})]:
        with pytest.raises(CallError, match=r"report\(user: .*int.*\)"):
            request_of(report.s(*args, **kwargs))
    with pytest.raises(CallError, match="cannot be called with other=, which a dependency fills"):
        request_of(report.s(7, other=3))


async def test_a_message_cannot_fill_a_dependency(run: Run) -> None:
    async def report(user: int, session: Session) -> str:
        return session

    outcome = await run(report, 7, session="forged")

    assert isinstance(outcome, Failed)
    assert outcome.kind == "unfit_arguments"
    assert seen == []


async def test_the_plain_function_is_called_as_before(local: TaskQ) -> None:
    @local.task(name="report")
    async def report(user: int, session: Session) -> str:
        return session

    assert await report(7, "mine") == "mine"


async def test_a_task_without_dependencies_has_no_injector(local: TaskQ) -> None:
    @local.task(name="report")
    async def report(user: Annotated[int, "a note"], anything: Any = None) -> None: ...

    assert report._spec.injector is None
