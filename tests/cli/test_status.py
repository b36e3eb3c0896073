"""`taskq status`: what it shows, to people and to scripts, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskq import Job, JobState, TaskQ
from tests.cli.typed import typed
from tests.support.server import TestServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.leaves_jobs

ALONE = "import typer; from taskq.cli.status import status; typer.run(status)"


@pytest.fixture
def where(server: TestServer, namespace: str) -> tuple[str, ...]:
    return "--url", server.url, "--namespace", namespace


async def test_a_namespace_with_nothing_to_do_is_healthy(where: tuple[str, ...]) -> None:
    done = await typed("status", *where)

    assert done.exit_code == 0, done.output
    assert "0 waiting, 0 running, 0 scheduled, 0 failed" in done.stdout


async def test_queues_and_workers_are_shown_in_columns(
    q: TaskQ, where: tuple[str, ...], namespace: str
) -> None:
    end = asyncio.Event()

    @q.task(name="waits", queue="slow")
    async def waits() -> None:
        await end.wait()

    async with q.worker(["slow"], concurrency=3) as worker:
        job = await waits.enqueue()
        await eventually(lambda: is_running(job))
        await q.remote("later").options(queue="slow", delay=600).enqueue()
        done = await typed("status", *where)
        end.set()
        await job.result(timeout=5)

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"namespace {namespace}")
    assert lines[1].startswith("0 waiting, 1 running, 1 scheduled (the next in 10 min)")
    queue = dict(zip(heads(lines, "queue"), row(lines, "slow"), strict=False))
    assert (queue["queue"], queue["waiting"], queue["running"]) == ("slow", "0", "1")
    found = next(line for line in lines if line.startswith(worker.name))
    assert found.split()[1:4] == [str(os.getpid()), "1", "3"]
    assert found.endswith("slow")


async def is_running(job: Job[None]) -> bool:
    return await job.status() is JobState.RUNNING


def heads(lines: list[str], first: str) -> list[str]:
    # "oldest" is empty when nothing waits.
    return [
        word
        for line in lines
        if line.startswith(first)
        for word in line.split()
        if word != "oldest"
    ]


def row(lines: list[str], first: str) -> list[str]:
    return next(line for line in lines if line.startswith(first)).split()


async def test_jobs_that_wait_for_nobody_end_it_with_3_and_what_to_type(
    q: TaskQ, where: tuple[str, ...]
) -> None:
    await q.remote("t").options(queue="images", priority=9).enqueue()

    done = await typed("status", *where)

    assert done.exit_code == 3
    assert "bad  queue images: 1 job waits, the oldest for " in done.stdout
    assert done.stdout.rstrip().endswith("and no worker listens: taskq worker -q images")
    assert "9: 1" in done.stdout


async def test_a_worker_that_is_stopping_does_not_listen(q: TaskQ, where: tuple[str, ...]) -> None:
    end = asyncio.Event()

    @q.task(name="waits")
    async def waits() -> None:
        await end.wait()

    worker = q.worker(["default"])
    serving = asyncio.create_task(worker.run())
    job = await waits.enqueue()
    await eventually(lambda: is_running(job))
    worker.stop()
    # It says so with its next beat.
    await eventually(lambda: shows("stopping", "status", *where))
    await q.send("waits")
    done = await typed("status", *where)
    examined = await typed("doctor", *where)
    told = json.loads((await typed("status", *where, "--json")).stdout)
    end.set()
    await serving

    assert done.exit_code == 3
    assert "queue default: 1 job waits, the oldest for " in done.stdout
    assert "and no worker listens (1 is stopping): taskq worker -q default" in done.stdout
    rows = [line for line in done.stdout.splitlines() if str(os.getpid()) in line.split()]
    assert ["ago, stopping  default" in row for row in rows] == [True]
    assert examined.exit_code == 3
    assert "no worker listens (1 is stopping)" in examined.stdout
    (queue,), (shown,) = told["queues"], told["workers"]
    assert (queue["workers"], queue["stopping"]) == (0, 1)
    assert (shown["alive"], shown["stopping"]) == (True, True)


async def shows(text: str, *words: str) -> bool:
    return text in (await typed(*words)).stdout


async def test_json_says_the_same_to_scripts(
    q: TaskQ, where: tuple[str, ...], server: TestServer, namespace: str
) -> None:
    await q.enqueue_many([q.remote("t").s(number) for number in range(3)])
    async with q.worker(["other"]):
        done = await typed("status", *where, "--json")

    told = json.loads(done.stdout)
    assert done.exit_code == 3
    assert (told["server"], told["namespace"]) == (server.url, namespace)
    assert told["healthy"] is False
    queues = {queue["name"]: queue for queue in told["queues"]}
    assert queues["default"]["by_priority"] == {"5": 3}
    assert queues["other"]["workers"] == 1
    (worker,) = told["workers"]
    assert worker["alive"] is True
    assert worker["queues"] == ["other"]
    assert told["troubles"][0]["fix"] == "taskq worker -q default"
    assert told["troubles"][0]["serious"] is True


async def test_it_looks_at_the_server_of_a_target(
    q: TaskQ, server: TestServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"app_{namespace}"
    Path(f"{name}.py").write_text(
        f"from taskq import TaskQ\nq = TaskQ({server.url!r}, namespace={namespace!r})\n"
    )
    await q.send("t")

    named = await typed("status", f"{name}:q")
    examined = await typed("doctor", f"{name}:q", "--json")
    assert named.exit_code == examined.exit_code == 3
    # What it advises can be typed as it is.
    assert f"no worker listens: taskq worker {name}:q -q default" in named.stdout
    fixes = [verdict["fix"] for verdict in json.loads(examined.stdout)["verdicts"]]
    assert f"taskq worker {name}:q -q default" in fixes
    by_variable = await typed("status", TASKQ_APP=f"{name}.py")
    assert by_variable.exit_code == 3
    assert "no worker listens: taskq worker -q default" in by_variable.stdout
    both = await typed("status", f"{name}:q", "--namespace", "x")
    assert both.exit_code == 2
    assert "use either a target, or --url and --namespace" in both.stderr


async def test_without_a_target_the_url_of_the_environment_is_looked_at(
    q: TaskQ, server: TestServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    await q.send("t")

    done = await typed("status", TASKQ_URL=server.url, TASKQ_NAMESPACE=namespace)

    assert done.exit_code == 3
    assert "queue default: 1 job waits" in done.stdout


@pytest.mark.parametrize("directory", [{}, {"TASKQ_DIR": ""}], ids=["unset", "empty"])
async def test_looking_starts_no_server_where_none_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    done = await typed("status", **directory)

    assert done.exit_code == 2
    assert "--url redis://host:6379/0" in done.stderr
    assert list(tmp_path.iterdir()) == []


async def test_an_unreachable_server_ends_it_with_1_and_no_password(tmp_path: Path) -> None:
    done = await typed("status", "--url", f"unix://user:hidden@{tmp_path}/none")

    assert done.exit_code == 1
    assert f"cannot reach unix://{tmp_path}/none" in done.stderr
    assert "hidden" not in done.output


async def test_a_wrong_url_is_a_usage_error() -> None:
    done = await typed("status", "--url", "http://host")

    assert done.exit_code == 2
    assert "use redis://host:6379/0" in done.stderr


async def test_watching_without_a_pause_is_refused(where: tuple[str, ...]) -> None:
    for every in ("0s", "1ms"):
        done = await typed("status", *where, "--watch", "--every", every)

        assert done.exit_code == 2
        assert "use 50ms or more" in done.stderr


async def test_watching_looks_again_until_it_is_interrupted(
    q: TaskQ, where: tuple[str, ...]
) -> None:
    words = (*where, "--watch", "--every", "50ms", "--json")
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", ALONE, *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        first = json.loads(await asyncio.to_thread(process.stdout.readline))
        await q.send("t")
        waiting = 0
        while not waiting:
            again = json.loads(await asyncio.to_thread(process.stdout.readline))
            waiting = sum(queue["waiting"] for queue in again["queues"])
        process.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(process.wait, 10)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()

    assert first["queues"] == []
    assert waiting == 1
    assert code == 0


def test_on_a_terminal_it_is_in_colour_and_refreshed_in_place(where: tuple[str, ...]) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE, *where, "--watch", "--every", "50ms"],
        stdout=theirs,
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(theirs)
    seen = b""
    try:
        # The second look goes up over the first.
        while seen.count(b"0 waiting") < 2 or b"\x1b[1A" not in seen:
            seen += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
