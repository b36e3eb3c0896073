"""As the first process of a container, `taskq worker` leaves no zombies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import JobState, TaskQ
from tests.cli.terminal import APP, children_of
from tests.support.server import TestServer
from tests.support.waiting import eventually, eventually_sync

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux's process 1")

ORPHANS = '''
import subprocess

@q.task
async def leaves_orphans() -> list[int]:
    """Starts shells that end at once, and leave a process of theirs behind."""
    script = "for n in 1 2 3; do sleep 0.1 & echo $!; done"
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    return [int(pid) for pid in told.stdout.split()]
'''

AS_INIT = """
import ctypes, os, sys
# As process 1 does, without a namespace of processes: inherit orphans
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
os.execv(sys.executable, [sys.executable, "-m", "taskq", *sys.argv[1:]])
"""


def zombies_of(pid: int) -> list[int]:
    states = {}
    for child in children_of(pid):
        try:
            states[child] = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [child for child, state in states.items() if state == "Z"]


@pytest.fixture
def folder(tmp_path: Path, namespace: str) -> Path:
    (tmp_path / "app.py").write_text(APP.format(namespace=namespace) + ORPHANS)
    return tmp_path


@pytest.fixture
def init(server: TestServer, folder: Path, q: TaskQ) -> Iterator[subprocess.Popen[str]]:
    """A worker that inherits orphans."""
    process = subprocess.Popen(
        [sys.executable, "-c", AS_INIT, "worker", "app:q"],
        cwd=folder,
        env=os.environ | {"TASKQ_URL": server.url, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    if process.poll() is None:
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
    process.communicate()


async def test_it_asks_for_the_end_of_what_it_inherits(
    q: TaskQ, init: subprocess.Popen[str]
) -> None:
    # When a job leaves processes behind, which become children of process 1
    job = await q.send("app.leaves_orphans")
    orphans = await job.result(timeout=20)
    assert len(orphans) == 3

    # Then none of them stays, and the worker runs jobs
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    assert zombies_of(init.pid) == []
    assert await (await q.send("app.add", 1, 2)).result(timeout=10) == 3

    # And a signal reaches the worker, which drains and gives its exit code
    sleeping = await q.send("app.sleepy", 0.5)
    await eventually(lambda: _is_running(sleeping))
    init.send_signal(signal.SIGTERM)
    assert await sleeping.result(timeout=10) == "slept"
    eventually_sync(lambda: init.poll() is not None)
    assert init.returncode == 0


async def _is_running(job: object) -> bool:
    return await job.status() is JobState.RUNNING  # type: ignore[attr-defined]


@pytest.mark.leaves_jobs
async def test_it_ends_as_its_worker_does(q: TaskQ, init: subprocess.Popen[str]) -> None:
    pid = await (await q.send("app.pid")).result(timeout=20)
    assert children_of(init.pid) == {pid}

    os.kill(pid, signal.SIGKILL)

    eventually_sync(lambda: init.poll() is not None)
    assert init.returncode == 128 + signal.SIGKILL


def _may_unshare() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-pf", "true"], capture_output=True).returncode == 0


def burst(folder: Path, server: TestServer, *before: str) -> subprocess.Popen[str]:
    """A worker that ends when nothing is due."""
    return subprocess.Popen(
        [*before, sys.executable, "-m", "taskq", "worker", "app:q", "--burst"],
        cwd=folder,
        env=os.environ | {"TASKQ_URL": server.url, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not _may_unshare(), reason="this user may make no namespace of processes")
async def test_process_1_in_earnest(q: TaskQ, server: TestServer, folder: Path) -> None:
    jobs = [await q.send("app.pid"), await q.send("app.leaves_orphans")]

    process = burst(folder, server, "unshare", "-pf")
    _, errors = process.communicate(timeout=50)

    # Pids are those of the namespace: the worker is the child of process 1
    assert process.returncode == 0, errors
    assert await jobs[0].result(timeout=5) == 2
    assert min(await jobs[1].result(timeout=5)) > 2


async def test_elsewhere_the_worker_is_the_process_that_was_started(
    q: TaskQ, server: TestServer, folder: Path
) -> None:
    job = await q.send("app.pid")

    process = burst(folder, server)
    process.communicate(timeout=50)

    assert await job.result(timeout=5) == process.pid
