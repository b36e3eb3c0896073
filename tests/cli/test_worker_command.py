"""One `taskq worker` process: what it says, how it ends, what it does with a wrong line."""

from __future__ import annotations

import json
import os
import pty
import signal
from pathlib import Path
from typing import Any

import pytest

from taskq import Job, JobFailed, JobState, TaskQ
from tests.cli.terminal import Terminal, is_running
from tests.support.server import TestServer
from tests.support.waiting import eventually

SIGTERM, SIGINT, SIGHUP, SIGQUIT = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT


async def asleep(q: TaskQ, terminal: Terminal, seconds: float) -> Job[str]:
    """A job that is known to run."""
    job = await q.send("app.sleepy", seconds)
    await eventually(lambda: terminal.asleep)
    return job


# ------------------------------------------------------------------------------ what it serves


async def test_it_finds_the_app_and_serves_the_queues_of_all_its_tasks(
    q: TaskQ, terminal: Terminal
) -> None:
    here, there = (
        await q.send("app.add", 1, 2),
        await q.remote("app.elsewhere").options(queue="other").enqueue(),
    )

    command = terminal.type("worker").until_ready()

    assert await here.result(timeout=5) == 3
    assert await there.result(timeout=5) == "other"
    banner = command.errors
    assert "target       app:q" in banner
    assert "queues       default, other" in banner
    assert "app.add, app.blocks" in banner
    assert "Ctrl-C once: finish running jobs (30 s); twice: stop now" in banner
    command.signal(SIGTERM)
    assert command.ended() == 0


async def test_burst_ends_when_nothing_is_due(q: TaskQ, terminal: Terminal) -> None:
    jobs = [await q.send("app.add", number, 1) for number in range(20)]

    done = terminal.output("worker", "app:q", "--burst")

    assert done.returncode == 0, done.stderr
    assert [await job.result(timeout=1) for job in jobs] == list(range(1, 21))


@pytest.mark.leaves_jobs
async def test_options_come_from_the_environment_too(q: TaskQ, terminal: Terminal) -> None:
    left_alone = await q.send("app.add", 1, 2)
    taken = await q.remote("app.elsewhere").options(queue="other").enqueue()

    done = terminal.output(
        "worker",
        TASKQ_APP="app.py",
        TASKQ_QUEUES="other,more",
        TASKQ_BURST="1",
        TASKQ_GRACE="1m30s",
        TASKQ_CONCURRENCY="7",
    )

    assert done.returncode == 0, done.stderr
    assert "queues       other, more" in done.stderr
    assert "7 jobs at once" in done.stderr
    assert "(90 s)" in done.stderr
    assert await taken.result(timeout=1) == "other"
    assert await left_alone.status() is JobState.QUEUED


async def test_a_worker_without_tasks_warns(q: TaskQ, terminal: Terminal, namespace: str) -> None:
    (terminal.folder / "bare.py").write_text(
        f"from taskq import TaskQ\nq = TaskQ(namespace={namespace!r})\n"
    )

    done = terminal.output("worker", "bare:q", "--burst")

    assert done.returncode == 0
    assert "WARNING taskq.worker: no tasks are registered" in done.stderr


async def test_json_logs_are_one_object_per_line_without_arguments(
    q: TaskQ, terminal: Terminal
) -> None:
    job = await q.send("app.add", 1, b="the secret")
    shout = await q.send("app.shout", "hello")

    done = terminal.output("worker", "--burst", "--log-format", "json", "--log-jobs")

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["target"] for line in lines if line["message"] == "taskq worker"] == ["app:q"]
    [failed] = [line for line in lines if line["level"] == "error"]
    named = {"job": job.id, "task": "app.add", "attempt": 1, "queue": "default"}
    assert failed.items() >= (named | {"error_type": "TypeError"}).items()
    assert "app.add(a: int, b: int)" in failed["exception"] or "in add" in failed["exception"]
    [said, ended] = [line for line in lines if line.get("job") == shout.id]
    assert (said["logger"], said["message"], said["task"]) == ("app", "hello", "app.shout")
    assert (ended["logger"], ended["outcome"]) == ("taskq.jobs", "succeeded")
    # Nothing is scheduled
    assert not [line for line in lines if "leads" in line["message"]]
    assert all(line.keys() >= {"ts", "level", "logger", "message"} for line in lines)
    assert "the secret" not in "".join(line["message"] for line in lines if "job" in line)


# ---------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize(("flag", "loop"), [("--uvloop", "uvloop"), ("--no-uvloop", "asyncio")])
async def test_the_first_signal_lets_running_jobs_finish(
    q: TaskQ, terminal: Terminal, flag: str, loop: str
) -> None:
    command = terminal.type("worker", flag).until_ready()
    assert f"workers      1 on {loop}, pid {command.pid}" in command.errors
    job = await asleep(q, terminal, 0.7)

    command.signal(SIGTERM)

    assert command.ended() == 0
    assert await job.result(timeout=1) == "slept"
    assert "1 running job has 30 s to finish" in command.errors


