"""Tasks for processes of their own, which import them: functions at the top of a module.

`register` makes tasks of them for the TaskQ of one test.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from taskq import Reject, RetryLater, Secret, SoftTimeout, TaskQ, current_job

# Never connected: it shows that a decorated function is found in its process as well.
decorating = TaskQ("redis://localhost")


def wait_for(path: str) -> None:
    """Until somebody makes the file."""
    while not os.path.exists(path):
        time.sleep(0.005)


def pid() -> int:
    return os.getpid()


@decorating.task(executor="process")
def decorated_pid() -> int:
    return os.getpid()


async def pid_in_loop() -> int:
    await asyncio.sleep(0)
    return os.getpid()


def facts() -> dict[str, Any]:
    return facts_of_current_job()


def facts_of_current_job() -> dict[str, Any]:
    """All that a running job can know of itself, as plain data."""
    job = current_job()
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "worker": job.worker,
        "headers": job.headers,
        "attempt": job.attempt,
        "fence": job.fence,
        "max_attempts": job.max_attempts,
        "failures": job.failures,
        "enqueued_at": job.enqueued_at,
        "deadline": job.deadline,
    }


def report(until: str) -> str:
    current_job().progress(3, 10, "cutting")
    wait_for(until)
    return "done"


def hang(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    time.sleep(60)


def save_when_time_is_up(started: str) -> str:
    Path(started).touch()
    try:
        time.sleep(60)
    except SoftTimeout:
        return "saved"
    return "finished"


def ignore_the_soft_limit() -> None:
    try:
        time.sleep(60)
    except SoftTimeout:
        time.sleep(60)


def run_into_the_soft_limit() -> str:
    if current_job().attempt == 1:
        time.sleep(60)
    return f"attempt {current_job().attempt}"


def raise_named(name: str) -> NoReturn:
    kinds: dict[str, BaseException] = {
        "ValueError": ValueError("no number"),
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "RetryLater": RetryLater(60, "not yet"),
        "Reject": Reject("never"),
    }
    raise kinds[name]


def fail_once(error: str) -> int:
    if current_job().attempt == 1:
        raise_named(error)
    return current_job().attempt


def die(how: str) -> None:
    if how == "exit":
        os._exit(7)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def unfit() -> Any:
    return {"sizes": [1, object()]}


def tell(secret: Secret[str]) -> None:
    raise ValueError(secret.reveal())


def printing(text: str) -> None:
    print(text, file=sys.stderr)


def log(level: int, text: str) -> None:
    logging.getLogger("shop").log(
        level, "cutting %s", text, extra={"size": 3, "of": {"a": object()}}
    )
    if level >= logging.ERROR:
        try:
            raise KeyError(text)
        except KeyError:
            logging.getLogger("shop").exception("lost")


def log_for_long() -> int:
    """Log until the soft limit passes, and give the number of lines."""
    count = 0
    try:
        while True:
            logging.getLogger("shop").warning("line %d", count)
            count += 1
    except SoftTimeout:
        return count


def log_later() -> None:
    """Leave a thread behind that logs when the job is over."""
    threading.Timer(0.2, logging.getLogger("shop").warning, ("from nowhere",)).start()


def register(q: TaskQ, **options: Any) -> SimpleNamespace:
    """Tasks of `q` by the names of their functions, each with a process of its own."""
    functions = (
        pid,
        pid_in_loop,
        facts,
        report,
        hang,
        save_when_time_is_up,
        ignore_the_soft_limit,
        run_into_the_soft_limit,
        raise_named,
        fail_once,
        die,
        unfit,
        printing,
        log,
        log_for_long,
        log_later,
    )
    made = {
        function.__name__: q.task(name=function.__name__, executor="process", **options)(function)
        for function in functions
    }
    return SimpleNamespace(**made)
