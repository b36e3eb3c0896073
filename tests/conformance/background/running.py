"""How tasks run: order, threads, failures, context."""

import asyncio
import functools
import threading
import time
from contextvars import ContextVar
from typing import Any

import httpx
from fastapi import HTTPException, WebSocket
from starlette.background import BackgroundTask
from starlette.responses import Response

from tests.conformance.background.case import Cases
from tests.conformance.background.world import World, in_main_thread

CASES = Cases()
case = CASES.case

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@case(
    "B01",
    "Three tasks",
    fastapi="one after the other, in the order they were added",
    taskq="begin in this order, and run at the same time",
    outcome={"begun": ["a", "b", "c"], "most at once": 1},
    better={"begun": ["a", "b", "c"], "most at once": 3},
)
async def three_tasks(world: World) -> Any:
    now, most = 0, 0

    async def work(name: str) -> None:
        nonlocal now, most
        world.note(name)
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        for name in "abc":
            tasks.add_task(work, name)

    async with world.served() as client:
        await client.get("/")
        return {"begun": await world.settled("a", "b", "c"), "most at once": most}


@case(
    "B02",
    "A task that takes long",
    fastapi="the answer is sent first",
    outcome=[200, "answered", "done"],
)
async def answer_first(world: World) -> Any:
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        world.note("done")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    async with world.served() as client:
        status = (await client.get("/")).status_code
        world.note("answered")
        go_on.set()
        return [status, *await world.settled("done")]


@case(
    "B03",
    "Ten tasks that wait 50 ms each",
    fastapi="take half a second",
    taskq="take 50 ms",
    outcome="ten waits",
    better="one wait",
)
async def ten_waits(world: World) -> Any:
    ended: list[float] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        ended.append(time.monotonic())

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        for _ in range(10):
            tasks.add_task(work)

    async with world.served() as client:
        await client.get("/")
        await world.until(lambda: len(ended) == 10)
    return "ten waits" if ended[-1] - ended[0] > 0.3 else "one wait"


class Called:
    async def __call__(self, where: dict[str, str]) -> None:
        where["object with async __call__"] = in_main_thread()


WHERE = {
    "def": "thread",
    "async def": "loop",
    "partial of an async def": "loop",
    "object with async __call__": "loop",
}


@case(
    "B04",
    "`def`, `async def`, partials, objects; a `lambda` that returns a coroutine",
    fastapi="`def` in a thread, the others in the event loop; what the `lambda` returns never runs",
    taskq="the same, and what the `lambda` returns runs",
    outcome=WHERE,
    better=WHERE | {"lambda": "loop"},
)
async def kinds_of_functions(world: World) -> Any:
    where: dict[str, str] = {}

    def plain() -> None:
        where["def"] = in_main_thread()

    async def named(name: str) -> None:
        where[name] = in_main_thread()

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(plain)
        tasks.add_task(named, "async def")
        tasks.add_task(functools.partial(named, "partial of an async def"))
        tasks.add_task(Called(), where)
        tasks.add_task(lambda: named("lambda"))

    async with world.served() as client:
        await client.get("/")
        await world.settled()
        await world.until(lambda: len(where) >= 4)
        await world.settled()
    return where


@case(
    "B05",
    "The second of three tasks raises",
    fastapi="the third never runs",
    taskq="the others run; the failure is logged, counted and passed to `q.deferred.on_error`",
    outcome=(200, ["one"]),
    better=(200, ["one", "three"]),
)
async def second_of_three_raises(world: World) -> Any:
    async def work(name: str) -> None:
        if name == "two":
            raise ValueError(name)
        world.note(name)

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        for name in ("one", "two", "three"):
            tasks.add_task(work, name)

    async with world.served() as client:
        status = (await client.get("/")).status_code
        outcome = status, await world.settled("one")
    assert world.log.said("ValueError('two')"), world.log.lines
    return outcome


@case(
    "B06",
    "A task raises, in a test through `ASGITransport` or `TestClient`",
    fastapi="the test sees its exception",
    taskq="the test sees the response, the log the exception",
    outcome="ValueError",
    better=200,
)
async def failure_in_a_test(world: World) -> Any:
    async def work() -> None:
        raise ValueError

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    transport = httpx.ASGITransport(world.app)
    with world.log.kept():
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            try:
                status = (await client.get("/")).status_code
            except ValueError as error:
                return type(error).__name__
        assert world.log.said("ValueError")
    return status


@case(
    "B08",
    "A task raises `HTTPException`",
    fastapi="the client has its 200; the server logs an error about a response that has started",
    taskq="the client has its 200; the exception is logged like any other",
    outcome=(200, "RuntimeError"),
    better=(200, "HTTPException"),
)
async def http_exception_in_a_task(world: World) -> Any:
    async def work() -> None:
        raise HTTPException(418)

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    async with world.served() as client:
        status = (await client.get("/")).status_code
        await world.settled()
        await world.until(lambda: world.log.lines)
    named = [name for name in ("RuntimeError", "HTTPException") if world.log.said(name)]
    return status, named[0]


