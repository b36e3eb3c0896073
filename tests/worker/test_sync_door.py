"""`q.run`: the one door from synchronous code."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from taskq import CallError, JobFailed, ResultTimeout, TaskQ, TaskqError, current_job
from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def new_q(server: TestServer, namespace: str) -> Callable[[], TaskQ]:
    """Makes a TaskQ that the test lets go of: its background loop ends with it."""
    return functools.partial(TaskQ, server.url, namespace=namespace)


def test_a_plain_program_enqueues_works_and_waits(new_q: Callable[[], TaskQ]) -> None:
    q = new_q()

    @q.task(name="square")
    def square(number: int) -> int:
        return number * number

    job = q.run(square.enqueue(7))
    many = q.run(q.enqueue_many([square.s(number) for number in range(10)]))

    assert q.run(q.run_until_empty()) == 11
    assert q.run(job.result(timeout=5)) == 49
    assert [q.run(one.result(timeout=5)) for one in many] == [n * n for n in range(10)]
    q.run(q.aclose())


def test_what_cannot_be_awaited_is_refused_with_what_to_use(new_q: Callable[[], TaskQ]) -> None:
    q = new_q()

    @q.task(name="square")
    def square(number: int) -> int:
        return number * number

    for wrong in (square, square(3), square.s(3)):
        with pytest.raises(CallError, match=r"use q\.run\(add\.enqueue\(1, 2\)\)"):
            q.run(wrong)


def test_errors_come_through_the_door(new_q: Callable[[], TaskQ]) -> None:
    q = new_q()

    @q.task(name="broken")
    async def broken() -> None:
        raise OSError("no disk")

    job = q.run(broken.enqueue())
    with pytest.raises(ResultTimeout):
        q.run(job.result(timeout=0.01))
    q.run(q.run_until_empty())
    with pytest.raises(JobFailed, match="no disk"):
        q.run(job.result(timeout=5))
    q.run(q.aclose())


def test_the_wait_can_be_bounded(new_q: Callable[[], TaskQ]) -> None:
    cancelled = threading.Event()

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError):
        new_q().run(for_ever(), timeout=0.02)
    # What is given up does not go on in the background
    assert cancelled.wait(5)


def test_many_threads_use_the_same_door(new_q: Callable[[], TaskQ]) -> None:
    q = new_q()

    @q.task(name="square")
    async def square(number: int) -> int:
        return number * number

    before = threading.active_count()
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda number: q.run(square.enqueue(number)), range(100)))
        doors = [thread for thread in threading.enumerate() if thread.name == "taskq-portal"]

    assert len({job.id for job in jobs}) == 100
    assert len(doors) == 1
    assert threading.active_count() <= before + 1
    assert q.run(q.run_until_empty()) == 100
    q.run(q.aclose())


def test_the_background_loop_ends_with_its_taskq(new_q: Callable[[], TaskQ]) -> None:
    def use() -> list[threading.Thread]:
        q = new_q()
        q.run(q.aclose())
        return [thread for thread in threading.enumerate() if thread.name == "taskq-portal"]

    threads = use()
    assert threads
    eventually_sync(lambda: not any(thread.is_alive() for thread in threads))


async def test_in_a_coroutine_the_error_names_await(q: TaskQ) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    def deeper() -> None:
        q.run(one.enqueue())

    with pytest.raises(TaskqError, match="use `await` instead"):
        q.run(one.enqueue())
    with pytest.raises(TaskqError, match="would block the event loop"):
        deeper()


async def test_beside_a_running_loop_it_works_in_threads(
    new_q: Callable[[], TaskQ],
) -> None:
    q = new_q()

    @q.task(name="one")
    async def one() -> int:
        return 1

    def elsewhere() -> int:
        job = q.run(one.enqueue())
        q.run(q.run_until_empty())
        result = q.run(job.result(timeout=5))
        q.run(q.aclose())
        return result

    assert await asyncio.to_thread(elsewhere) == 1
    # And this loop has its own connection
    assert (await one.enqueue()).created
    assert await q.run_until_empty() == 1
    await q.aclose()


async def test_a_cell_of_a_notebook_may_use_it(
    new_q: Callable[[], TaskQ],
) -> None:
    q = new_q()

    @q.task(name="one")
    async def one() -> int:
        return 1

    # Given what a notebook does: it executes a cell inside a task of its own loop
    cell = "job = q.run(one.enqueue())\ndone = q.run(q.run_until_empty())\nq.run(q.aclose())"
    names = {"q": q, "one": one}
    exec(compile(cell, "<cell>", "exec"), names)

    assert names["done"] == 1
    assert await names["job"].result(timeout=5) == 1
    await q.aclose()


async def test_a_task_in_a_thread_enqueues_through_it(new_q: Callable[[], TaskQ]) -> None:
    q = new_q()
    # The timers of the background loop remember the job for some seconds, and what its task knows
    known = [q]

    @q.task(name="leaf")
    async def leaf() -> int:
        return 20

    @q.task(name="parent")
    def parent() -> str:
        child = known[0].run(leaf.enqueue())
        known[0].run(known[0].aclose())
        return f"{current_job().task} {child.id}"

    job = await parent.enqueue()
    assert await q.run_until_empty() == 2

    name, child = (await job.result(timeout=5)).split()
    assert name == "parent"
    assert await q.job(child).result(timeout=5) == 20
    await q.aclose()
    known.clear()


SCRIPT = """
import sys
from taskq import TaskQ

