"""Functions that the tests of the executors run in child processes."""

from __future__ import annotations

import asyncio
import ctypes
import enum
import functools
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from taskq.core.errors import Reject, RetryLater, SoftTimeout
from taskq.core.job import Progress
from taskq.execution.context import current_job

# What a job in a child knows of itself.
FACTS: dict[str, Any] = {
    "id": "j1",
    "task_name": "sample",
    "number": 2,
    "fence": 2,
    "max_attempts": 4,
    "failures": 1,
    "queue": "images",
    "worker": "w1",
    "headers": None,
    "enqueued_ms": 0,
    "timeout": None,
}

flavour: ContextVar[str] = ContextVar("flavour", default="none")


class Shade(enum.Enum):
    DARK = "dark"


@dataclass
class Point:
    x: int
    y: int


class Gone(LookupError):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def add(a: int, b: int = 0) -> int:
    return a + b


async def add_slowly(a: int, b: int) -> int:
    await asyncio.sleep(0.01)
    return a + b


def describe(point: Point, shade: Shade) -> list[Any]:
    return [type(point).__name__, point.x + point.y, shade.name]


def pid() -> int:
    return os.getpid()


def session() -> int:
    return os.getsid(0)


def open_files() -> list[str]:
    found: list[str] = []
    for number in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the directory that was being listed
            continue
    return found


def standard_input() -> str:
    return sys.stdin.read()


def search_path() -> list[str]:
    return sys.path


def ambient() -> list[Any]:
    return [os.environ.get("SAMPLE"), os.getcwd(), __name__]


async def running_loop_identity() -> int:
    return id(asyncio.get_running_loop())


def set_flavour(value: str) -> str:
    before = flavour.get()
    flavour.set(value)
    return before


async def set_flavour_async(value: str) -> str:
    return set_flavour(value)


def fail(text: str) -> NoReturn:
    raise Gone(text)


async def fail_async(text: str) -> NoReturn:
    raise Gone(text)


def fail_mutely() -> NoReturn:
    raise Mute


def fail_badly_encoded() -> NoReturn:
    raise ValueError("half a \ud800 pair")


def fail_at_length() -> NoReturn:
    raise ValueError("x" * 1_000_000)


def raise_named(name: str) -> NoReturn:
    kinds: dict[str, BaseException] = {
        "SystemExit": SystemExit(3),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "CancelledError": asyncio.CancelledError("own"),
        "StopIteration": StopIteration(1),
        "GeneratorExit": GeneratorExit(),
        "ExceptionGroup": ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
        "RetryLater": RetryLater(30, "not yet"),
        "Reject": Reject("never"),
    }
    raise kinds[name]


async def raise_named_async(name: str) -> NoReturn:
    raise_named(name)


def unfit_result() -> Any:
    return {"sizes": [1, object()]}


def big_result(size: int) -> bytes:
    return b"x" * size


def segfault() -> None:
    ctypes.string_at(0)


def leave(code: int) -> None:
    os._exit(code)


def kill_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def close_everything() -> None:
    os.closerange(3, 256)


def babble() -> None:
    # What a library that writes to a wrong file descriptor would do.
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                os.write(number, b"\xff" * 64)
        except OSError:
            continue
    time.sleep(60)


def fork_and_die(note: str) -> None:
    forked = os.fork()
    if forked == 0:
        time.sleep(60)
        os._exit(0)
    Path(note).write_text(str(forked))
    os._exit(5)


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name")


class Anonymous(Exception, metaclass=Nameless):
    pass


def fail_anonymously() -> NoReturn:
    raise Anonymous("who")


async def end_the_loop(how: str) -> str:
    """What a job does that would end the program it runs in."""

    async def leave() -> NoReturn:
        raise SystemExit(3)

    if how == "stop":
        asyncio.get_running_loop().stop()
    else:
        leaving = asyncio.create_task(leave())
        await asyncio.wait({leaving})
    await asyncio.sleep(0)
    return "went on"


def fork(how: str) -> int:
    """Let a copy of this process go on with the function; gives the copy's exit code."""
    forked = os.fork()
    if forked == 0:
        if how == "exit":
            sys.exit(3)
        if how == "raise":
            raise LookupError("in the copy")
        report(["in the copy"])
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])


async def fork_in_loop(how: str) -> int:
    await asyncio.sleep(0)
    return fork(how)


def note_and_sleep(note: str) -> None:
    _note(note, os.getpid())
    time.sleep(60)


def note_and_compute(note: str) -> None:
    # Never lets go of the interpreter: no thread of this process could notice anything.
    _note(note, os.getpid())
    pow(3, 10**9)


