"""Tasks and requests: responses, errors, dependencies, middleware, clients that leave."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, HTTPException
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.conformance.background.case import Cases
from tests.conformance.background.world import World, send_and_leave

CASES = Cases()
case = CASES.case


@case(
    "B07",
    "The endpoint raises after it added a task: `HTTPException`; a database's `ConnectionError`",
    fastapi="the task is dropped silently",
    taskq="dropped with a warning in the log; `options(when='always')` runs it",
    outcome=[(400, [], "silence"), (500, [], "silence")],
    better=[(400, ["always"], "warned"), (500, ["always"], "warned")],
)
async def endpoint_raises(world: World) -> Any:
    raised: dict[str, Exception] = {
        "HTTPException": HTTPException(400),
        "ConnectionRefusedError": ConnectionRefusedError(),
    }

    @world.app.get("/{name}")
    async def endpoint(name: str, tasks: world.Tasks) -> None:
        tasks.add_task(world.note, "success")
        world.always(tasks).add_task(world.note, "always")
        raise raised[name]

    outcome: list[Any] = []
    async with world.served() as client:
        for name in raised:
            world.diary.clear()
            status = (await client.get(f"/{name}")).status_code
            diary = list(await world.settled())
            outcome.append((status, diary, "warned" if world.log.said("note", name) else "silence"))
    return outcome


@case(
    "B09",
    "The endpoint returns a response of its own, without and with a background of its own",
    fastapi="with one, the added tasks are dropped silently",
    taskq="they run in both cases",
    outcome={"without": ["added"], "with": ["own"]},
    better={"without": ["added"], "with": ["added", "own"]},
)
async def own_response(world: World) -> Any:
    @world.app.get("/without")
    async def without(tasks: world.Tasks) -> Response:
        tasks.add_task(world.note, "added")
        return JSONResponse({})

    @world.app.get("/with")
    async def with_own(tasks: world.Tasks) -> Response:
        tasks.add_task(world.note, "added")
        return JSONResponse({}, background=BackgroundTask(world.note, "own"))

    outcome: dict[str, list[str]] = {}
    async with world.served() as client:
        for path in ("without", "with"):
            world.diary.clear()
            await client.get(f"/{path}")
            outcome[path] = sorted(await world.settled())
    return outcome


@case(
    "B10",
    "Tasks are added in dependencies and in the endpoint",
    fastapi="they run in the order of the dependencies, the endpoint's last",
    taskq="they begin in this order",
    outcome=["below", "dependency", "endpoint"],
)
async def added_in_dependencies(world: World) -> Any:
    async def note(word: str) -> None:
        world.note(word)

    async def below(tasks: world.Tasks) -> None:
        tasks.add_task(note, "below")

    async def dependency(tasks: world.Tasks, _: None = Depends(below)) -> None:
        tasks.add_task(note, "dependency")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks, _: None = Depends(dependency)) -> None:
        tasks.add_task(note, "endpoint")

    async with world.served() as client:
        await client.get("/")
        return await world.settled("endpoint")


@case(
    "B11",
    "The collection in a dependency of any depth",
    fastapi="is the endpoint's own",
    outcome=[True, True],
)
async def one_for_a_request(world: World) -> Any:
    async def below(tasks: world.Tasks) -> Any:
        return tasks

    async def above(below: Any = Depends(below)) -> Any:
        return below

    same: list[bool] = []

    @world.app.get("/")
    async def endpoint(
        tasks: world.Tasks, one: Any = Depends(below), two: Any = Depends(above)
    ) -> None:
        same.extend([one is tasks, two is tasks])

    async with world.served() as client:
        await client.get("/")
    return same


@case(
    "B14",
    "A dependency with `yield`, and a task (FastAPI from 0.118 on)",
    fastapi="the dependency is held until the tasks are done",
    taskq="it ends with the request; tasks take ids, and open what they need with `Depends` of "
    "their own",
    outcome=["enter", "endpoint", "task", "exit"],
    better=["enter", "endpoint", "exit", "task"],
)
async def dependency_with_yield(world: World) -> Any:
    left = asyncio.Event()

    async def session() -> AsyncIterator[None]:
        world.note("enter")
        yield
        world.note("exit")
        left.set()

    async def work() -> None:
        # Who holds the dependency waits in vain.
        try:
            await asyncio.wait_for(left.wait(), 0.2)
        except TimeoutError:
            world.note("task")
        else:
            world.note("task")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks, _: None = Depends(session)) -> None:
        world.note("endpoint")
        tasks.add_task(work)

    async with world.served() as client:
        await client.get("/")
        return await world.settled("task", "exit")


@case(
    "B16",
    'A dependency with `yield` and `scope="function"`',
    fastapi="ends before the answer is sent, and before the tasks",
    outcome=["enter", "endpoint", "exit", "task"],
)
async def function_scope(world: World) -> Any:
    async def session() -> AsyncIterator[None]:
        world.note("enter")
        yield
        world.note("exit")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks, _: None = Depends(session, scope="function")) -> None:
        world.note("endpoint")
        tasks.add_task(world.note, "task")

    async with world.served() as client:
        await client.get("/")
        return await world.settled("task")


@case(
    "B17",
    "A task raises, and the request has a dependency with `yield`",
    fastapi="the dependency rolls back, after the client got its 200",
    taskq="the dependency commits, as the client was told",
    outcome=(200, ["rolled back"]),
    better=(200, ["committed"]),
)
async def rolled_back_too_late(world: World) -> Any:
    async def session() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            world.note("rolled back")
            raise
        else:
            world.note("committed")

    async def work() -> None:
        raise ValueError

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks, _: None = Depends(session)) -> None:
        tasks.add_task(work)

    async with world.served() as client:
        status = (await client.get("/")).status_code
        return status, await world.settled()


@case(
    "B18",
    "A dependency adds a task after its `yield` (FastAPI from 0.118 on)",
    fastapi="the task is lost silently",
    taskq="the task runs",
    outcome=[],
    better=["done"],
)
async def added_after_yield(world: World) -> Any:
    async def audit(tasks: world.Tasks) -> AsyncIterator[None]:
        yield
        tasks.add_task(world.note, "done")

    @world.app.get("/")
    async def endpoint(_: None = Depends(audit)) -> None: ...

    async with world.served() as client:
        await client.get("/")
        return await world.settled()


@case(
    "B19",
    "`BaseHTTPMiddleware` around the application",
    fastapi="neither the answer nor the middleware waits for the tasks, and they run",
    outcome=["after call_next", "answered", "done"],
)
async def behind_middleware(world: World) -> Any:
    go_on = asyncio.Event()

    async def middleware(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        world.note("after call_next")
        return response

    async def work() -> None:
        await go_on.wait()
        world.note("done")

    world.app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    async with world.served() as client:
        await client.get("/")
        world.note("answered")
        go_on.set()
        return await world.settled("done")


@case(
    "B20",
    "The client leaves before the answer, with and without `BaseHTTPMiddleware`",
    fastapi="the tasks run to their end",
    outcome=["bare", "wrapped"],
)
async def client_leaves(world: World) -> Any:
    # The middleware stands for both: whether it is there is a matter of the path.
    async def middleware(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    class Sometimes(BaseHTTPMiddleware):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope.get("path") == "/wrapped":
                await super().__call__(scope, receive, send)
            else:
                await self.app(scope, receive, send)

    world.app.add_middleware(Sometimes, dispatch=middleware)
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def work(word: str) -> None:
        await asyncio.sleep(0.05)
        world.note(word)

    @world.app.get("/{word}")
    async def endpoint(word: str, tasks: world.Tasks) -> None:
        tasks.add_task(work, word)
        arrived.set()
        await gone.wait()

    async with world.served() as client:
        for word in ("bare", "wrapped"):
            arrived.clear()
            gone.clear()
            await send_and_leave(client, f"/{word}", until=arrived)
            gone.set()
            await world.noted(word)
        return await world.settled()


@case(
    "B21",
    "A streamed answer: the client leaves half-way; the stream raises half-way",
    fastapi="the tasks run; the tasks do not run",
    outcome={"leaves": ["done"], "raises": []},
)
async def streams(world: World) -> Any:
    gone = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await gone.wait()
        for _ in range(100):
            yield b"x" * 100_000

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ValueError

    @world.app.get("/leaves")
    async def leaves(tasks: world.Tasks) -> Response:
        tasks.add_task(world.note, "done")
        return StreamingResponse(body())

    @world.app.get("/raises")
    async def raises(tasks: world.Tasks) -> Response:
        tasks.add_task(world.note, "done")
        return StreamingResponse(broken())

    async with world.served() as client:
        await send_and_leave(client, "/leaves", read=500)
        gone.set()
        leaving = list(await world.settled("done"))
        world.diary.clear()
        await send_and_leave(client, "/raises", read=20)
        raising = list(await world.settled())
    return {"leaves": leaving, "raises": raising}


@case(
    "B22",
    "A second request on the same connection while tasks of the first run",
    fastapi="is answered",
    outcome=["answered", "done"],
)
async def second_request(world: World) -> Any:
    go_on = asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        world.note("done")

    @world.app.get("/")
    async def endpoint(tasks: world.Tasks) -> None:
        tasks.add_task(work)

    @world.app.get("/other")
    async def other() -> None: ...

    async with world.served() as client:
        await client.get("/")
        await client.get("/other", timeout=5)
        world.note("answered")
        go_on.set()
        return await world.settled("done")