@case(
    "B12",
    "A context variable, set in an `async def` endpoint, in a `def` endpoint, in middleware",
    fastapi="tasks see it, but for the one set in a `def` endpoint",
    taskq="tasks see it",
    outcome={
        "coroutine": {"async def": "endpoint", "thread": "endpoint"},
        "function": {"async def": "middleware", "thread": "middleware"},
        "middleware": {"async def": "middleware", "thread": "middleware"},
    },
    better={
        "coroutine": {"async def": "endpoint", "thread": "endpoint"},
        "function": {"async def": "endpoint", "thread": "endpoint"},
        "middleware": {"async def": "middleware", "thread": "middleware"},
    },
)
async def context_variables(world: World) -> Any:
    seen: dict[str, dict[str, str]] = {"coroutine": {}, "function": {}, "middleware": {}}

    async def look(path: str) -> None:
        seen[path]["async def"] = tenant.get()

    def look_in_thread(path: str) -> None:
        seen[path]["thread"] = tenant.get()

    @world.app.get("/coroutine")
    async def coroutine(tasks: world.Tasks) -> None:
        tenant.set("endpoint")
        tasks.add_task(look, "coroutine")
        tasks.add_task(look_in_thread, "coroutine")

    @world.app.get("/function")
    def function(tasks: world.Tasks) -> None:
        tenant.set("endpoint")
        tasks.add_task(look, "function")
        tasks.add_task(look_in_thread, "function")

    @world.app.get("/middleware")
    async def neither(tasks: world.Tasks) -> None:
        tasks.add_task(look, "middleware")
        tasks.add_task(look_in_thread, "middleware")

    @world.app.middleware("http")
    async def middleware(request: Any, call_next: Any) -> Any:
        tenant.set("middleware")
        return await call_next(request)

    async with world.served() as client:
        for path in seen:
            await client.get(f"/{path}")
        await world.until(lambda: all(len(found) == 2 for found in seen.values()))
    return seen


@case(
    "B13",
    "A context variable that one task sets, in the next",
    fastapi="is visible, if both are `async def`",
    taskq="each task has a context of its own",
    outcome=["task"],
    better=["nobody"],
)
async def context_of_the_next(world: World) -> Any:
    async def change() -> None:
        tenant.set("task")

    async def look() -> None:
        world.note(tenant.get())

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(change)
        tasks.add_task(look)

    async with world.served() as client:
        await client.get("/")
        await world.until(lambda: world.diary)
    return world.diary


@case(
    "B23",
    "40 `def` tasks that block, and a request to a `def` endpoint",
    fastapi="the request waits: they share one pool of threads",
    taskq="the request is answered: tasks have threads of their own",
    outcome="waits",
    better="answered",
)
async def forty_blocking_tasks(world: World) -> Any:
    go_on = threading.Event()
    begun: list[int] = []

    def work() -> None:
        begun.append(1)
        go_on.wait(20)

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    @world.app.get("/def")
    def other() -> None: ...

    async with world.served() as client:
        await asyncio.gather(*(client.get("/") for _ in range(40)))
        await world.until(lambda: len(begun) == 40)
        try:
            await client.get("/def", timeout=0.5)
            outcome = "answered"
        except httpx.ReadTimeout:
            outcome = "waits"
        go_on.set()
        await world.settled()
    return outcome


@case(
    "B24",
    "An `async def` task that blocks the event loop for half a second",
    fastapi="everything stands still, without a message",
    taskq="everything stands still, and the log names the task",
    outcome="silence",
    better="named",
)
async def blocking_coroutine(world: World) -> Any:
    async def work_that_blocks() -> None:
        time.sleep(0.5)  # noqa: ASYNC251 - the mistake this is about
        world.note("done")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work_that_blocks)

    async with world.served() as client:
        await client.get("/")
        await world.settled("done")
    return "named" if world.log.said("work_that_blocks") else "silence"


@case(
    "B31",
    "A request in a test, through `ASGITransport` or `TestClient`",
    fastapi="returns when the tasks are done",
    taskq="the same, in an application without `lifespan=q.lifespan`",
    outcome=["done", "answered"],
)
async def requests_in_tests(world: World) -> Any:
    async def work() -> None:
        await asyncio.sleep(0.05)
        world.note("done")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    transport = httpx.ASGITransport(world.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        await client.get("/")
        world.note("answered")
    return world.diary


@case(
    "B32",
    "A task that succeeds at the second try",
    fastapi="has one",
    taskq="`tasks.options(retry=1).add_task(...)`; so with `timeout`, `delay`, `key`, `durable`",
    outcome=["failed"],
    better=["failed", "succeeded"],
)
async def second_try(world: World) -> Any:
    async def work() -> None:
        if not world.diary:
            world.note("failed")
            raise OSError
        world.note("succeeded")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        if world.is_taskq:
            tasks = tasks.options(retry=1)
        assert tasks.add_task(work) is None

    async with world.served() as client:
        await client.get("/")
        await world.settled("failed")
        if world.is_taskq:
            await world.noted("succeeded")
    return world.diary


@case(
    "B33",
    "`Response(background=...)` with a collection made of a list",
    fastapi="its tasks run",
    outcome=["one", "two", "three"],
)
async def made_by_hand(world: World) -> Any:
    @world.app.get("/")
    async def endpoint() -> Response:
        tasks = world.made([BackgroundTask(world.note, "one")])
        tasks.add_task(world.note, "two")
        tasks.add_task(world.note, "three")
        return Response(background=tasks)

    async with world.served() as client:
        await client.get("/")
        await world.noted("one", "two", "three")
    return sorted(world.diary, key=["one", "two", "three"].index)


@case(
    "B35",
    "A websocket endpoint adds a task",
    fastapi="it never runs",
    taskq="it runs when the endpoint has ended",
    outcome=[],
    better=["done"],
)
async def websockets(world: World) -> Any:
    @world.app.websocket("/")
    async def endpoint(socket: WebSocket, tasks: world.Tasks) -> None:
        await socket.accept()
        tasks.add_task(world.note, "done")
        await socket.close()

    # uvicorn would need another package for websockets; the protocol of ASGI is all it takes.
    said: list[str] = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message["type"])

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    async with world.lived() as state:
        await world.app(scope | {"state": state}, receive, send)
        assert said == ["websocket.accept", "websocket.close"]
        return await world.settled()