q = TaskQ(sys.argv[1], namespace=sys.argv[2])

@q.task
async def square(number: int) -> int:
    return number * number

job = q.run(square.enqueue(12))
q.run(q.run_until_empty())
print(q.run(job.result(timeout=5)))
"""


def test_a_script_ends_though_it_closed_nothing(server: TestServer, namespace: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, server.url, namespace],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "144\n", "")


AT_EXIT = """
import atexit, sys
from taskq import TaskQ, TaskqError

q = TaskQ(sys.argv[1], namespace=sys.argv[2])

@q.task
async def square(number: int) -> int:
    return number * number

async def needs_a_thread():
    raise RuntimeError("cannot schedule new futures after shutdown")

async def fails():
    raise RuntimeError("shutdown of the pump")

def last():
    print(q.run(square(3)), q.run(square.enqueue(3)).created)
    try:
        q.run(needs_a_thread())
    except TaskqError as error:
        print("in a `finally:`" in str(error))

def use():
    q.run(square(2))
    try:
        q.run(fails())
    except RuntimeError as error:
        print(error)

{order}
"""


@pytest.mark.parametrize(
    "order",
    ["atexit.register(last); use()", "use(); atexit.register(last)", "atexit.register(last)"],
    ids=["after its loop has ended", "before its loop ends", "for the first time"],
)
def test_at_the_exit_of_the_interpreter_it_works_or_says_why_not(
    server: TestServer, namespace: str, order: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EXIT.format(order=order), server.url, namespace],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    said = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert said[:1] == (["shutdown of the pump"] if "use" in order else ["9 True"])
    assert "9 True" in said
    assert said[-1] == "True"


FORKING = """
import os, sys
from taskq import TaskQ

q = TaskQ(sys.argv[1], namespace=sys.argv[2])

@q.task
async def square(number: int) -> int:
    return number * number

first = q.run(square.enqueue(2))
child = os.fork()
if child == 0:
    job = q.run(square.enqueue(3), timeout=5)
    q.run(q.run_until_empty())
    print("child", q.run(job.result(timeout=5)))
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
print("parent", q.run(first.result(timeout=5)), q.run(square.enqueue(4), timeout=5).created)
q.run(q.run_until_empty())
"""


def test_a_forked_process_has_a_door_of_its_own(server: TestServer, namespace: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING, server.url, namespace],
        cwd=ROOT, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (0, "child 9\nparent 4 True\n", "")
