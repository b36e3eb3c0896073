"""Workers that die, stop or fail between any two words they exchange with the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT, Book, StartWorker, gone
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults

JOBS = 6

POINTS = {
    "fetch.send": 0,
    "fetch.sent": 0,
    "fetch.answered": 0,
    "finish.send": JOBS,
    "finish.sent": JOBS,
    "finish.answered": JOBS,
    "finish.send@2": JOBS,
    "finish.sent@3": JOBS,
    "beat.send@2": JOBS,
    "beat.sent@2": JOBS,
    "promote.send@2": JOBS,
    "promote.sent@2": JOBS,
    "promote.answered@2": JOBS,
}
"""Where a worker is hit, and how many of its runs that may cut short."""


def armed(point: str, action: str) -> str:
    name, _, count = point.partition("@")
    return f"{name}={action}@{count or 1}"


async def prepare(book: Book) -> None:
    """For each point a queue, whose only worker at first is the one to be hit."""
    for number in range(len(POINTS)):
        await book.enqueue("run", JOBS // 2, 0.05, queue=f"q{number}")
        # Among them some that are tried again, and some that are not yet due
        await book.enqueue("fail_once", JOBS // 6, 0.0, queue=f"q{number}", delay=0.1)
        await book.enqueue("run", JOBS // 3, 2.0, queue=f"q{number}", delay=0.1)


QUEUES = [f"q{number}" for number in range(len(POINTS))]


@pytest.mark.timeout(120)
async def test_killed_between_any_two_words_a_worker_loses_nothing(
    book: Book, start_worker: StartWorker
) -> None:
    await prepare(book)
    # When each worker kills itself at another point
    hit = [
        start_worker(f"q{n}", failpoints=armed(point, "kill"), lease=60, wait=False)
        for n, point in enumerate(POINTS)
    ]
    await asyncio.to_thread(gone, hit)
    assert [worker.returncode for worker in hit] == [-signal.SIGKILL] * len(POINTS)

    # Then those who come after them do what they left, and no more
    healthy = await asyncio.to_thread(start_worker, *QUEUES, lease=2.0)
    await book.at_rest()
    book.drained(healthy)
    await book.verdict(interrupted=sum(POINTS.values()))


@pytest.mark.timeout(120)
async def test_stopped_between_any_two_words_and_woken_too_late_a_worker_changes_nothing(
    book: Book, start_worker: StartWorker
) -> None:
    await prepare(book)
    hit = [
        start_worker(f"q{n}", failpoints=armed(point, "stop"), lease=60, trusts=2.0, wait=False)
        for n, point in enumerate(POINTS)
    ]
    await asyncio.to_thread(standing, hit)

    # Given that all their jobs were given to another, and ended there
    healthy = await asyncio.to_thread(start_worker, *QUEUES, lease=2.0)
    await book.at_rest()

    # When they wake up and say the rest of what they had to say
    for worker in hit:
        worker.send_signal(signal.SIGCONT)
    await book.enqueue("run", 1, 0.0, queue=QUEUES[0])
    await book.at_rest()
    book.drained(healthy, *hit)
    # (who has just woken may miss a beat again, and lose the one job that came after)
    await book.verdict(interrupted=sum(POINTS.values()) + 1)


def standing(workers: list[subprocess.Popen[bytes]]) -> None:
    """Wait until each has stopped itself."""
    for worker in workers:
        _, status = os.waitpid(worker.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)


@pytest.mark.timeout(90)
async def test_a_worker_killed_while_it_reaps_leaves_the_rest_to_others(
    book: Book, start_worker: StartWorker
) -> None:
    # Given three dead workers
    await book.enqueue("run", 30, 3.0)
    for begun in (10, 20, 30):
        dead = await asyncio.to_thread(start_worker, "default", concurrency=10, lease=60)
        await eventually(lambda begun=begun: book.starts() == begun)
        dead.kill()
    # When those who reap them die at each word of it
    for point in ("reap.send", "reap.sent", "reap.answered"):
        reaping = await asyncio.to_thread(
            start_worker, "elsewhere", failpoints=armed(point, "kill"), lease=1.0
        )
        await asyncio.to_thread(gone, [reaping])
        assert reaping.returncode == -signal.SIGKILL

    healthy = await asyncio.to_thread(start_worker, "default", lease=1.0)
    await book.at_rest()
    book.drained(healthy)
    verdict = await book.verdict(interrupted=30)
    assert verdict.interrupted == 30


@pytest.mark.timeout(60)
async def test_a_worker_killed_while_it_drains_loses_nothing(
    book: Book, start_worker: StartWorker
) -> None:
    await book.enqueue("run", 10, 1.0)
    draining = await asyncio.to_thread(start_worker, "default", failpoints="drain=kill")
    await eventually(lambda: book.starts() == 10)
    draining.terminate()
    await asyncio.to_thread(gone, [draining])
    assert draining.returncode == -signal.SIGKILL

    healthy = await asyncio.to_thread(start_worker, "default", lease=1.0)
    await book.at_rest()
    book.drained(healthy)
    await book.verdict(interrupted=10)


@pytest.mark.timeout(60)
async def test_a_worker_whose_loops_fail_goes_on(
    book: Book, start_worker: StartWorker, tmp_path: Path
) -> None:
    """An error nobody foresaw, in each of its conversations."""
    plan = "; ".join(
        # A worker's first beat registers it, and is no loop's.
        f"{script}.{point}=raise@{2 if script == 'beat' else 1}"
        for script in ("fetch", "finish", "promote", "beat")
        for point in ("send", "sent", "answered")
    )
    await book.enqueue("run", 10, 0.05, delay=0.2)
    await book.enqueue("run", 10, 0.05)
    worker = await asyncio.to_thread(start_worker, "default", failpoints=plan)

    await book.at_rest()
    book.drained(worker)
    await book.verdict(interrupted=20)
    log = (tmp_path / "worker-0.log").read_text()
    assert "the fetcher failed, which is an error in taskq; restarting it in 1 s" in log
    assert "a heartbeat failed, which is an error in taskq" in log


PRODUCER = """
import asyncio, sys
from tests.faults import ledger_app
async def main(url, namespace, ledger):
    async with ledger_app.program(url, namespace) as q:
        run = q._registry.find("run")
        await q.enqueue_many([run.options(id=f"mine-{n}").s(ledger, 0.0) for n in range(100)])
        print("acknowledged")
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("point", ["enqueue.send", "enqueue.sent", "enqueue.answered"])
async def test_a_producer_killed_while_it_enqueues_may_ask_again(
    book: Book, server: TestServer, namespace: str, point: str
) -> None:
    def ask(failpoints: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-c", PRODUCER, server.url, namespace, book.path],
            cwd=ROOT, env=os.environ | {"TASKQ_FAILPOINTS": failpoints}, capture_output=True,
            check=False, timeout=30,
        )  # fmt: skip

    # Given a producer that never learned whether its jobs are there
    assert (await asyncio.to_thread(ask, f"{point}=kill")).returncode == -signal.SIGKILL
    # When it asks again for the same ids
    again = await asyncio.to_thread(ask, "")
    assert again.stdout == b"acknowledged\n", again.stderr.decode()
    book.ledger.write_many("ack", [(f"mine-{n}", f"mine-{n}", 0, "-") for n in range(100)])

    # Then each is there once
    assert await book.q.run_until_empty() == 100
    await book.verdict()
