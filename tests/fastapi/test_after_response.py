"""Below `AfterResponse` deferred calls start when the request is over, and only if it succeeded."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response, StreamingResponse

from taskq import DeferredSettings, JobCancelled, JobState, TaskQ, TaskqError
from taskq.fastapi import AfterResponse, BackgroundTasks
from tests.support.serving import serving
from tests.support.waiting import eventually


class Scene:
    """An application below the middleware, and what happened in it, in order."""

    def __init__(self) -> None:
        self.q = TaskQ("redis://localhost:1")
        self.app = FastAPI(lifespan=self.q.deferred.lifespan)
        self.app.add_middleware(AfterResponse)
        self.diary: list[str] = []
        self.handles: list[Any] = []

        @self.q.task(name="note")
        async def note(word: str) -> str:
            self.diary.append(word)
            return word

        self.note = note

    def defer(self, *words: str) -> None:
        self.handles += [self.note.defer(word) for word in words]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The application, as the server sees it."""

        async def noting(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.diary.append("response")

        await self.app(scope, receive, noting)

    async def settled(self) -> list[str]:
        await asyncio.gather(*(handle.result() for handle in self.handles), return_exceptions=True)
        return self.diary


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
async def client(scene: Scene, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(scene, tmp_path / "s") as client:
        yield client


async def test_it_starts_after_the_response_and_the_commit(
    scene: Scene, client: httpx.AsyncClient
) -> None:
    async def session() -> AsyncIterator[None]:
        yield
        scene.diary.append("commit")

    @scene.app.post("/")
    async def endpoint(opened: None = Depends(session)) -> None:
        scene.defer("first", "second")
        await asyncio.sleep(0.05)
        assert [handle.status for handle in scene.handles] == [JobState.QUEUED] * 2
        scene.diary.append("endpoint")

    assert (await client.post("/")).status_code == 200

    await eventually(lambda: len(scene.handles) == 2)
    assert await scene.settled() == ["endpoint", "response", "commit", "first", "second"]


async def test_without_it_a_call_starts_at_once(tmp_path: Path) -> None:
    scene = Scene()
    scene.app.user_middleware.clear()

    @scene.app.post("/")
    async def endpoint() -> None:
        scene.defer("call")
        await asyncio.sleep(0.05)
        scene.diary.append("endpoint")

    async with serving(scene, tmp_path / "s") as client:
        await client.post("/")

    assert scene.diary == ["call", "endpoint", "response"]


Failing = Callable[[], Awaitable[Any]]


async def refuse() -> None:
    raise HTTPException(409, "taken")


async def break_down() -> None:
    raise ZeroDivisionError


async def answer_404() -> Response:
    return Response(status_code=404)


async def break_off() -> Response:
    async def rows() -> AsyncIterator[bytes]:
        yield b"a"
        raise ZeroDivisionError

    return StreamingResponse(rows())


@pytest.mark.parametrize("fail", [refuse, break_down, answer_404, break_off])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_it_does_not_start_when_the_endpoint_failed(
    scene: Scene, fail: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    @scene.app.post("/")
    async def endpoint() -> Any:
        scene.defer("one", "two")
        scene.q.defer(scene.diary.append, "three")
        return await fail()

    async with scene.q.deferred, AsyncExitStack() as stack:
        transport = httpx.ASGITransport(scene, raise_app_exceptions=False)
        client = await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://test")
        )
        with caplog.at_level(logging.WARNING, "taskq.deferred"):
            await client.post("/")

        for handle in scene.handles:
            with pytest.raises(JobCancelled):
                await handle.result(timeout=5)
    assert [word for word in scene.diary if word != "response"] == []
    assert "3 deferred calls are dropped because their request" in caplog.text
    assert "note, note, builtins.list.append" in caplog.text
    assert scene.q.deferred.stats().cancelled == 3


@pytest.mark.parametrize("outermost", [True, False], ids=["above another", "below another"])
async def test_it_holds_in_threads_beside_other_middleware_and_in_what_an_endpoint_starts(
    outermost: bool, tmp_path: Path
) -> None:
    async def through(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    scene = Scene()
    scene.app.add_middleware(BaseHTTPMiddleware, dispatch=through)
    if outermost:
        scene.app.user_middleware.reverse()
    started = threading.Event()
    late: list[asyncio.Task[None]] = []

    async def outlive() -> None:
        await eventually(lambda: "response" in scene.diary)
        await eventually(lambda: "plain" in scene.diary)
        # Its request is over: this one starts at once
        scene.defer("late")

    @scene.app.post("/plain")
    def plain() -> None:
        scene.defer("plain")
        started.wait(0.05)
        scene.diary.append("endpoint")

    @scene.app.post("/spawn")
    async def spawn() -> None:
        late.append(asyncio.create_task(outlive()))

    async with serving(scene, tmp_path / "s") as client:
        await client.post("/plain")
        assert await scene.settled() == ["endpoint", "response", "plain"]
        await client.post("/spawn")
        await late[0]
        await eventually(lambda: "late" in scene.diary)


async def test_what_a_websocket_defers_starts_at_once(scene: Scene) -> None:
    seen: list[JobState] = []

    async def socket(scope: Any, receive: Any, send: Any) -> None:
        handle = scene.note.defer("call")
        await handle
        seen.append(handle.status)

    middleware: Any = AfterResponse(socket)
    async with scene.q.deferred:
        await middleware({"type": "websocket"}, None, None)

    assert seen == [JobState.SUCCEEDED]


async def test_a_call_cannot_be_awaited_in_the_request_that_holds_it(
    scene: Scene, client: httpx.AsyncClient
) -> None:
    refused: list[str] = []

    @scene.app.post("/")
    async def endpoint() -> None:
        scene.defer("call")
        for wait in (scene.handles[0].result, scene.handles[0].accepted):
            with pytest.raises(TaskqError, match="starts when its request is over") as caught:
                await wait()
            refused.append(str(caught.value))

    await client.post("/")

    # Elsewhere, and afterwards, it can
    assert await scene.handles[0] == "call"
    assert len(refused) == 2


async def test_it_can_be_cancelled_before_it_starts(
    scene: Scene, client: httpx.AsyncClient
) -> None:
    @scene.app.post("/")
    async def endpoint() -> None:
        scene.defer("one", "two")
        assert scene.handles[0].cancel()

    await client.post("/")

    await eventually(lambda: scene.diary == ["response", "two"])
    assert scene.handles[0].status is JobState.CANCELLED


async def test_options_count_from_the_response(scene: Scene, client: httpx.AsyncClient) -> None:
    @scene.app.post("/")
    async def endpoint() -> None:
        later = scene.note.options(key="k", debounce=0.05)
        scene.handles += [later.defer(word) for word in ("a", "ab", "abc")]
        scene.handles.append(scene.note.options(delay=0.2).defer("delayed"))

    await client.post("/")

    await eventually(lambda: len(scene.handles) == 4)
    assert await scene.settled() == ["response", "abc", "delayed"]


async def test_one_there_is_no_room_for_stops_no_other(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    scene = Scene()
    scene.q = TaskQ("redis://localhost:1", deferred=DeferredSettings(concurrency=1, backlog=0))
    scene.app.router.lifespan_context = scene.q.deferred.lifespan
    scene.note = scene.q.task(name="note")(scene.note.function)

    @scene.app.post("/")
    async def endpoint() -> None:
        scene.defer("one", "two")

    async with serving(scene, tmp_path / "s") as client:
        await client.post("/")
        await eventually(lambda: "one" in scene.diary)

    assert scene.diary == ["response", "one"]
    assert "was rejected" in caplog.text


async def test_of_two_the_outermost_decides(scene: Scene, client: httpx.AsyncClient) -> None:
    inner = FastAPI()
    inner.add_middleware(AfterResponse)

    @inner.post("/")
    async def endpoint() -> None:
        scene.defer("call")
        scene.diary.append("endpoint")

    scene.app.mount("/inner", inner)
    await client.post("/inner/")

    assert await scene.settled() == ["endpoint", "response", "call"]


async def test_background_tasks_keep_their_own_time(
    scene: Scene, client: httpx.AsyncClient
) -> None:
    router = APIRouter()

    @router.post("/")
    async def endpoint(tasks: BackgroundTasks) -> Any:
        tasks.options(when="always").add_task(scene.diary.append, "always")
        scene.defer("call")
        raise HTTPException(400)

    scene.app.include_router(router)
    await client.post("/")

    await eventually(lambda: "always" in scene.diary)
    with pytest.raises(JobCancelled):
        await scene.handles[0]


async def test_a_client_that_leaves_after_the_answer_loses_nothing(scene: Scene) -> None:
    gone = asyncio.Event()

    @scene.app.post("/")
    async def endpoint() -> Response:
        scene.defer("call")
        return Response(background=BackgroundTask(gone.wait))

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None: ...

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
    }
    async with scene.q.deferred:
        request = asyncio.create_task(scene(scope, receive, send))
        await eventually(lambda: "response" in scene.diary)
        request.cancel()
        await asyncio.wait([request])

        assert await scene.handles[0].result(timeout=5) == "call"
