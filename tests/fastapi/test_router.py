"""`job_router(q)`: jobs over HTTP, under a real uvicorn."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException

from taskq import ConfigError, Reject, Secret, TaskQ, current_job
from taskq.fastapi import job_router
from taskq.fastapi import router as events_module
from tests.support.server import TestServer
from tests.support.serving import serving
from tests.support.waiting import eventually


@pytest.fixture
def app(q: TaskQ) -> FastAPI:
    app = FastAPI(lifespan=q.lifespan)
    app.include_router(job_router(q, development=True))
    return app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app, 0) as client:
        yield client


async def test_a_job_is_shown_without_what_may_be_private(
    q: TaskQ, client: httpx.AsyncClient
) -> None:
    @q.task(name="report")
    async def report(secret: str) -> str:
        await current_job().progress(1, 4, "reading")
        raise Reject("no paper")

    job = await report.enqueue("private")
    view = (await client.get(f"/jobs/{job.id}")).json()
    assert (view["task"], view["state"], view["finished"]) == ("report", "queued", False)
    assert (view["queue"], view["priority"], view["progress"]) == ("default", 5, None)

    await q.run_until_empty()

    answer = await client.get(f"/jobs/{job.id}")
    assert answer.json()["state"] == "failed"
    assert answer.json()["finished"] is True
    assert answer.json()["error"] == "Reject: no paper"
    assert answer.json()["progress"] == {"done": 1, "total": 4, "text": "reading"}
    assert "private" not in answer.text
    assert "Traceback" not in answer.text


async def test_a_result_is_given_when_there_is_one(q: TaskQ, client: httpx.AsyncClient) -> None:
    @q.task(name="report")
    async def report() -> dict[str, Any]:
        return {"pages": 3, "raw": b"\x00\xff", "at": datetime(2030, 1, 2, tzinfo=UTC)}

    job = await report.enqueue()
    answer = await client.get(f"/jobs/{job.id}/result")
    assert answer.status_code == 202
    assert answer.json() == {"id": job.id, "state": "queued", "result": None}
    answer = await client.get(f"/jobs/{job.id}/result", params={"wait": 0.05})
    assert answer.status_code == 202

    # Whoever waits gets it as soon as it is there
    waiting = asyncio.create_task(client.get(f"/jobs/{job.id}/result", params={"wait": 30}))
    await asyncio.sleep(0)
    await q.run_until_empty()
    answer = await waiting
    assert answer.status_code == 200
    expected = {"pages": 3, "raw": "AP8=", "at": "2030-01-02T00:00:00Z"}
    assert answer.json() == {"id": job.id, "state": "succeeded", "result": expected}
    assert (await client.get(f"/jobs/{job.id}/result")).json()["result"] == expected


async def test_what_will_never_have_a_result_is_told(q: TaskQ, client: httpx.AsyncClient) -> None:
    @q.task(name="fail")
    async def fail() -> None:
        raise ValueError("no such page")

    @q.task(name="forget", result_ttl=0)
    async def forget() -> None: ...

    failing, forgotten, cancelled = [
        await task.enqueue() for task in (fail, forget, fail.options(delay=60))
    ]
    assert (await client.delete(f"/jobs/{cancelled.id}")).json() == {"cancelled": True}
    assert (await client.delete(f"/jobs/{cancelled.id}")).json() == {"cancelled": False}
    await q.run_until_empty()

    answer = await client.get(f"/jobs/{failing.id}/result")
    assert answer.status_code == 409
    assert "ValueError: no such page" in answer.json()["detail"]
    assert "Traceback" not in answer.text
    answer = await client.get(f"/jobs/{cancelled.id}/result")
    assert (answer.status_code, "cancelled" in answer.text) == (409, True)
    assert (await client.get(f"/jobs/{forgotten.id}/result")).status_code in (404, 410)
    for path in ("/jobs/none", "/jobs/a%20b", "/jobs/none/result", "/jobs/none/events"):
        assert (await client.get(path)).status_code == 404
    assert (await client.delete("/jobs/none")).status_code == 404


async def listen(client: httpx.AsyncClient, path: str) -> list[tuple[str, Any]]:
    """The events of a stream, to its end."""
    async with client.stream("GET", path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        lines = [line async for line in stream.aiter_lines()]
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [(name, json.loads(item)) for name, item in zip(names, data, strict=True)]


async def test_progress_arrives_as_events(q: TaskQ, client: httpx.AsyncClient) -> None:
    seen: list[int] = []

    @q.task(name="report")
    async def report() -> None:
        for page in range(1, 4):
            await current_job().progress(page, 3, f"page {page}")
            seen.append(page)
            await eventually(lambda page=page: page < len(seen) or go_on.is_set())

    go_on = asyncio.Event()
    job = await report.enqueue()
    listening = asyncio.create_task(listen(client, f"/jobs/{job.id}/events"))
    async with q.worker():
        await eventually(lambda: seen == [1])
        go_on.set()
        heard = await listening

    assert [name for name, _ in heard[:-1]] == ["progress"] * (len(heard) - 1)
    assert heard[-1][0] == "end"
    assert heard[-1][1]["state"] == "succeeded"
    assert heard[-1][1]["progress"] == {"done": 3, "total": 3, "text": "page 3"}
    # And of one that is over there is nothing but the end
    assert [name for name, _ in await listen(client, f"/jobs/{job.id}/events")] == ["end"]


async def test_a_stream_ends_some_time_and_may_be_asked_for_again(
    q: TaskQ, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    @q.task(name="report")
    async def report() -> None: ...

    monkeypatch.setattr(events_module.events, "__kwdefaults__", {"seconds": 0.3})
    job = await report.enqueue()

    heard = await listen(client, f"/jobs/{job.id}/events")

    assert [name for name, _ in heard] == ["progress"]
    await q.run_until_empty()


async def test_a_silent_stream_is_kept_open(
    q: TaskQ, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    @q.task(name="report")
    async def report() -> None: ...

    monkeypatch.setattr(events_module, "QUIET_SECONDS", 0.0)
    job = await report.enqueue()
    async with client.stream("GET", f"/jobs/{job.id}/events") as stream:
        async for line in stream.aiter_lines():
            if line.startswith(": nothing new"):
                break
    await q.run_until_empty()


async def test_in_development_only_this_machine_is_answered(
    q: TaskQ, app: FastAPI, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    for headers in (
        {"X-Forwarded-For": "198.51.100.7"},
        {"Forwarded": "for=198.51.100.7"},
        {"Host": "evil.example"},
    ):
        answer = await client.get("/jobs/none", headers=headers)
        assert answer.status_code == 403, headers
        assert "job_router(q, auth=...)" in answer.json()["detail"]
    for host in ("localhost", "127.0.0.1:8000", "[::1]", "app"):
        assert (await client.get("/jobs/none", headers={"Host": host})).status_code == 404

    # From elsewhere, and over a socket of a proxy
    elsewhere = httpx.ASGITransport(app, client=("198.51.100.7", 1234))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://app") as other:
        for method, path in [
            ("GET", "/jobs/none"),
            ("GET", "/jobs/none/result"),
            ("GET", "/jobs/none/events"),
            ("DELETE", "/jobs/none"),
        ]:
            assert (await other.request(method, path)).status_code == 403
    plain = FastAPI()
    plain.include_router(job_router(q, development=True))
    async with serving(plain, tmp_path / "http") as other:
        assert (await other.get("/jobs/none")).status_code == 403


async def test_auth_decides_who_sees_what(q: TaskQ) -> None:
    @q.task(name="report")
    async def report() -> None: ...

    async def owner(job_id: str, x_user: Annotated[str, Header()] = "") -> None:
        info = await q.job(job_id).info()
        if info.headers.get("user") != x_user:
            raise HTTPException(404, "there is no such job")

    app = FastAPI()
    app.include_router(job_router(q, auth=owner))
    app.include_router(job_router(q, auth=Depends(owner), prefix="/again", tags=["other"]))
    job = await report.options(headers={"user": "ada"}).enqueue()

    elsewhere = httpx.ASGITransport(app, client=("198.51.100.7", 1234))
    async with httpx.AsyncClient(transport=elsewhere, base_url="http://shop.example") as client:
        for prefix in ("/jobs", "/again"):
            path = f"{prefix}/{job.id}"
            assert (await client.get(path, headers={"X-User": "ada"})).status_code == 200
            assert (await client.get(path, headers={"X-User": "bob"})).status_code == 404
            assert (await client.delete(path)).status_code == 404
    await q.run_until_empty()


def test_it_must_be_said_who_may_ask(q: TaskQ) -> None:
    async def anybody() -> None: ...

    with pytest.raises(ConfigError, match=r"auth=current_user.* development=True"):
        job_router(q)
    with pytest.raises(ConfigError, match=r"auth='admin': use a dependency"):
        job_router(q, auth="admin")
    with pytest.raises(ConfigError, match="use one of them"):
        job_router(q, auth=anybody, development=True)
    with pytest.raises(ConfigError, match="use a list"):
        job_router(q, auth=anybody, origins="https://app.example.org")


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        # No browser, or one whose user typed the address
        ({}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://shop.example"}, True),
        ({"Origin": "http://shop.example"}, True),
        # Behind a proxy that ends TLS the scheme is another one
        ({"Origin": "https://shop.example"}, True),
        # Pages of others
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://shop.example"}, False),
        ({"Sec-Fetch-Site": "nonsense"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://shop.example.evil.example"}, False),
        ({"Origin": "http://shop.example:8080"}, False),
        ({"Origin": "null"}, False),
        # Unless the application names them
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.org"}, True),
        ({"Origin": "https://app.example.org"}, True),
    ],
)
async def test_pages_of_other_sites_are_refused_on_every_route(
    q: TaskQ, headers: dict[str, str], answered: bool
) -> None:
    asked: list[str] = []

    async def anybody(job_id: str) -> None:
        asked.append(job_id)

    app = FastAPI()
    app.include_router(job_router(q, auth=anybody, origins=["https://app.example.org/"]))
    job = await q.remote("elsewhere").options(delay=60).enqueue()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        for method, path in [
            ("GET", f"/jobs/{job.id}/result"),
            ("GET", f"/jobs/{job.id}"),
            ("DELETE", f"/jobs/{job.id}"),
            ("GET", f"/jobs/{job.id}/events"),
        ]:
            answer = await client.request(method, path, headers=headers)
            assert (answer.status_code != 403) is answered, (method, path)
    if not answered:
        assert "pages of other sites" in answer.json()["detail"]
        # Before anybody is asked who they are, and before anything is done
        assert asked == []
        assert await job.cancel()


async def test_secrets_and_numbers_that_json_has_not_are_answered(q: TaskQ) -> None:
    @q.task(name="report")
    async def report() -> dict[str, Any]:
        return {
            "token": [Secret("hunter2"), {"deep": (Secret(b"hunter2"),)}],
            "numbers": [math.nan, math.inf, -math.inf, 1.5],
        }

    app = FastAPI()
    app.include_router(job_router(q, development=True))
    job = await report.enqueue()
    await q.run_until_empty()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app"
    ) as client:
        answer = await client.get(f"/jobs/{job.id}/result")

    assert answer.status_code == 200
    assert answer.json()["result"] == {
        "token": ["********", {"deep": ["********"]}],
        "numbers": ["NaN", "Infinity", "-Infinity", 1.5],
    }


async def test_errors_do_not_show_passwords(q: TaskQ, client: httpx.AsyncClient) -> None:
    @q.task(name="report")
    async def report() -> None:
        raise OSError("cannot reach postgresql://app:hunter2@db/shop with password=hunter2")

    job = await report.enqueue()
    await q.run_until_empty()

    for path in (f"/jobs/{job.id}", f"/jobs/{job.id}/result", f"/jobs/{job.id}/events"):
        text = (await client.get(path)).text
        assert "postgresql://app:********@db/shop with password=********" in text
        assert "hunter2" not in text


def test_openapi_knows_what_is_answered(app: FastAPI) -> None:
    schema = app.openapi()

    assert set(schema["paths"]) == {
        "/jobs/{job_id}",
        "/jobs/{job_id}/events",
        "/jobs/{job_id}/result",
    }
    looking = schema["paths"]["/jobs/{job_id}"]["get"]
    assert looking["tags"] == ["jobs"]
    assert looking["summary"] == "A job's state"
    models = schema["components"]["schemas"]
    assert set(models) >= {"JobView", "JobOutcome", "JobCancelling", "JobProblem", "JobState"}
    stream = schema["paths"]["/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    assert "text/event-stream" in stream
    parameters = schema["paths"]["/jobs/{job_id}/result"]["get"]["parameters"]
    assert [item["name"] for item in parameters] == ["job_id", "wait"]


async def test_a_server_that_is_gone_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskq.broker.jobs.CALL_SECONDS", 0.2)
    server = TestServer()
    q = TaskQ(server.url, enqueue_deadline=0.2)
    app = FastAPI(lifespan=q.lifespan)
    app.include_router(job_router(q, development=True))
    async with serving(app, 0) as client:
        await asyncio.to_thread(server.stop)
        answer = await client.get("/jobs/none")
    server.close()

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
