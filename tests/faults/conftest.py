"""Worker processes that a test may kill, stop and wake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.server import TestServer

ROOT = Path(__file__).resolve().parents[2]

StartWorker = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(server: TestServer, namespace: str, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a worker process for some queues; all are killed in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *queues: str, concurrency: int = 50, lease: float | None = None
    ) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "LEDGER_URL": server.url,
            "LEDGER_NAMESPACE": namespace,
            "LEDGER_CONCURRENCY": str(concurrency),
            "LEDGER_LEASE": str(lease or ""),
        }
        with (tmp_path / f"worker-{len(started)}.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.ledger_app", *queues],
                cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        started.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n", (tmp_path / "worker-0.log").read_text()
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait(10)
        assert worker.stdout is not None
        worker.stdout.close()
