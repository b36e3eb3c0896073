"""The server goes away, comes back, or comes back empty: workers and producers go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from taskq import (
    ConfigError,
    JobNotFound,
    JobState,
    ResultTimeout,
    ServerUnavailable,
    TaskQ,
    current_job,
)
from taskq.broker.broker import Broker
from taskq.broker.keys import Keys
from taskq.worker import worker as worker_module
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


@contextlib.asynccontextmanager
async def while_down(server: TestServer, how: signal.Signals) -> AsyncIterator[None]:
    """Stop the server for as long as the block takes."""
    await asyncio.to_thread(server.stop, how)
    yield
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_worker_survives_a_restart_of_the_server(
    fragile: TaskQ, own_server: TestServer, how: signal.Signals
) -> None:
    q = fragile
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> str:
        started.set()
        await go.wait()
        return f"attempt {current_job().attempt}"

    @q.task(name="one")
    async def one() -> int:
        return 1

    running, queued = await wait.enqueue(), await one.options(queue="later").enqueue()
    waiting = asyncio.create_task(running.result(timeout=20))
    async with q.worker(["default"]) as worker:
        await started.wait()
        async with while_down(own_server, how):
            # Given a job that ends while nobody can be told
            go.set()
            await eventually(lambda: worker.tally.succeeded == 1)

        # Then its outcome is stored, and who waited for it across the restart is told
        assert await waiting == "attempt 1"
        # What was queued is still there, and new jobs run
        assert await queued.status() is JobState.QUEUED
        assert await (await one.enqueue()).result(timeout=10) == 1
        assert worker.tally.lost == worker.tally.fenced == 0

    assert await q.run_until_empty(["later"]) == 1


async def test_work_resumes_soon_after_the_server_is_back(
    fragile: TaskQ, own_server: TestServer
) -> None:
    q = fragile

    @q.task(name="one")
    async def one() -> int:
        return 1

    async with q.worker():
        await (await one.enqueue()).result(timeout=5)
        async with while_down(own_server, signal.SIGKILL):
            job = asyncio.create_task(one.enqueue())
            await asyncio.sleep(0.3)
        back = time.monotonic()
        assert await (await job).result(timeout=10) == 1
        print(f"resumed after {time.monotonic() - back:.2f} s")
        assert time.monotonic() - back < 5


async def test_an_enqueue_waits_out_a_restart_and_makes_one_job(
    fragile: TaskQ, own_server: TestServer
) -> None:
    q = fragile
    ran: list[int] = []

    @q.task(name="note")
    async def note(number: int) -> None:
        ran.append(number)

    await note.enqueue(0)
    async with while_down(own_server, signal.SIGKILL):
        enqueueing = [asyncio.create_task(note.enqueue(number)) for number in range(1, 50)]
        await asyncio.sleep(0)
    jobs = await asyncio.gather(*enqueueing)

    assert all(job.created for job in jobs)
    assert await q.run_until_empty() == 50
    assert sorted(ran) == list(range(50))


async def test_an_enqueue_gives_up_in_bounded_time_and_names_the_server(tmp_path: Path) -> None:
    q = TaskQ(f"unix://{tmp_path}/nobody", enqueue_deadline=0.3)

    @q.task(name="one")
    async def one() -> None: ...

    before = time.monotonic()
    with pytest.raises(ServerUnavailable) as caught:
        await one.enqueue()
    assert time.monotonic() - before < 3
    assert f"{tmp_path}/nobody" in str(caught.value)
    assert "within 0.3 s" in str(caught.value)
    assert isinstance(caught.value, ConnectionError)
    await q.aclose()


async def test_passwords_do_not_show_in_messages() -> None:
    q = TaskQ("redis://ada:s3cret@127.0.0.1:1/0", enqueue_deadline=0.1)

    @q.task(name="one")
    async def one() -> None: ...

    with pytest.raises(ServerUnavailable) as caught:
        await one.enqueue()
    chain: BaseException | None = caught.value
    while chain is not None:
        assert "s3cret" not in f"{chain!r} {chain}"
        chain = chain.__cause__
    assert "127.0.0.1:1" in str(caught.value)
    await q.aclose()


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis+cluster://a"])
def test_an_url_of_another_kind_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="redis://"):
        TaskQ(url)


async def test_opening_a_taskq_without_a_server_says_so(tmp_path: Path) -> None:
    q = TaskQ(f"unix://{tmp_path}/nobody")

    with pytest.raises(ServerUnavailable, match="is the server running"):
        async with q:
            pass
    with pytest.raises(ServerUnavailable):
        async with q.worker(["default"]):
            pass


async def test_a_wait_for_a_result_is_bounded_while_the_server_is_away(
    fragile: TaskQ, own_server: TestServer
) -> None:
    q = fragile

    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await one.enqueue()
    async with while_down(own_server, signal.SIGKILL):
        before = time.monotonic()
        with pytest.raises(ResultTimeout, match="the server does not answer"):
            await job.result(timeout=0.2)
        assert time.monotonic() - before < 3
    assert await q.run_until_empty() == 1


async def test_a_server_that_lost_everything_is_worked_with_again(
    fragile: TaskQ, own_server: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    q = fragile
    look = redis.Redis(unix_socket_path=str(own_server.socket))
    started, interrupted = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            interrupted.set()

    @q.task(name="one")
    async def one() -> int:
        return 1

    job = await wait.enqueue()
    async with q.worker() as worker:
        await started.wait()
        old = worker.name
        look.flushall()

        # Then the worker registers again, and stops what nobody knows of any more
        await asyncio.wait_for(interrupted.wait(), 5)
        assert await (await one.enqueue()).result(timeout=5) == 1
        assert worker.name != old
        assert look.zrange(Keys("fragile").workers, 0, -1) == [worker.name.encode()]
        with pytest.raises(JobNotFound):
            await job.status()

    assert "the server lost its data" in caplog.text
    look.close()


async def test_scripts_the_server_forgot_are_sent_again(
    fragile: TaskQ, own_server: TestServer
) -> None:
    q = fragile
    look = redis.Redis(unix_socket_path=str(own_server.socket))

    @q.task(name="one")
    async def one() -> int:
        return 1

    async with q.worker():
        assert await (await one.enqueue()).result(timeout=5) == 1
        look.script_flush()
        assert await (await one.enqueue()).result(timeout=5) == 1
    look.close()


async def test_cut_connections_lose_nothing(
    fragile: TaskQ, own_server: TestServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    q = fragile
    look = redis.Redis(unix_socket_path=str(own_server.socket))
    runs: list[int] = []

    @q.task(name="note")
    async def note(number: int) -> int:
        await asyncio.sleep(0.002)
        runs.append(number)
        return number

    async with q.worker(concurrency=20) as worker:
        jobs = await q.enqueue_many([note.s(number) for number in range(1000)])
        waiting = asyncio.gather(*(job.result(timeout=30) for job in jobs))
        for mark in (100, 300, 500, 700):
            await eventually(lambda mark=mark: len(runs) >= mark)
            for client in look.client_list():
                if client["name"] in ("taskq", "taskq-worker", "taskq-heart"):
                    with contextlib.suppress(redis.ResponseError):
                        look.client_kill_filter(_id=client["id"])
        results = await waiting

    # Then each ran once, whatever was on its way when the lines were cut
    assert results == list(range(1000))
    assert sorted(runs) == list(range(1000))
    assert worker.tally.fenced == worker.tally.lost == 0
    look.close()


async def test_a_worker_leaves_in_bounded_time_though_the_server_is_gone_for_good(
    fragile: TaskQ, own_server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SETTLE_SECONDS", 0.5)
    q = fragile
    started, go = asyncio.Event(), asyncio.Event()

    @q.task(name="wait")
    async def wait() -> None:
        started.set()
        await go.wait()

    job = await wait.enqueue()
    worker = q.worker(grace=0.5)
    await worker.__aenter__()
    await started.wait()
    await asyncio.to_thread(own_server.stop, signal.SIGKILL)
    go.set()
    await eventually(lambda: worker.tally.succeeded == 1)

    # Given an outcome that it cannot hand in
    await asyncio.wait_for(worker.__aexit__(None, None, None), 15)

    # Then the job is not lost: it runs again once the server is back, and its worker judged dead
    await asyncio.to_thread(own_server.start)
    assert await job.status() is JobState.RUNNING
    broker = Broker(q._settings)
    await broker.leases.reap(worker.name, broker.reap_policy)
    await broker.aclose()
    assert await q.run_until_empty() == 1
    assert (await job.info()).attempt == 2


async def test_a_server_that_hangs_is_left_behind(fragile: TaskQ, own_server: TestServer) -> None:
    q = fragile

    @q.task(name="one")
    async def one() -> int:
        return 1

    async with q.worker() as worker:
        await (await one.enqueue()).result(timeout=5)
        process = own_server.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        job = asyncio.create_task(one.enqueue())
        # A silent server is no reason to think that any worker is dead
        await asyncio.sleep(0.5)
        process.send_signal(signal.SIGCONT)
        assert await (await job).result(timeout=10) == 1
        assert worker.tally.lost == worker.tally.reaped == 0
