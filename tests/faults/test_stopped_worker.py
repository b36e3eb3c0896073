"""A worker that stands still longer than its lease, and wakes up when others have its jobs."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from taskq import Job, TaskQ
from tests.faults import ledger_app
from tests.faults.conftest import Book, StartWorker
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.faults


@pytest.mark.leaves_jobs
async def test_what_a_worker_does_after_its_lease_ran_out_changes_nothing(
    q: TaskQ, server: TestServer, namespace: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "ledger")
    Path(ledger).touch()
    program = ledger_app.program(server.url, namespace)
    task = program._registry.find("run")
    assert task is not None

    # Given a worker that is stopped while it runs jobs
    sleeper = await asyncio.to_thread(start_worker, "default", "sleeper")
    jobs: list[Job[int]] = [await task.enqueue(ledger, 1.0) for _ in range(10)]
    await eventually(lambda: len(ledger_app.read(ledger)) == 10)
    sleeper.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()

    # When another one has run them meanwhile
    await asyncio.to_thread(start_worker, "default", lease=2.0)
    results = await asyncio.gather(*(job.result(timeout=30) for job in jobs))
    assert results == [2] * 10
    print(f"its jobs had run elsewhere {time.monotonic() - stopped:.1f} s after SIGSTOP")
    infos = [await job.info() for job in jobs]

    # Then it may wake up, and end them as well
    sleeper.send_signal(signal.SIGCONT)
    late = await task.options(queue="sleeper").enqueue(ledger, 0.0)
    assert await late.result(timeout=10) == 1

    # And each has the one result it had
    assert [await job.info() for job in jobs] == infos
    for info in infos:
        assert [record.outcome for record in info.attempts] == ["lost", "succeeded"]
        assert info.result == 2
    # And the sleeper has noticed, and goes on under another name
    log = (tmp_path / "worker-0.log").read_text()
    assert "this worker was declared dead" in log or "was refused" in log
    assert (await late.info()).worker not in {info.attempts[0].worker for info in infos}
    await program.aclose()


async def test_what_was_handed_to_it_before_it_does_not_start_when_it_wakes(
    book: Book, start_worker: StartWorker, tmp_path: Path
) -> None:
    # Given a worker that is stopped when jobs were handed to it, and another that ran them
    await book.enqueue("run", 10, 0.0)
    sleeper = await asyncio.to_thread(
        start_worker, "default", failpoints="fetch.answered=stop", lease=60, trusts=2.0
    )
    await eventually(lambda: stands(sleeper.pid))
    other = await asyncio.to_thread(start_worker, "default", lease=2.0)
    await book.at_rest()

    # When it wakes up
    sleeper.send_signal(signal.SIGCONT)
    await eventually(lambda: "declared dead" in (tmp_path / "worker-0.log").read_text())

    # Then it has started none of them, and takes others as before
    assert {line.pid for line in book.ledger.read() if line.what == "start"} == {other.pid}
    book.drained(other)
    await book.enqueue("run", 10, 0.0)
    await book.at_rest()
    book.drained(sleeper)
    verdict = await book.verdict()
    assert verdict.executions == 20


def stands(pid: int) -> bool:
    """Whether a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.leaves_jobs
async def test_a_short_stop_costs_nothing(
    q: TaskQ, server: TestServer, namespace: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    ledger = str(tmp_path / "ledger")
    Path(ledger).touch()
    program = ledger_app.program(server.url, namespace)
    task = program._registry.find("run")
    assert task is not None

    sleeper = await asyncio.to_thread(start_worker, "default")
    jobs: list[Job[int]] = [await task.enqueue(ledger, 0.5) for _ in range(10)]
    await eventually(lambda: len(ledger_app.read(ledger)) == 10)
    # Given others that watch
    await asyncio.to_thread(start_worker, "elsewhere")
    sleeper.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.5)
    sleeper.send_signal(signal.SIGCONT)

    assert await asyncio.gather(*(job.result(timeout=10) for job in jobs)) == [1] * 10
    assert len(ledger_app.read(ledger)) == 20
    await program.aclose()
