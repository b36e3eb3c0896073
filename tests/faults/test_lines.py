"""Bad lines, few descriptors, many restarts: workers behind a proxy, and what they leave."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import AsyncIterator

import pytest

from taskq.broker.scripts import script
from tests.faults.conftest import Book, StartWorker
from tests.support.proxy import Proxy
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


@pytest.fixture
async def proxy(server: TestServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket) as proxy:
        yield proxy


@pytest.mark.parametrize("word", ["fetch", "finish"])
async def test_killed_with_a_reply_on_its_way_a_worker_loses_nothing(
    book: Book, proxy: Proxy, start_worker: StartWorker, word: str
) -> None:
    worker = await asyncio.to_thread(start_worker, "default", url=proxy.url)
    # Given that the server has done what it was asked, and its reply never comes
    proxy.lose_reply(script(word).sha.encode())
    await book.enqueue("run", 10, 0.0)
    await eventually(lambda: proxy._pairs and not proxy._rules[0].times)
    await proxy.refuse()
    worker.kill()
    worker.wait(10)

    healthy = await asyncio.to_thread(start_worker, "default", lease=1.5)
    await eventually(lambda: book.look.zcard(book.q._settings.keys.workers) == 1, within=20)
    await book.at_rest()
    await asyncio.to_thread(book.drained, healthy)
    verdict = await book.verdict(interrupted=10)
    if word == "fetch":
        assert verdict.interrupted == 0


async def test_a_slow_line_that_stalls_costs_nobody_a_job(
    book: Book, proxy: Proxy, start_worker: StartWorker, soak: int
) -> None:
    observer = await asyncio.to_thread(start_worker, "elsewhere")
    worker = await asyncio.to_thread(start_worker, "default", url=proxy.url)
    proxy.delay = 0.1
    await book.enqueue("run", 30, 0.2)
    await eventually(lambda: book.starts() >= 10)
    # A stall, shorter than a lease
    proxy.delay = 3.0 if soak == 1 else 5.0
    await asyncio.sleep(proxy.delay)
    proxy.delay = 0.1
    await book.at_rest()
    proxy.delay = 0.0
    await asyncio.to_thread(book.drained, worker, observer)
    await book.verdict(interrupted=0)


@pytest.mark.parametrize("lost", ["beat", "fetch"])
async def test_half_a_conversation_leaves_no_job_behind(
    book: Book, proxy: Proxy, start_worker: StartWorker, lost: str
) -> None:
    """One script of a worker never arrives, and all others do."""
    handicapped = await asyncio.to_thread(start_worker, "default", url=proxy.url)
    proxy.lose_request(script(lost).sha.encode(), times=10_000)
    await book.enqueue("run", 20, 0.1)
    healthy = await asyncio.to_thread(start_worker, "default", lease=2.0)

    await book.at_rest()

    proxy.heal()
    await eventually(lambda: book.look.zcard(book.q._settings.keys.workers) == 2, within=20)
    await asyncio.to_thread(book.drained, handicapped, healthy)
    await book.verdict(interrupted=40)


async def test_a_worker_out_of_descriptors_waits_for_some(
    book: Book, start_worker: StartWorker, proxy: Proxy
) -> None:
    worker = await asyncio.to_thread(start_worker, "default", url=proxy.url)
    soft, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    # Given that its lines are cut, and that it can open no other
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, hard))
    proxy.cut()
    await book.enqueue("run", 10, 0.0)
    await asyncio.sleep(1.0)
    assert worker.poll() is None
    assert book.starts() == 0

    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (soft, hard))
    await book.at_rest()
    await asyncio.to_thread(book.drained, worker)
    await book.verdict()


@pytest.mark.timeout(900)
async def test_workers_that_come_and_go_leave_no_trace(
    book: Book, start_worker: StartWorker, soak: int
) -> None:
    for _ in range(30 if soak == 1 else 1000):
        await book.enqueue("run", 2, 0.0)
        assert await book.q.run_until_empty() == 2
    # And some that were killed
    for _ in range(2):
        await book.enqueue("run", 1, 0.5)
        worker = await asyncio.to_thread(start_worker, "default", lease=1.0)
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    healthy = await asyncio.to_thread(start_worker, "default", lease=1.0)
    await eventually(lambda: book.look.zcard(book.q._settings.keys.workers) == 1, within=20)
    await book.at_rest()
    await asyncio.to_thread(book.drained, healthy)
    await book.verdict(interrupted=2)
