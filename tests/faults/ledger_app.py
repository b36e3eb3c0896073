"""A program with a ledger: its tasks write down when they start and end, wherever they run.

Run as a module it is a worker: `python -m tests.faults.ledger_app QUEUE... `, and what it needs to
know is in its environment. It ends when it is killed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
import time
from typing import NamedTuple

from taskq import TaskQ, current_job
from taskq.worker import reaper
from taskq.worker.observer import Observer


class Line(NamedTuple):
    """One line of the ledger."""

    what: str
    job: str
    attempt: int
    pid: int
    at: float


def write(ledger: str, what: str) -> None:
    """Append a line; O_APPEND makes it whole, whoever else writes and whatever ends this."""
    job = current_job()
    line = f"{what} {job.id} {job.attempt} {os.getpid()} {time.time()}\n"
    fd = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def read(ledger: str) -> list[Line]:
    """The whole ledger so far."""
    with open(ledger) as file:
        words = [line.split() for line in file.read().splitlines()]
    return [Line(what, job, int(n), int(pid), float(at)) for what, job, n, pid, at in words]


async def run(ledger: str, seconds: float) -> int:
    write(ledger, "start")
    await asyncio.sleep(seconds)
    write(ledger, "end")
    return current_job().attempt


async def kill_the_worker(ledger: str) -> None:
    write(ledger, "start")
    os._exit(9)


def program(url: str, namespace: str) -> TaskQ:
    """The TaskQ with its tasks."""
    q = TaskQ(url, namespace=namespace)
    q.task(name="run")(run)
    q.task(name="kill")(kill_the_worker)
    return q


async def work(queues: list[str]) -> None:
    lease = os.environ.get("LEDGER_LEASE")
    if lease:
        reaper.Observer = functools.partial(Observer, dead_after=float(lease))
    q = program(os.environ["LEDGER_URL"], os.environ["LEDGER_NAMESPACE"])
    await q.worker(queues, concurrency=int(os.environ["LEDGER_CONCURRENCY"])).run(
        lambda: print("ready", flush=True)
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    asyncio.run(work(sys.argv[1:]))