@pytest.mark.parametrize("which", [SIGHUP, SIGQUIT])
async def test_a_hang_up_and_a_quit_end_it_as_sigterm_does(
    q: TaskQ, terminal: Terminal, which: signal.Signals
) -> None:
    command = terminal.type("worker").until_ready()
    job = await asleep(q, terminal, 0.7)

    command.signal(which)

    assert command.ended() == 0
    assert await job.result(timeout=1) == "slept"


@pytest.mark.leaves_jobs
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_terminal_that_closes_leaves_no_worker_and_blames_no_job(
    q: TaskQ, terminal: Terminal, workers: str
) -> None:
    job = await q.send("app.sleepy", 600.0)
    # As often as makes a job that kills its worker a poison message
    for _ in range(3):
        ours, theirs = pty.openpty()
        command = terminal.type("worker", "-w", workers, "--grace", "100ms", tty=theirs)
        os.close(theirs)
        await eventually(lambda: _runs(q, job))
        family = {command.pid, *command.children}

        # When somebody closes its window
        os.close(ours)

        assert command.ended() == 0
        await eventually(lambda family=family: not any(map(is_running, family)))
        info = await job.info()
        assert (info.state, info.failures, info.crashes) == (JobState.QUEUED, 0, 0)


async def _runs(q: TaskQ, job: Job[Any]) -> bool:
    return await job.status() is JobState.RUNNING


async def test_what_nohup_made_deaf_to_hang_ups_stays_deaf(q: TaskQ, terminal: Terminal) -> None:
    def ignore() -> None:
        signal.signal(SIGHUP, signal.SIG_IGN)

    command = terminal.type("worker", before=ignore).until_ready()

    command.signal(SIGHUP)

    assert await (await q.send("app.add", 1, 2)).result(timeout=5) == 3
    command.signal(SIGTERM)
    assert command.ended() == 0


@pytest.mark.leaves_jobs
async def test_what_does_not_finish_within_the_grace_is_handed_back(
    q: TaskQ, terminal: Terminal
) -> None:
    command = terminal.type("worker", "--grace", "300ms").until_ready()
    job = await asleep(q, terminal, 600.0)

    command.signal(SIGTERM)

    assert command.ended() == 0
    assert await job.status() is JobState.QUEUED


@pytest.mark.leaves_jobs
@pytest.mark.parametrize(
    ("first", "second"), [(SIGINT, SIGINT), (SIGHUP, SIGTERM), (SIGQUIT, SIGQUIT)]
)
async def test_the_second_signal_hands_them_back_now(
    q: TaskQ, terminal: Terminal, first: signal.Signals, second: signal.Signals
) -> None:
    command = terminal.type("worker").until_ready()
    job = await asleep(q, terminal, 600.0)

    command.signal(first)
    command.until_written("stopping; 1 running job has")
    assert command.process.poll() is None
    command.signal(second)

    assert command.ended() == 0
    assert await job.status() is JobState.QUEUED


@pytest.mark.slow
@pytest.mark.leaves_jobs
async def test_the_second_signal_ends_a_worker_whose_loop_is_blocked(
    q: TaskQ, terminal: Terminal
) -> None:
    command = terminal.type("worker").until_ready()
    await q.send("app.blocks", 600.0)
    command.until_written("has blocked the event loop")

    command.signal(SIGTERM)
    command.signal(SIGINT)

    assert command.ended(within=8) == 1
    assert "did not stop in time" in command.errors


@pytest.mark.parametrize("task", ["leaves_a_thread", "leaves_a_coroutine"])
async def test_what_a_job_left_behind_does_not_keep_the_process(
    q: TaskQ, terminal: Terminal, task: str
) -> None:
    job = await q.send(f"app.{task}", *([600.0] if task == "leaves_a_thread" else []))

    command = terminal.type("worker", "--burst")

    assert command.ended(within=10) == 0
    assert "exiting although a job left this behind" in command.errors
    await job.result(timeout=1)


@pytest.mark.slow
async def test_too_many_leaked_threads_make_it_start_again_under_its_pid(
    q: TaskQ, terminal: Terminal
) -> None:
    command = terminal.type("worker", "--threads", "30").until_ready()
    for _ in range(20):
        await q.send("app.overstays", 600.0)

    command.until_ready(workers=2)

    assert "recycling this worker: 20 timed-out jobs" in command.errors
    assert await (await q.send("app.pid")).result(timeout=5) == command.pid
    command.signal(SIGTERM)
    assert command.ended() == 0


# ------------------------------------------------------------------- jobs that would end it


