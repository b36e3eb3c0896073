"""A program with a ledger: its tasks write down when they start and end, wherever they run.

Run as a module it is a worker: `python -m tests.faults.ledger_app QUEUE... `, and what it needs to
know is in its environment. It ends when it is killed, or drains at SIGTERM.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import logging
import os
import signal
import sys
import time

from taskq import Retry, TaskQ, current_job
from taskq.worker import heartbeat as heartbeat
from taskq.worker import session
from taskq.worker.heartbeat import Observer
from tests.faults.ledger import Ledger, Line


def write(ledger: str, what: str) -> int:
    """Append a line about the current job; gives the number of its attempt."""
    job = current_job()
    Ledger(ledger).write(what, job.id, job.id, job.attempt)
    return job.attempt


def read(ledger: str) -> list[Line]:
    """The whole ledger so far."""
    return Ledger(ledger).read()


async def run(ledger: str, seconds: float) -> int:
    write(ledger, "start")
    await asyncio.sleep(seconds)
    return write(ledger, "end")


async def fail_once(ledger: str, seconds: float) -> int:
    attempt = write(ledger, "start")
    await asyncio.sleep(seconds)
    write(ledger, "end")
    if attempt == 1:
        raise ValueError("the first attempt fails")
    return attempt


def run_in_thread(ledger: str, seconds: float) -> int:
    write(ledger, "start")
    time.sleep(seconds)
    return write(ledger, "end")


async def block_the_loop(ledger: str, seconds: float) -> int:
    """Pure Python: the thread that beats gets its turns."""
    write(ledger, "start")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))
    return write(ledger, "end")


async def hold_the_gil(ledger: str, seconds: float) -> int:
    """C code that never lets another thread run: nothing in this process beats meanwhile."""
    write(ledger, "start")
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1_000_000)))
    return write(ledger, "end")


async def kill_the_worker(ledger: str) -> None:
    write(ledger, "start")
    os._exit(9)


async def crash_in_c(ledger: str) -> None:
    write(ledger, "start")
    ctypes.string_at(0)


def program(url: str, namespace: str) -> TaskQ:
    """The TaskQ with its tasks."""
    q = TaskQ(url, namespace=namespace)
    q.task(name="run", result_ttl=3600)(run)
    q.task(name="fail_once", retry=Retry(max_attempts=2, backoff=0.05))(fail_once)
    q.task(name="thread")(run_in_thread)
    q.task(name="block")(block_the_loop)
    q.task(name="gil")(hold_the_gil)
    q.task(name="kill")(kill_the_worker)
    q.task(name="segv")(crash_in_c)
    return q


async def work(queues: list[str]) -> None:
    lease, beat = os.environ.get("LEDGER_LEASE"), os.environ.get("LEDGER_BEAT")
    if lease:
        silent = min(2.0, float(lease) / 3)
        heartbeat.Observer = functools.partial(Observer, float(lease), silent_after=silent)
    if trusts := os.environ.get("LEDGER_TRUSTS") or lease:
        session.LEASE_SECONDS = float(trusts)
    if beat:
        heartbeat.HEARTBEAT_SECONDS = float(beat)
    q = program(os.environ["LEDGER_URL"], os.environ["LEDGER_NAMESPACE"])
    worker = q.worker(queues, concurrency=int(os.environ["LEDGER_CONCURRENCY"]))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run(lambda: print("ready", flush=True))


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(work(sys.argv[1:]))
