"""Worker processes that a test may kill, stop and wake, and the book it is judged by."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from taskq import Job, TaskQ
from tests.faults import ledger_app
from tests.faults.ledger import Ledger
from tests.faults.oracle import Expected, Verdict, judge
from tests.support.scripts import lanes_of
from tests.support.server import TestServer
from tests.support.waiting import eventually, eventually_sync

ROOT = Path(__file__).resolve().parents[2]

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(scope="session")
def soak() -> int:
    """How many times as much a test does as in CI: TASKQ_SOAK, which `make soak` sets."""
    return int(os.environ.get("TASKQ_SOAK", "1"))


@pytest.fixture
def server_url(server: TestServer) -> str:
    """Where workers of the test connect to."""
    return server.url


@pytest.fixture
def start_worker(server_url: str, namespace: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker process for some queues; all are killed in the end.

    `lease`: seconds of silence after which it takes others for dead; `trusts`: after which it does
    not know whether it was, by default the same.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *queues: str,
        concurrency: int = 50,
        lease: float | None = None,
        beat: float | None = None,
        trusts: float | None = None,
        url: str | None = None,
        failpoints: str = "",
        environment: dict[str, str] | None = None,
        wait: bool = True,
    ) -> subprocess.Popen[bytes]:
        log_path = tmp_path / f"worker-{len(started)}.log"
        variables = os.environ | {
            "LEDGER_URL": url or server_url,
            "LEDGER_NAMESPACE": namespace,
            "LEDGER_CONCURRENCY": str(concurrency),
            "LEDGER_LEASE": str(lease or ""),
            "LEDGER_BEAT": str(beat or ""),
            "LEDGER_TRUSTS": str(trusts or ""),
            "TASKQ_FAILPOINTS": failpoints,
            **(environment or {}),
        }
        with log_path.open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.ledger_app", *queues],
                cwd=ROOT, env=variables, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        started.append(worker)
        if wait:
            is_ready(worker, log_path)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait(10)
        assert worker.stdout is not None
        worker.stdout.close()


def is_ready(worker: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Return once a worker takes jobs."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    assert line == b"ready\n", log.read_text() if log else line


class Book:
    """A ledgered program of one test: enqueues, remembers, and asks the oracle in the end."""

    def __init__(self, q: TaskQ, look: redis.Redis, path: Path) -> None:
        self.q = q
        self.look: Any = look
        self.ledger = Ledger(path)
        self.path = str(path)

    async def enqueue(
        self, task: str, count: int, *arguments: Any, **options: Any
    ) -> list[Job[Any]]:
        """Enqueue jobs of a task, its ledger first among its arguments, and note them."""
        found = self.q._registry.find(task)
        assert found is not None
        configured = found.options(**options)
        jobs = await self.q.enqueue_many(
            [configured.s(self.path, *arguments) for _ in range(count)]
        )
        self.ledger.write_many("ack", [(job.id, job.id, 0, "-") for job in jobs])
        return list(jobs)

    def starts(self) -> int:
        return self.ledger.count("start")

    async def at_rest(self, within: float = 30.0) -> None:
        """Wait until nothing waits or runs."""
        await eventually(self.resting, within=within)

    def resting(self) -> bool:
        """Whether nothing waits or runs."""
        keys = self.q._settings.keys
        lanes = lanes_of(self.look, keys)
        return not self.look.zcard(keys.due) and not any(
            self.look.xlen(keys.lane_prefix + lane) for lane in lanes
        )

    def drained(self, *workers: subprocess.Popen[bytes]) -> None:
        """Have workers leave; they must, and in time."""
        for worker in workers:
            worker.terminate()
        for worker in workers:
            assert worker.wait(15) == 0

    async def verdict(self, interrupted: int = 0, **more: Any) -> Verdict:
        """What the oracle says, workers having left; anything wrong fails the test."""
        verdict = await judge(
            self.ledger, self.q, self.look, Expected(interrupted=interrupted, **more)
        )
        print(verdict)
        assert not verdict.wrong, str(verdict)
        return verdict


@pytest.fixture
async def book(
    server: TestServer, namespace: str, look: redis.Redis, tmp_path: Path
) -> AsyncIterator[Book]:
    """A book in a namespace of its own on the shared server."""
    q = ledger_app.program(server.url, namespace)
    yield Book(q, look, tmp_path / "ledger")
    await q.aclose()


def gone(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all of them have ended."""
    eventually_sync(lambda: all(worker.poll() is not None for worker in workers), within=30)
