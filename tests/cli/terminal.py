"""A folder with an application in it, and the `taskq` commands typed there."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import eventually_sync

__all__ = ["Command", "Terminal", "children_of"]

APP = '''
import asyncio, logging, os, threading, time
from pathlib import Path
from taskq import TaskQ, current_job

q = TaskQ(namespace="{namespace}")

@q.task
async def add(a: int, b: int) -> int:
    return a + b

@q.task(executor="process")
def shout(text: str) -> None:
    logging.getLogger("app").info(text)

@q.task
async def pid() -> int:
    return os.getpid()

@q.task
async def sleepy(seconds: float) -> str:
    Path("asleep").touch()
    await asyncio.sleep(seconds)
    return "slept"

@q.task
async def hangs_at_first() -> tuple[int, int]:
    """Never ends at its first attempt."""
    if current_job().attempt == 1:
        await asyncio.sleep(600)
    return current_job().attempt, os.getpid()

@q.task
async def kills() -> None:
    """Brings down the process in which it runs."""
    await asyncio.sleep(0.05)
    os.kill(os.getpid(), 9)

@q.task(queue="other")
async def elsewhere() -> str:
    return "other"

@q.task
async def blocks(seconds: float) -> None:
    time.sleep(seconds)

@q.task(timeout=0.1)
def overstays(seconds: float) -> None:
    time.sleep(seconds)

@q.task
async def leaves_a_thread(seconds: float) -> None:
    threading.Thread(target=time.sleep, args=(seconds,)).start()

@q.task
async def leaves_a_coroutine() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                continue
    asyncio.create_task(stubborn())
    await asyncio.sleep(0)

async def leave(error: BaseException) -> None:
    raise error

@q.task
async def exits_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave(SystemExit(3)))

@q.task
async def exits_in_a_gather() -> None:
    await asyncio.gather(leave(KeyboardInterrupt()), asyncio.sleep(600))

@q.task
async def exits_in_a_callback() -> str:
    asyncio.get_running_loop().call_soon(os.sys.exit, 4)
    await asyncio.sleep(0.01)
    return "went on"

@q.task
async def stops_the_loop() -> str:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)
    return "went on"

@q.task
async def cancels_everything() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)
'''


def children_of(pid: int) -> set[int]:
    """Pids of a process's children."""
    found: set[int] = set()
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found.update(int(child) for child in (thread / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return found
    return found


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Command:
    """A running `taskq` command; what it writes to stderr can be read while it runs."""

    def __init__(
        self,
        words: list[str],
        folder: Path,
        environment: dict[str, str],
        tty: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self._errors = folder / f"stderr-{os.urandom(4).hex()}"

        def prepare() -> None:
            if tty is not None:
                fcntl.ioctl(tty, termios.TIOCSCTTY, 0)
            if before is not None:
                before()

        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "taskq", *words],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors if tty is None else tty,
                start_new_session=True,
                pass_fds=() if tty is None else (tty,),
                preexec_fn=prepare,
            )
        self._family: set[int] = set()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def errors(self) -> str:
        """What it has written to stderr so far."""
        return self._errors.read_text()

    @property
    def children(self) -> set[int]:
        """Pids of its worker processes."""
        found = children_of(self.pid)
        self._family |= found
        return found

    def until_written(self, pattern: str, *, times: int = 1, within: float = 20.0) -> None:
        """Wait until stderr matches `pattern` so often; fail with what it says otherwise."""

        def written() -> bool:
            ended = self.process.poll() is not None
            if len(re.findall(pattern, self.errors)) >= times:
                return True
            assert not ended, f"ended with {self.process.returncode}:\n{self.errors}"
            return False

        try:
            eventually_sync(written, within=within)
        except AssertionError as error:
            raise AssertionError(f"{pattern!r} {error}:\n{self.errors}") from None

    def until_ready(self, workers: int = 1) -> Command:
        """Wait until so many workers serve."""
        self.until_written("is ready", times=workers)
        _ = self.children
        return self

    def signal(self, which: signal.Signals) -> None:
        """Send a signal, and wait until it has arrived: the next would come at the same time."""
        self.process.send_signal(which)
        eventually_sync(lambda: not self._has_pending_signals())

    def _has_pending_signals(self) -> bool:
        if not is_running(self.pid):
            return False
        status = Path(f"/proc/{self.pid}/status").read_text()
        return any(int(mask, 16) for mask in re.findall(r"(?:Sig|Shd)Pnd:\s*(\w+)", status))

    def ended(self, within: float = 15.0) -> int:
        """Wait for the end, and give the exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {within} s:\n{self.errors}") from None

    def close(self) -> None:
        """End it and its children, whatever they do."""
        for pid in {self.pid} | self._family | self.children:
            if pid == self.pid and self.process.poll() is not None:
                continue
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(10)
        eventually_sync(lambda: not any(is_running(pid) for pid in self._family))


class Terminal:
    """A folder with `app.py` in it, in which commands are typed."""

    def __init__(self, folder: Path, url: str, namespace: str) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")
        } | {"TASKQ_URL": url, "COLUMNS": "100", "NO_COLOR": "1"}
        self._commands: list[Command] = []
        (folder / "app.py").write_text(APP.format(namespace=namespace))

    def type(
        self,
        *words: str,
        tty: int | None = None,
        before: Callable[[], None] | None = None,
        **environment: str,
    ) -> Command:
        """Start `taskq WORDS`, on a terminal that it is the leader of, or after `before`."""
        variables = self.environment | environment
        command = Command(list(words), self.folder, variables, tty, before)
        self._commands.append(command)
        return command

    def output(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `taskq WORDS` to its end."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "taskq", *words],
            cwd=self.folder,
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def asleep(self) -> bool:
        """Whether a job of `sleepy` has begun."""
        return (self.folder / "asleep").exists()

    def close(self) -> None:
        for command in self._commands:
            command.close()
