"""What can be seen of deferred calls: stats, failures, logs, hooks, the record in the server."""

from __future__ import annotations

import asyncio
import logging
import time
from contextvars import ContextVar

import pytest

from taskq import DeferredSettings, JobFailed, Retry, Secret, TaskQ
from taskq.deferred.report import DeferredFailure
from taskq.ops.overview import Overview, read_overview
from tests.support.waiting import eventually


async def overview(q: TaskQ) -> Overview:
    return await read_overview(q._backend.current().client, q._settings.keys, q._settings.offset)


async def test_stats_count_what_runs_and_what_has_become_of_the_rest(alone: TaskQ) -> None:
    go = asyncio.Event()
    running = alone.defer(go.wait)
    alone.deferred.options(delay=60).defer(go.wait)
    await alone.defer(asyncio.sleep, 0)

    stats = alone.deferred.stats()

    assert (stats.running, stats.scheduled, stats.waiting, stats.pending) == (1, 1, 0, 2)
    assert (stats.submitted, stats.succeeded) == (3, 1)
    assert stats.oldest is not None
    go.set()
    await running


async def test_failures_are_logged_with_the_request_and_told_to_hooks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given a request, and a hook that is broken beside one that is not
    request: ContextVar[str | None] = ContextVar("request", default=None)
    q = TaskQ("redis://localhost:1", deferred=DeferredSettings(request_id=request))
    told: list[DeferredFailure] = []

    @q.deferred.on_error
    def broken_hook(failure: DeferredFailure) -> None:
        raise RuntimeError("the hook")

    @q.deferred.on_error
    def hook(failure: DeferredFailure) -> None:
        assert request.get() == "r-7"
        told.append(failure)

    @q.task(name="mail", retry=Retry(max_attempts=2, backoff=0.0))
    async def mail() -> None:
        raise ValueError("no such address")

    # When a call fails twice
    async with q.deferred:
        request.set("r-7")
        with pytest.raises(JobFailed):
            await mail.defer()

    # Then both are told, and the last one with its traceback
    assert [(f.final, f.attempt, f.request_id) for f in told] == [
        (False, 1, "r-7"),
        (True, 2, "r-7"),
    ]
    assert isinstance(told[1].error, ValueError)
    [last, first] = q.deferred.failures()
    assert (last.task, last.error_text, last.error) == ("mail", "no such address", None)
    assert not first.final
    [final] = [
        r
        for r in caplog.records
        if r.levelno == logging.ERROR and r.name.endswith("deferred") and "hook" not in r.message
    ]
    assert "of request r-7" in final.message
    assert final.__dict__["request_id"] == "r-7"
    assert final.exc_info
    assert "the error hook" in caplog.text


async def test_a_call_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    q = TaskQ("redis://localhost:1", deferred=DeferredSettings(slow=0.05))

    @q.task(name="computes")
    async def computes() -> None:
        time.sleep(0.5)  # noqa: ASYNC251, this is what must not be

    async with q.deferred:
        await computes.defer()

    [warning] = [r.message for r in caplog.records if "blocked the event loop" in r.message]
    assert "task computes" in warning
    assert "test_visible.py:" in warning


async def test_the_server_knows_what_each_process_has_pending(q: TaskQ) -> None:
    go = asyncio.Event()
    async with q:
        handle = q.defer(go.wait)
        q.deferred.options(delay=60).defer(go.wait)

        shown = await eventually(lambda: _deferring(q), within=10)

        assert (shown.running, shown.scheduled, shown.silent < 10) == (1, 1, True)
        go.set()
        await handle
        await q.deferred.drain(0.0)
        assert (await overview(q)).deferring == ()


async def _deferring(q: TaskQ):
    found = (await overview(q)).deferring
    return found[0] if found and found[0].scheduled else None


async def test_records_of_dead_processes_go(q: TaskQ) -> None:
    async with q:
        store = q._backend.durable_calls()
        await store.show("dead", b"\x80")
        assert [one.name for one in (await overview(q)).deferring] == ["dead"]

        q._settings.offset.ms += 61_000
        assert (await overview(q)).deferring == ()
        await store.show("living", b"not msgpack")
        assert [one.name for one in (await overview(q)).deferring] == ["living"]
        assert await q._backend.current().client.command("HKEYS", q._settings.keys.deferring) == [
            b"living"
        ]


async def test_secrets_are_shown_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    q = TaskQ("redis://localhost:1")

    @q.task(name="login")
    async def login(token: Secret[str]) -> None:
        raise ValueError(f"refused: {token.reveal()}")

    async with q.deferred:
        with pytest.raises(JobFailed) as failed:
            await login.defer(Secret("xyzzy-plugh"))
        with pytest.raises(JobFailed):
            await login.defer("xyzzy-plugh")  # pyright: ignore[reportArgumentType]

    [last, _] = q.deferred.failures()
    assert failed.value.__cause__ is None
    assert "refused: ***" in last.error_text
    for text in (caplog.text, last.error_text, last.traceback, str(failed.value)):
        assert "refused" in text
        assert "xyzzy" not in text
