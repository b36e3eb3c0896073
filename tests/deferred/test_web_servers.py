"""Real web servers that are told to stop while deferred calls run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from taskq import TaskQ
from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

APPLICATION = "tests.deferred.web:api"


def uvicorn(socket: Path, *options: str) -> list[str]:
    return ["uvicorn", APPLICATION, "--uds", str(socket), "--log-level", "warning", *options]


def gunicorn(socket: Path, *options: str) -> list[str]:
    worker = ["-k", "uvicorn.workers.UvicornWorker", "-w", "1", "--bind", f"unix:{socket}"]
    return ["gunicorn", APPLICATION, *worker, "--log-level", "warning", *options]


class Web:
    """A running web server, a client of it, and what its application wrote."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
        self.process = process
        self.client = client
        self._log = log

    def said(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def post(self, path: str, seconds: float) -> str:
        answer = self.client.post(path, params={"seconds": seconds})
        assert answer.status_code == 200
        return answer.json()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


@contextmanager
def serving(
    command: list[str], socket: Path, tmp_path: Path, url: str, namespace: str, **environment: str
) -> Iterator[Web]:
    log, output = tmp_path / "log", (tmp_path / "output").open("wb")
    told = {"LOG": str(log), "TASKQ_URL": url, "NAMESPACE": namespace}
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | told | environment,
        stdout=output,
        stderr=output,
    )
    output.close()
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://app", timeout=20) as client:
        try:
            eventually_sync(lambda: socket.exists() and "opened" in _text(log), within=30)
            yield Web(process, client, log)
        finally:
            process.kill()
            process.wait()


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.mark.parametrize("server_name", ["uvicorn", "impatient uvicorn", "gunicorn"])
def test_calls_end_within_the_grace_and_resources_live_until_then(
    server_name: str, socket: Path, tmp_path: Path, server: TestServer, namespace: str
) -> None:
    commands = {
        "uvicorn": uvicorn(socket),
        # Its own limit is for requests: what is deferred is not cut off by it
        "impatient uvicorn": uvicorn(socket, "--timeout-graceful-shutdown", "1"),
        "gunicorn": gunicorn(socket),
    }
    with serving(commands[server_name], socket, tmp_path, server.url, namespace) as web:
        # Given a coroutine and a thread that run when the server is told to stop
        web.post("/work", 2.0)
        web.post("/thread", 1.5)
        eventually_sync(lambda: len(web.said()) == 3)

        web.stop()

        # Then both end, and what they use is closed after them
        said = web.said()
    assert sorted(said[1:3]) == ["began 2", "thread began"]
    assert said[3:] == ["thread ended", "ended 2", "closed"]


@pytest.mark.parametrize("server_name", ["uvicorn", "gunicorn"])
async def test_what_is_not_finished_in_time_goes_on_in_the_queue(
    server_name: str, socket: Path, tmp_path: Path, server: TestServer, q: TaskQ, namespace: str
) -> None:
    command = uvicorn(socket) if server_name == "uvicorn" else gunicorn(socket)
    attempts: list[float] = []

    @q.task(name="work")
    async def work(seconds: float) -> str:
        attempts.append(seconds)
        return "by a worker"

    with serving(command, socket, tmp_path, server.url, namespace, GRACE="0.3") as web:
        job_id = web.post("/work", 60.0)
        eventually_sync(lambda: "began 60" in web.said())
        web.stop()
        assert web.said()[-1] == "closed"

    async with q:
        assert (await q.job(job_id).info()).state == "queued"
        assert await q.run_until_empty() == 1
        assert await q.job(job_id).result(timeout=5) == "by a worker"


def test_the_status_of_the_queue_shows_the_web_process(
    socket: Path, tmp_path: Path, server: TestServer, namespace: str, look: redis.Redis
) -> None:
    shown = f"{{{namespace}}}:deferring"
    command = ["status", "--url", server.url, "--namespace", namespace]
    with serving(uvicorn(socket), socket, tmp_path, server.url, namespace) as web:
        web.post("/work", 1.0)
        eventually_sync(lambda: look.exists(shown))
        status = subprocess.run(
            [sys.executable, "-m", "taskq", *command], capture_output=True, text=True, check=False
        )
        assert f"-{web.process.pid}-" in status.stdout
        assert "durable" in status.stdout
        web.stop()
    assert not look.exists(shown)