def start_and_sleep(note: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as helper:
        _note(note, helper.pid)
        time.sleep(60)


def note_and_wait(note: str, until: str) -> str:
    _note(note, os.getpid())
    while not Path(until).exists():
        time.sleep(0.01)
    return "finished"


def _note(note: str, value: Any) -> None:
    part = Path(note).with_suffix(".part")
    part.write_text(json.dumps(value))
    part.rename(note)


# ---------------------------------------------------------------------------- soft time limits


def sleep_until_told() -> str:
    try:
        time.sleep(60)
    except SoftTimeout as told:
        return f"tidied up: {told}"
    return "slept"


def compute_until_told() -> str:
    number = 0
    try:
        while True:
            number += 1
    except SoftTimeout:
        return "tidied up"


def sleep_deaf() -> None:
    time.sleep(60)


def take_time(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


class Slow:
    def __del__(self) -> None:
        time.sleep(0.04)


def finalise_slowly() -> str:
    try:
        slow = Slow()
        del slow
        time.sleep(60)
    except SoftTimeout:
        return "tidied up"
    return "slept"


class AlarmJustBefore:
    """A file whose number is asked for in C, and costs a second in which the alarm rings.

    Between the ring and the wait of `select` no Python runs: nobody notices it.
    """

    def __init__(self) -> None:
        self.fileno = functools.partial(ctypes.CDLL(None).sleep, 1)


def wait_with_alarm_just_before() -> str:
    try:
        select.select([], [], [AlarmJustBefore()], 60)
    except SoftTimeout:
        return "tidied up"
    return "waited"


def time_on_the_alarm() -> float:
    return signal.getitimer(signal.ITIMER_REAL)[0]


def hear_alarms() -> None:
    signal.signal(signal.SIGALRM, lambda *_: heard.append("rang"))


def ring_the_alarm() -> list[str]:
    heard.clear()
    signal.raise_signal(signal.SIGALRM)
    return heard


def hear_alarms_no_more() -> str:
    return str(signal.signal(signal.SIGALRM, signal.SIG_DFL))


heard: list[str] = []


async def await_until_told() -> list[Any]:
    try:
        await asyncio.sleep(60)
    except SoftTimeout:
        # The function is whole again: it may await, and it is not being cancelled.
        await asyncio.sleep(0.01)
        task = asyncio.current_task()
        return ["tidied up", task.cancelling() if task else -1]
    return ["slept"]


async def await_deaf() -> None:
    await asyncio.sleep(60)


async def block_until_told() -> str:
    try:
        time.sleep(60)  # noqa: ASYNC251 - blocking the loop is the point
    except SoftTimeout:
        return "tidied up"
    return "slept"


async def await_in_part(done: list[str]) -> list[str]:
    async def part(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            done.append(name)

    try:
        async with asyncio.timeout(50):
            await asyncio.gather(part("a"), part("b"))
    except SoftTimeout:
        return done
    return ["slept"]


async def block_in_group() -> None:
    async with asyncio.TaskGroup():
        time.sleep(60)  # noqa: ASYNC251 - blocking the loop is the point


async def work_in_group() -> None:
    async def step() -> None:
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(step())
    await asyncio.gather(*(step() for _ in range(50)))


def report_until_told() -> str:
    # Alarms must not cut a message in two: the parent would lose its place in the stream.
    job: Any = current_job()._attempt  # pyright: ignore[reportPrivateUsage]
    try:
        while True:
            # Longer than `progress` lets it be: such a message leaves in several pieces.
            job.report(job, Progress(1, 2, "x" * 1_000_000))
    except SoftTimeout:
        return "tidied up"


# --------------------------------------------------------------------------------- progress


def report(texts: list[str]) -> dict[str, Any]:
    job = current_job()
    for number, text in enumerate(texts):
        job.progress(number, len(texts), text)
    return {"id": job.id, "fence": job.fence, "queue": job.queue}


async def report_async(texts: list[str]) -> dict[str, Any]:
    job = current_job()
    for number, text in enumerate(texts):
        await job.progress(number, len(texts), text)
    return {"id": job.id, "fence": job.fence, "queue": job.queue}


def report_unfit() -> None:
    current_job().progress(object())  # pyright: ignore[reportArgumentType]


def report_late(pause: float) -> None:
    """Leave a thread behind that reports when the job is over."""
    job = current_job()

    def wait_and_report() -> None:
        time.sleep(pause)
        job.progress(1, 1, "late")

    threading.Thread(target=wait_and_report, daemon=True).start()


async def leave_task() -> None:
    """Leave an asyncio task behind."""

    async def endless() -> None:
        await asyncio.sleep(60)

    _left.append(asyncio.create_task(endless()))


def left_tasks() -> list[bool]:
    return [task.cancelled() for task in _left]


_left: list[asyncio.Task[None]] = []


# ------------------------------------------------------------------------------- addresses


class Nested:
    @staticmethod
    def double(value: int) -> int:
        return value * 2


triple = SimpleNamespace(function=lambda value: value * 3)


def make_local() -> Any:
    def local() -> None: ...

    return local
