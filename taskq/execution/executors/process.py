"""Runs functions in processes of their own, so that a crash or kill ends only one job."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskq.core.errors import ConfigError
from taskq.execution.address import FunctionAddress, address_of, refuse_unguarded_main
from taskq.execution.executors.reports import ProcessDied, RemoteError
from taskq.execution.executors.spawned import SpawnedChild

__all__ = [
    "FunctionAddress",
    "ProcessDied",
    "ProcessExecutor",
    "RemoteError",
    "address_of",
    "current_directory",
]

# For exit handlers in idle children; no job depends on them.
_EXIT_SECONDS = 1.0


class ProcessExecutor:
    """Runs functions in spawned processes, at most `limit` at once, in order of arrival.

    Each job has a process to itself. Processes are spawned when needed, import a function when they
    first run it, and are kept for the next job; one that died or was killed is replaced by a new
    one. They die with the parent process, however it ends.

    `limit`: processes, by default one for each CPU. `start_timeout`: seconds that a process may
    take to start and to import a function. `directory`: where they start, by default the current
    directory at this moment. Raises `ConfigError` for a limit below 1, and where processes cannot
    be spawned.

    >>> executor = ProcessExecutor(limit=2)
    >>> payload = encode_call(("a.png",), {})
    >>> await executor.run(address_of(resize), payload, context=facts)
    """

    def __init__(
        self,
        limit: int | None = None,
        *,
        start_timeout: float = 60.0,
        directory: str | Path | None = None,
    ) -> None:
        limit = (os.cpu_count() or 1) if limit is None else limit
        if limit < 1:
            raise ConfigError(f"limit={limit} leaves no process to run a task: use 1 or more")
        _refuse_without_spawning()
        self._slots = asyncio.Semaphore(limit)
        self._start_timeout = start_timeout
        # The directory of this moment: a job may change it, and the next process imports from here.
        self._directory = directory or current_directory()
        self._children: set[SpawnedChild] = set()
        # The last one used is used next: its caches are warm, and others may be swapped out.
        self._idle: list[SpawnedChild] = []
        self._loading: set[asyncio.Task[SpawnedChild]] = set()
        self._running = 0
        self._closed = False

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return self._running

    async def run(
        self,
        address: FunctionAddress,
        payload: bytes,
        *,
        context: dict[str, Any],
        soft_timeout: float | None = None,
        on_message: Callable[[Any], None] | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> bytes:
        """Run the function at `address` with the call that `payload` encodes; returns its result.

        `context` is plain data for the child's `job_scope`. After `soft_timeout` seconds,
        `SoftTimeout` is raised in the function. `on_message` is called with each message that the
        job sends over its `ChildLink`. `on_start` is called when a process is free and has imported
        the function, just before the job begins, so that waiting and importing do not count against
        a timeout.

        Raises `RemoteError` with what the function raised, `ProcessDied` if its process ended
        first, `ConfigError` in a child that imports a main module without a guard, and
        `RuntimeError` once the executor is closed. If the awaiting task is cancelled, the process
        is killed and gone when `CancelledError` is raised. A process that is still importing the
        function is kept for the next job instead; otherwise a slow import would never succeed.
        """
        refuse_unguarded_main()
        child = await self._claim(address)
        self._running += 1
        try:
            if on_start is not None:
                on_start()
            reply = await child.call(address, payload, context, soft_timeout, on_message)
        except BaseException:
            await self._destroy(child)
            raise
        finally:
            self._running -= 1
        self._give_back(child)
        if "error" in reply:
            raise RemoteError.of(reply["error"])
        result: bytes = reply["ok"]
        return result

    async def aclose(self) -> None:
        """Stop all processes: idle ones exit, those that run a job are killed."""
        self._closed = True
        idle, self._idle = self._idle, []
        for child in self._children.difference(idle):
            child.kill("the worker's process executor was closed")
        if idle:
            await asyncio.gather(*(child.end(_EXIT_SECONDS) for child in idle))
        self._children.difference_update(idle)
        await asyncio.gather(*(child.gone() for child in self._children))
        if self._loading:
            await asyncio.wait(self._loading)

    async def _claim(self, address: FunctionAddress) -> SpawnedChild:
        """A child that has imported the function, and a slot; the caller releases both."""
        await self._slots.acquire()
        if self._closed:
            self._slots.release()
            raise RuntimeError("the process executor is closed and takes no more jobs")
        child = self._pick(address)
        if child is not None and child.knows(address):
            return child
        loading = asyncio.create_task(self._load(child, address))
        self._loading.add(loading)
        loading.add_done_callback(self._loading.discard)
        try:
            await asyncio.wait({loading})
        except asyncio.CancelledError:
            loading.add_done_callback(self._keep_unclaimed)
            raise
        return loading.result()

    def _pick(self, address: FunctionAddress) -> SpawnedChild | None:
        for child in [child for child in self._idle if not child.alive]:
            child.drop()
            self._idle.remove(child)
            self._children.discard(child)
        if not self._idle:
            return None
        chosen = next((child for child in reversed(self._idle) if child.knows(address)), None)
        child = chosen or self._idle[-1]
        self._idle.remove(child)
        return child

    async def _load(self, child: SpawnedChild | None, address: FunctionAddress) -> SpawnedChild:
        try:
            if child is None:
                child = await SpawnedChild.start(self._directory)
                self._children.add(child)
            if self._closed:
                child.kill("the worker's process executor was closed")
            async with asyncio.timeout(self._start_timeout):
                await child.load(address)
        except BaseException as error:
            await self._destroy(child)
            if isinstance(error, TimeoutError):
                raise ProcessDied(
                    f"a process did not import {address} within {self._start_timeout:g} s and was "
                    "killed: put what starts the program under `if __name__ == '__main__':`"
                ) from None
            raise
        return child

    def _keep_unclaimed(self, loading: asyncio.Task[SpawnedChild]) -> None:
        if not loading.cancelled() and loading.exception() is None:
            self._give_back(loading.result())

    def _give_back(self, child: SpawnedChild) -> None:
        if self._closed:
            child.kill()
        else:
            self._idle.append(child)
        self._slots.release()

    async def _destroy(self, child: SpawnedChild | None) -> None:
        try:
            if child is not None:
                await child.gone()
        finally:
            if child is not None:
                self._children.discard(child)
            self._slots.release()


def current_directory() -> str | None:
    """The current directory; None if it was deleted."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _refuse_without_spawning() -> None:
    if sys.platform == "win32":
        raise ConfigError("executor='process' needs a POSIX system: use executor='thread'")
    if not sys.executable or getattr(sys, "frozen", False):
        raise ConfigError(
            "executor='process' needs a Python interpreter to start, and this program has none "
            "(sys.executable): use executor='thread', or run a worker outside of it"
        )
