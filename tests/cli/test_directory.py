"""Whatever moves the current directory, processes start where the command was typed."""

from __future__ import annotations

import os
import re
import signal

import pytest

from taskq import TaskQ
from tests.cli.terminal import Command, Terminal
from tests.support.waiting import eventually_sync

# It goes elsewhere when it is imported, by a way that leads on only once.
APP = """
import os
os.chdir("below")

from taskq import TaskQ

q = TaskQ(namespace={namespace!r})

@q.task
async def here() -> tuple[int, str]:
    return os.getpid(), os.getcwd()

@q.task
async def leave() -> None:
    os.chdir("/")

@q.task(executor="process")
def apart() -> str:
    return os.getcwd()

@q.task
async def grow() -> None:
    grow.held = bytearray(400_000_000)
    grow.held[::4096] = b"x" * len(grow.held[::4096])

@q.task(timeout=0.1)
def overstays() -> None:
    import time
    time.sleep(600)
"""


@pytest.fixture
def below(terminal: Terminal, namespace: str) -> str:
    """The directory that the application moves to."""
    (terminal.folder / "moving.py").write_text(APP.format(namespace=namespace))
    (terminal.folder / "below").mkdir()
    return str(terminal.folder / "below")


async def here(q: TaskQ) -> tuple[int, str]:
    pid, place = await (await q.send("moving.here")).result(timeout=20)
    return pid, place


def ends(command: Command) -> None:
    command.signal(signal.SIGTERM)
    assert command.ended() == 0


async def test_the_workers_of_a_supervisor(q: TaskQ, terminal: Terminal, below: str) -> None:
    command = terminal.type("worker", "moving.py", "-w", "2").until_ready(workers=2)

    pid, place = await here(q)
    os.kill(pid, signal.SIGKILL)
    command.until_ready(workers=3)

    assert place == below
    ends(command)


@pytest.mark.parametrize(
    ("flags", "task", "times"),
    [
        (["--max-jobs", "1"], "moving.leave", 1),
        (["--max-memory", "350MB"], "moving.grow", 1),
        (["--threads", "30"], "moving.overstays", 20),
    ],
    ids=["max-jobs", "max-memory", "leaked threads"],
)
async def test_a_worker_that_makes_way(
    q: TaskQ, terminal: Terminal, below: str, flags: list[str], task: str, times: int
) -> None:
    command = terminal.type("worker", "moving.py", *flags).until_ready()

    for _ in range(times):
        await q.send(task)
    command.until_ready(workers=2)

    assert (await here(q))[1] == below
    ends(command)


async def test_a_worker_whose_code_changed(q: TaskQ, terminal: Terminal, below: str) -> None:
    command = terminal.type("worker", "moving.py", "--reload").until_ready()
    watched = re.search(r"watching the Python files in (.*)", command.errors)
    assert watched
    assert watched[1] == str(terminal.folder)
    await (await q.send("moving.leave")).result(timeout=20)

    # A watch may begin a moment late
    def changed() -> bool:
        (terminal.folder / "moving.py").touch()
        try:
            command.until_written("is ready", times=2, within=4)
        except AssertionError:
            return False
        return True

    eventually_sync(changed, within=20)

    assert (await here(q))[1] == below
    ends(command)


async def test_the_processes_of_process_tasks(q: TaskQ, terminal: Terminal, below: str) -> None:
    command = terminal.type("worker", "moving.py").until_ready()
    await (await q.send("moving.leave")).result(timeout=20)

    assert await (await q.send("moving.apart")).result(timeout=20) == below
    ends(command)


async def test_a_target_from_pyproject(q: TaskQ, terminal: Terminal, below: str) -> None:
    (terminal.folder / "pyproject.toml").write_text('[tool.taskq]\napp = "moving:q"\n')

    command = terminal.type("worker", "--max-jobs", "1").until_ready()
    assert (await here(q))[1] == below
    command.until_ready(workers=2)

    ends(command)
