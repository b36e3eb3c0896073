"""A program that only fires schedules: `python -m tests.faults.schedule_app`.

Its schedule makes a job for each fifth of a second, none of them left out, so that whoever looks at
the lane afterwards sees each that is missing and each that is there twice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from taskq import TaskQ, every
from taskq.schedules import election

PERIOD_MS = 200
LANE = "default/5"


def program(url: str, namespace: str) -> TaskQ:
    """The TaskQ with its schedule."""
    q = TaskQ(url, namespace=namespace)

    @q.schedule(
        every(seconds=PERIOD_MS / 1000), id="s", coalesce="all", misfire=None, overlap="allow",
        max_catchup=1000,
    )  # fmt: skip
    @q.task(name="never.run")
    async def never_run() -> None: ...

    return q


async def fire() -> None:
    lease = os.environ.get("SCHEDULE_LEASE")
    if lease:
        election.LEADER_LEASE_SECONDS = float(lease)
    q = program(os.environ["SCHEDULE_URL"], os.environ["SCHEDULE_NAMESPACE"])
    async with q.scheduler() as scheduler:
        print(scheduler.name, flush=True)
        while scheduler.term is None:
            await asyncio.sleep(0.01)
        print("leads", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    # Whoever runs the tests in the background of a shell lets us inherit that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    asyncio.run(fire())
