"""The program whose jobs the chaos hits: coroutines, threads and processes, of every fate.

What a job does is in its arguments, so that every worker does the same: it notes its start, takes
`seconds`, and ends as its `fate` says:

======== ==========================================================================
ok       gives the number of its attempt
retry    fails in its first attempt, and is tried again by its policy
later    asks in its first attempt to be run again a moment later
fail     fails in every attempt it has
======== ==========================================================================
"""

from __future__ import annotations

import asyncio
import os
import time

from taskq import Retry, RetryLater, TaskQ, current_job
from tests.faults.ledger import Ledger

__all__ = ["FATES", "QUEUES", "Boom", "in_loop", "in_process", "in_thread", "q"]

QUEUES = ("default", "other")
FATES = ("ok", "retry", "later", "fail")

q = TaskQ(
    os.environ.get("CHAOS_URL", "unix:///nowhere"),
    namespace=os.environ.get("CHAOS_NAMESPACE", "chaos"),
    enqueue_deadline=30.0,
)

_RETRY = Retry(max_attempts=2, backoff=0.2, jitter=True)
_DAY = 86_400.0


class Boom(Exception):
    """What jobs fail with that are to fail."""


def _note(what: str, token: str) -> int:
    job = current_job()
    Ledger(os.environ["CHAOS_LEDGER"]).write(what, token, job.id, job.attempt)
    return job.attempt


def _end(token: str, fate: str) -> int:
    attempt = _note("end", token)
    if fate == "fail" or (fate == "retry" and attempt == 1):
        raise Boom(token)
    if fate == "later" and attempt == 1:
        raise RetryLater(0.2)
    return attempt


@q.task(name="loop", retry=_RETRY, result_ttl=_DAY)
async def in_loop(token: str, seconds: float, fate: str, _ballast: str = "") -> int:
    _note("start", token)
    await asyncio.sleep(seconds)
    return _end(token, fate)


@q.task(name="thread", retry=_RETRY, result_ttl=_DAY)
def in_thread(token: str, seconds: float, fate: str, _ballast: str = "") -> int:
    _note("start", token)
    time.sleep(seconds)
    return _end(token, fate)


@q.task(name="process", executor="process", retry=_RETRY, result_ttl=_DAY)
def in_process(token: str, seconds: float, fate: str, _ballast: str = "") -> int:
    _note("start", token)
    time.sleep(seconds)
    return _end(token, fate)
