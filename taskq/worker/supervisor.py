"""Supervisor: keeps worker processes running, and reports a dead one to the server at once.

It runs no jobs. Each of its slots holds one process. When that ends::

    asked to stop ................ no new process
    burst, and nothing is due .... no new process
    recycled, reloaded, drained .. a new process at once
    died while it worked ......... its jobs go to others; a new process after a pause
    failed to start .............. a new process after a pause, a few times; then all are stopped
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskq.broker.broker import Broker, BrokerSettings
from taskq.core.ids import new_id
from taskq.core.liveness import KILL_MARGIN_SECONDS, REAP_SECONDS, RELOAD_GRACE_SECONDS
from taskq.execution.executors.frames import how_it_ended
from taskq.worker.worker_process import CLEAN_EXITS, RECYCLED, WorkerProcess

__all__ = ["Supervisor", "SupervisorSettings"]

_log = logging.getLogger("taskq.supervisor")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
SETTLED_SECONDS = 10.0
"""After a process has lived this long, the pauses start over."""

MOST_FAILED_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """What a supervisor keeps running.

    `command`: starts one worker, which finds its name in the environment (see `SupervisorLink`).
    `directory`: its working directory. `workers`: how many to run. `name`: the prefix of their
    names. `grace`: seconds that running jobs get when they stop. `burst`: do not replace a worker
    that ended by itself. `reloads`: `reload` will be called, so a worker that cannot start waits
    for the next change.
    """

    command: Sequence[str]
    workers: int
    name: str
    directory: Path = field(default_factory=Path.cwd)
    grace: float = 30.0
    burst: bool = False
    reloads: bool = False


@dataclass(slots=True, eq=False)
class _Slot:
    number: int
    process: WorkerProcess | None = None
    pause: float = FIRST_PAUSE
    failed_starts: int = 0
    reloading: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Keeps the workers of `settings` running until it is stopped.

    >>> supervisor = Supervisor(broker_settings, settings)
    >>> clean = await supervisor.run()
    """

    def __init__(self, broker: BrokerSettings, settings: SupervisorSettings) -> None:
        self._broker_settings = broker
        self._settings = settings
        self._slots = [_Slot(number) for number in range(1, settings.workers + 1)]
        self._broker: Broker | None = None
        self._reaping: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        self._clean = True

    async def run(self) -> bool:
        """Run until every worker has ended for good; whether all of them stopped cleanly."""
        ended = asyncio.gather(*(self._keep(slot) for slot in self._slots))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await self._await_or_kill(ended)
            await ended
            if self._reaping:
                await asyncio.wait(self._reaping)
        finally:
            stopping.cancel()
            # Anything is left only if this call was cancelled.
            ended.cancel()
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
            if self._broker is not None:
                await self._broker.aclose()
        return self._clean

    def stop(self) -> None:
        """Let the workers finish their running jobs and stop; a second call stops them at once."""
        if self._stopping.is_set():
            self._forced.set()
        else:
            _log.info("stopping the workers")
        self._stopping.set()
        for slot in self._slots:
            slot.wake.set()
            if slot.process is not None and self._forced.is_set():
                slot.process.end_now()
            elif slot.process is not None:
                slot.process.drain()

    def reload(self) -> None:
        """Replace every worker by a new one; jobs that run for more than 5 s are handed back."""
        grace = min(RELOAD_GRACE_SECONDS, self._settings.grace)
        for slot in self._slots:
            slot.wake.set()
            slot.reloading = True
            if slot.process is not None:
                slot.process.drain()
                asyncio.get_running_loop().call_later(
                    grace, self._end_if_running, slot, slot.process
                )

    def _end_if_running(self, slot: _Slot, process: WorkerProcess) -> None:
        if slot.process is process:
            process.end_now()

    async def _keep(self, slot: _Slot) -> None:
        """Keep one process running in a slot: start another whenever one ends."""
        while not self._stopping.is_set():
            slot.wake.clear()
            slot.reloading = False
            try:
                process = slot.process = await WorkerProcess.start(
                    self._settings.command, self._new_name(slot), self._settings.directory
                )
            except OSError as error:
                _log.error("cannot start worker %d: %s", slot.number, error)
                await self._pause(slot)
                continue
            _log.debug("worker %d is %s, pid %d", slot.number, process.name, process.pid)
            if self._stopping.is_set():
                process.drain()
            code, age = await process.wait()
            slot.process = None
            if not await self._restarts(slot, process, code, age):
                return

    async def _restarts(self, slot: _Slot, process: WorkerProcess, code: int, age: float) -> bool:
        """Whether to start another process in the slot; waits before it if necessary."""
        if code not in (0, RECYCLED):
            self._report(slot, process, code)
        if self._stopping.is_set():
            self._clean = self._clean and (code in CLEAN_EXITS or not process.served)
            return False
        if slot.reloading:
            return True
        if process.served and code in (0, RECYCLED):
            slot.failed_starts, slot.pause = 0, FIRST_PAUSE
            return code == RECYCLED or not self._settings.burst
        if age >= SETTLED_SECONDS:
            slot.pause = FIRST_PAUSE
        slot.failed_starts = 0 if process.served else slot.failed_starts + 1
        if slot.failed_starts and self._settings.reloads:
            _log.error("worker %d could not start; waiting for a change", slot.number)
            await slot.wake.wait()
        elif slot.failed_starts >= MOST_FAILED_STARTS:
            return self._give_up(slot, code)
        else:
            await self._pause(slot)
        return not self._stopping.is_set()

    async def _pause(self, slot: _Slot) -> None:
        pause, slot.pause = slot.pause, min(LONGEST_PAUSE, slot.pause * 2)
        try:
            async with asyncio.timeout(pause):
                await slot.wake.wait()
        except TimeoutError:
            return

    def _give_up(self, slot: _Slot, code: int) -> bool:
        _log.critical(
            "giving up: worker %d failed to start %d times in a row and %s; see the errors above",
            slot.number,
            slot.failed_starts,
            how_it_ended(code),
        )
        self._clean = False
        self.stop()
        return False

    def _report(self, slot: _Slot, process: WorkerProcess, code: int) -> None:
        """Log that a process died, and report it to the server."""
        asked = process.killed or ((self._stopping.is_set() or slot.reloading) and code < 0)
        level = logging.INFO if asked else logging.ERROR
        _log.log(level, "worker %d (pid %d) %s", slot.number, process.pid, how_it_ended(code))
        if process.served:
            task = asyncio.create_task(self._reap(process))
            self._reaping.add(task)
            task.add_done_callback(self._reaping.discard)

    async def _reap(self, process: WorkerProcess) -> None:
        """Reap a dead process now, before its missing heartbeats are noticed."""
        broker = self._broker = self._broker or Broker(
            self._broker_settings, name="taskq-supervisor"
        )
        try:
            async with asyncio.timeout(REAP_SECONDS):
                reaped = await broker.leases.reap(
                    process.name, broker.reap_policy, died=not process.killed
                )
        except (ConnectionError, TimeoutError) as error:
            _log.warning(
                "cannot give the jobs of %s to others now: %s; they will run some seconds later",
                process.name,
                error or "the server does not answer",
            )
            return
        if reaped is not None and (reaped.moved or reaped.poisoned):
            _log.warning(
                "%d of its jobs go to others, %d have killed too many workers",
                reaped.moved,
                reaped.poisoned,
            )

    async def _await_or_kill(self, ended: asyncio.Future[list[None]]) -> None:
        """Wait for the workers for the grace period and some seconds, then kill the rest."""
        forced = asyncio.create_task(self._forced.wait())
        await asyncio.wait(
            {ended, forced},
            timeout=self._settings.grace + KILL_MARGIN_SECONDS,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self._forced.is_set():
            await asyncio.wait({ended}, timeout=KILL_MARGIN_SECONDS)
        forced.cancel()
        for slot in self._slots:
            if slot.process is not None:
                _log.error("worker %d did not stop; killing it", slot.number)
                slot.process.kill()

    def _new_name(self, slot: _Slot) -> str:
        """A unique name: jobs of a dead process must not seem to be those of its successor."""
        return f"{self._settings.name}-{slot.number}-{new_id()[-8:]}"