@pytest.mark.parametrize("flag", ["--uvloop", "--no-uvloop"])
async def test_no_job_ends_it_by_ending_the_event_loop(
    q: TaskQ, terminal: Terminal, flag: str
) -> None:
    command = terminal.type("worker", flag).until_ready()
    neighbour = await asleep(q, terminal, 1.5)

    group = await q.send("app.exits_in_a_group")
    gather = await q.send("app.exits_in_a_gather")
    going_on = [await q.send("app.exits_in_a_callback"), await q.send("app.stops_the_loop")]

    for job, kind in ((group, "SystemExit"), (gather, "KeyboardInterrupt")):
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
        assert caught.value.error_type == kind
    assert [await job.result(timeout=5) for job in going_on] == ["went on", "went on"]
    assert await neighbour.result(timeout=5) == "slept"
    assert [attempt.number for attempt in (await neighbour.info()).attempts] == [1]
    assert "an asyncio task that a job started raised SystemExit(3)" in command.errors
    command.signal(SIGTERM)
    assert command.ended() == 0


@pytest.mark.leaves_jobs
@pytest.mark.parametrize("flag", ["--uvloop", "--no-uvloop"])
async def test_a_job_that_cancels_everything_ends_it_in_order_and_fails_alone(
    q: TaskQ, terminal: Terminal, flag: str
) -> None:
    command = terminal.type("worker", flag).until_ready()
    neighbour = await asleep(q, terminal, 600.0)

    culprit = await q.send("app.cancels_everything")

    assert command.ended() == 1
    assert f"job {culprit.id} cancels every asyncio task of this process" in command.errors
    assert "a job cancelled this worker, which stops now" in command.errors
    # That of the job alone
    assert command.errors.count("Traceback") == 1
    assert await culprit.status() is JobState.FAILED
    # Not failed, and no failure is counted
    info = await neighbour.info()
    assert (info.state, info.failures) == (JobState.QUEUED, 0)
    assert [attempt.outcome for attempt in info.attempts] == ["released"]


# ------------------------------------------------------------------------------ wrong servers


async def test_it_waits_for_a_server_that_is_not_there_yet(terminal: Terminal) -> None:
    server = TestServer()
    try:
        server.stop()
        command = terminal.type("worker", TASKQ_URL=server.url)
        command.until_written(rf"cannot reach {server.url}.*; trying again in", times=2)

        server.start()

        command.until_ready()
        command.signal(SIGTERM)
        assert command.ended() == 0
    finally:
        server.close()


def test_it_can_be_stopped_while_it_waits_and_shows_no_password(terminal: Terminal) -> None:
    command = terminal.type("worker", TASKQ_URL="redis://:hunter2@127.0.0.1:1/0")
    command.until_written("trying again")

    command.signal(SIGTERM)

    assert command.ended(within=5) == 0
    assert "redis://127.0.0.1:1/0" in command.errors
    assert "hunter2" not in command.errors


def test_a_server_that_refuses_it_is_an_error(terminal: Terminal, server: TestServer) -> None:
    url = f"{server.url}?username=nobody&password=hunter2"

    done = terminal.output("worker", TASKQ_URL=url)

    assert done.returncode == 1
    assert "refuses this client" in done.stderr
    assert "hunter2" not in done.stderr


# --------------------------------------------------------------------------------- wrong lines


def test_a_wrong_line_ends_with_exit_code_2_and_says_what_to_type(terminal: Terminal) -> None:
    lines = {
        "app:nothing": "its TaskQ is app:q: use that",
        "--brust": "No such option: --brust",
        "--grace soon": "'soon' is not a duration",
        "--max-memory much": "'much' is not a size",
        "-q a/b": "queue 'a/b' cannot be part of a key",
        "-c 0": "-c",
        "--name a/b": "worker 'a/b' cannot be part of a key",
    }
    commands = {line: terminal.type("worker", *line.split()) for line in lines}

    codes = {line: command.ended() for line, command in commands.items()}

    assert codes == dict.fromkeys(lines, 2)
    for line, said in lines.items():
        assert said in commands[line].errors
        assert "Traceback" not in commands[line].errors


def test_a_url_of_another_kind_is_a_usage_error(terminal: Terminal) -> None:
    done = terminal.output("worker", TASKQ_URL="http://:hunter2@host/")

    assert done.returncode == 2
    assert "redis://host:6379/0" in done.stderr
    assert "hunter2" not in done.stderr


def test_an_app_that_does_not_import_shows_the_end_of_its_own_traceback(
    terminal: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("import taskq\n\ndef broken():\n    1 / 0\n\nbroken()\n")

    done = terminal.output("worker")

    assert done.returncode == 2
    assert 'app.py", line 4, in broken' in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "importlib" not in done.stderr
