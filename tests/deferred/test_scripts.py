"""Deferring where no event loop runs: in scripts, at their end, and in processes they fork."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from taskq import TaskQ
from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

ROOT = Path(__file__).resolve().parents[2]

BEGINNING = """
import asyncio, multiprocessing, os, sys, threading, time
from taskq import DeferredSettings, TaskQ

q = TaskQ(deferred=DeferredSettings(grace=10))

@q.task(name="double")
async def double(number):
    await asyncio.sleep(0.05)
    return 2 * number

def say(text):
    time.sleep(0.05)
    print(text, flush=True)
"""


def run(script: str, server: TestServer, namespace: str, *, lost: int = 0) -> list[str]:
    """What a script says, which must come to its end; `lost`: how many calls it leaves."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            BEGINNING.replace("TaskQ(", f"TaskQ(namespace={namespace!r}, ") + script,
        ],
        env=os.environ | {"TASKQ_URL": server.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stderr.splitlines()
    assert len(told) == lost, told
    assert all("is lost" in line for line in told), told
    return done.stdout.split()


def test_a_script_defers_without_a_loop_and_waits_at_its_end(
    server: TestServer, namespace: str
) -> None:
    said = run(
        """
handle = double.defer(3)
print(q.run(handle.result(timeout=10)))
q.defer(say, "at-the-end")
""",
        server,
        namespace,
    )

    assert said == ["6", "at-the-end"]


def test_so_do_its_threads(server: TestServer, namespace: str) -> None:
    said = run(
        """
def defer():
    print(q.run(double.defer(4).result(timeout=10)))

threads = [threading.Thread(target=defer) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
        server,
        namespace,
    )

    assert said == ["8", "8", "8"]


def test_a_loop_that_is_opened_later_runs_its_own_calls(server: TestServer, namespace: str) -> None:
    said = run(
        """
async def where():
    return asyncio.get_running_loop()

async def main():
    async with q:
        print(await q.defer(where) is asyncio.get_running_loop())
        loop = await asyncio.to_thread(lambda: q.run(q.defer(where).result()))
        print(loop is asyncio.get_running_loop())
        print(q.deferred.stats().pending)

async def deferring():
    return await q.defer(where) is asyncio.get_running_loop()

q.deferred.options(delay=60).defer(say, "late")
print(q.run(q.defer(where).result(timeout=10)) is q.run(where()), q.run(deferring()))
asyncio.run(main())
print(q.deferred.stats().pending)
q.run(q.deferred.drain(0))
print(q.deferred.stats().pending, q.deferred.stats().lost)
q.defer(say, "at-the-end")
""",
        server,
        namespace,
        lost=1,
    )

    assert said == ["True", "True", "True", "True", "1", "1", "0", "1", "at-the-end"]


FORKS = {
    "a script that has used its background loop": """
q.run(double.defer(1).result(timeout=10))
if (child := os.fork()) == 0:
    print(q.run(double.defer(5).result(timeout=10)), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(q.run(double.defer(6).result(timeout=10)))
""",
    "a program in whose loop calls ran": """
async def main():
    async with q:
        await double.defer(1)
        if (child := os.fork()) == 0:
            print(q.run(double.defer(5).result(timeout=10)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(await double.defer(6))

asyncio.run(main())
""",
    "a program that was only opened": """
async def main():
    async with q:
        if (child := os.fork()) == 0:
            print(q.run(double.defer(5).result(timeout=10)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(await double.defer(6))

asyncio.run(main())
""",
    "a process of multiprocessing with a loop of its own": """
async def work():
    async with q:
        print(await double.defer(5), flush=True)

def target():
    asyncio.run(work())

q.run(double.defer(1).result(timeout=10))
process = multiprocessing.get_context("fork").Process(target=target)
process.start()
process.join()
print(q.run(double.defer(6).result(timeout=10)))
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
@pytest.mark.parametrize("script", FORKS.values(), ids=FORKS)
def test_a_call_in_a_forked_process_runs_there(
    script: str, server: TestServer, namespace: str
) -> None:
    assert run(script, server, namespace) == ["10", "12"]


async def test_who_opened_nothing_is_warned_at_the_first_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Given an application without the lifespan of its TaskQ
    q, app, ran = TaskQ("redis://localhost:1"), FastAPI(), list[int]()

    @app.post("/")
    async def endpoint() -> None:
        q.defer(ran.append, 1)

    # When two requests defer something
    transport = httpx.ASGITransport(app=app)
    with caplog.at_level(logging.WARNING, "taskq.deferred"):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.post("/")
            await client.post("/")
        await q.deferred.drain()

    # Then they run, and one warning says what is missing
    assert ran == [1, 1]
    assert caplog.text.count("has not opened its TaskQ") == 1
    assert "FastAPI(lifespan=q.lifespan)" in caplog.text


async def test_who_opened_it_or_runs_a_worker_is_not(
    q: TaskQ, caplog: pytest.LogCaptureFixture
) -> None:
    @q.task(name="outer")
    async def outer() -> None:
        q.defer(ran.append, "in a job")

    ran: list[str] = []
    await outer.enqueue()
    with caplog.at_level(logging.WARNING, "taskq.deferred"):
        await q.run_until_empty()
        async with q.deferred:
            q.defer(ran.append, "opened")

    assert ran == ["in a job", "opened"]
    assert caplog.text == ""


async def test_a_thread_of_an_application_that_nobody_opened_may_defer() -> None:
    q, ran = TaskQ("redis://localhost:1"), threading.Event()

    await asyncio.to_thread(q.defer, ran.set)

    await asyncio.to_thread(eventually_sync, ran.is_set)
