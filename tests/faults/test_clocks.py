"""Clocks that jump: the server's decides what is due, and none decides who is dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from taskq import TaskQ
from tests.faults import ledger_app
from tests.faults.conftest import Book, StartWorker
from tests.support.scripts import last_heartbeat
from tests.support.server import TestServer
from tests.support.waiting import eventually

if find_spec("libfaketime") is None:
    pytest.skip("libfaketime is ready-made for x86-64 Linux only", allow_module_level=True)

LIBRARY = resources.files("libfaketime") / "vendor/libfaketime/src/libfaketime.so.1"

pytestmark = pytest.mark.faults


class FakeClock:
    """What a process must have in its environment for its wall clock to be ours to move."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "offset"
        self.move(0)
        self.environment = {
            # Debian's Redis 7.0 has its jemalloc in a library, which asks for the time before the
            # clock is ready to say it: memory comes from the C library instead.
            "LD_PRELOAD": f"{LIBRARY} libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, seconds: int) -> None:
        """From now on the clock is so many seconds ahead, or behind."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path)


@pytest.fixture
def server_of_another_time(clock: FakeClock) -> Iterator[TestServer]:
    server = TestServer(environment=clock.environment)
    yield server
    server.close()


async def beats(look: redis.Redis, q: TaskQ, more: int) -> None:
    """Wait until so many more beats were heard."""

    def counted() -> int:
        return last_heartbeat(look, q._settings.keys)

    before = counted()
    await eventually(lambda: counted() >= before + more, within=20)


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
async def test_a_servers_clock_that_jumps_kills_nobody_and_moves_only_what_is_due(
    server_of_another_time: TestServer, clock: FakeClock, hours: int, tmp_path: Path
) -> None:
    server = server_of_another_time
    q = ledger_app.program(server.url, "clocks")
    look = redis.Redis(unix_socket_path=str(server.socket))
    book = Book(q, look, tmp_path / "ledger")
    async with q.worker() as first, q.worker() as second:
        # Given a job that runs, one that is due in half an hour, and one in two hours
        [running] = await book.enqueue("run", 1, 2.0)
        [soon] = await book.enqueue("run", 1, 0.0, delay=1800)
        [later] = await book.enqueue("run", 1, 0.0, delay=7200)
        await eventually(lambda: book.starts() == 1)
        seen = int(look.time()[0])  # type: ignore[index]

        clock.move(3600 * hours)
        await eventually(lambda: abs(int(look.time()[0]) - seen) > 3000)  # type: ignore[index]
        await beats(look, q, 6)

        # Then nobody is dead, and what runs is left alone
        assert await running.result(timeout=10) == 1
        assert [worker.tally.lost + worker.tally.reaped for worker in (first, second)] == [0, 0]
        # And what is due by the server's clock has run, and nothing else
        if hours > 0:
            assert await soon.result(timeout=10) == 1
        else:
            assert not (await soon.status()).finished
        assert not (await later.status()).finished
        [new] = await book.enqueue("run", 1, 0.0)
        assert await new.result(timeout=10) == 1
    look.close()
    await q.aclose()


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
async def test_a_workers_clock_that_is_off_changes_nothing(
    book: Book, start_worker: StartWorker, clock: FakeClock, hours: int
) -> None:
    # Given a worker that lives in another hour, and one that does not
    clock.move(3600 * hours)
    queer = await asyncio.to_thread(start_worker, "default", "queer", environment=clock.environment)
    plain = await asyncio.to_thread(start_worker, "default")
    began = time.monotonic()
    await book.enqueue("run", 18, 0.2)
    await book.enqueue("run", 2, 0.2, queue="queer")
    delayed = await book.enqueue("run", 10, 0.0, delay=1.5)
    [far] = await book.enqueue("run", 1, 0.0, delay=1800)

    # When its clock jumps while it works
    clock.move(-3600 * hours)
    for job in delayed:
        assert await job.result(timeout=15) == 1

    # Then jobs became due by the server's clock
    assert time.monotonic() - began >= 1.5
    assert not (await far.status()).finished
    assert await far.cancel()
    book.ledger.write("cancel", far.id, far.id)
    await book.at_rest()
    book.drained(queer, plain)
    verdict = await book.verdict()
    # And it really was in another hour
    noted = [line.at for line in book.ledger.read() if line.pid == queer.pid]
    assert noted
    assert all(abs(at - time.time()) > 3000 for at in noted)
    assert verdict.executions == 30
