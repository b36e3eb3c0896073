"""A worker: wires its services together, starts them in order and drains them in reverse.

::

    Heartbeat (own thread) ── heartbeats ──> server    also reaps dead workers
      └ StallMonitor                                   hands back what a blocked loop cannot start
    Fetcher ──> InFlightJobs ──> Slots ──> run_attempt ──> Settler ──> server
                  ^── cancellations and wake-ups are pushed; Reconciler finds jobs of lost replies
    Promoter, Sweeper: run in one worker for all       Quarantine: suspects, in workers of their own
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.consumer import handed_over
from taskq.broker.leases import BeatReply
from taskq.core.liveness import SETTLE_SECONDS
from taskq.core.text import counted
from taskq.execution.attempt import Interruption
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.registry import Registry
from taskq.execution.resources import Resources
from taskq.redis.failpoints import ARMED
from taskq.worker.burst import until_empty, until_no_suspects
from taskq.worker.fetcher import Fetcher
from taskq.worker.heartbeat import Heartbeat
from taskq.worker.in_flight import InFlightJobs, Load
from taskq.worker.intake import Intake
from taskq.worker.promoter import Promoter, Sweeper
from taskq.worker.quarantine import Quarantine
from taskq.worker.recycling import Recycling
from taskq.worker.services import Reconciler, Services
from taskq.worker.session import Session
from taskq.worker.settings import Tally, WorkerSettings, describe
from taskq.worker.slots import Slots, StartClaims
from taskq.worker.stall_monitor import StallMonitor

__all__ = ["Worker"]

_log = logging.getLogger("taskq.worker")


class Worker:
    """Runs jobs of `registry`'s tasks until it is stopped.

    Use `async with worker: ...`, or `await worker.run()` until `worker.stop()`. A `companion` runs
    beside it: it starts last and stops first, before the worker waits for running jobs.
    `on_shutdown` is awaited after the jobs have ended and before their resources are closed.
    `command`, if known, starts a process with a worker like this one.
    """

    command: Sequence[str] | None = None

    def __init__(
        self,
        broker: BrokerSettings,
        registry: Registry,
        settings: WorkerSettings,
        resources: Resources,
        companion: AbstractAsyncContextManager[Any] | None = None,
        on_shutdown: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.tally = Tally()
        self.broker_settings = broker
        self.resources = resources
        self._companion = companion
        self._on_shutdown = on_shutdown
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._starting_over = False
        self._suspects_only = False

    def serve_suspects(self) -> None:
        """Run only suspects, jobs whose workers keep dying, until none waits; before the start."""
        self._suspects_only = True
        self._companion = None

    async def __aenter__(self) -> Worker:
        if not self.registry.names():
            _log.warning(
                "no tasks are registered, so every job would be handed back: import the modules "
                "that define them where the TaskQ is created"
            )
        await self.resources.open()
        self._build()
        try:
            await self._register()
            self._broker.client.on_reconnect(self.fetcher.wake.set)
        except BaseException:
            await self._broker.aclose()
            await self.resources.close()
            raise
        self._services.guard()
        self._services.start("fetcher", self.fetcher.run)
        self._services.start("promoter", self.promoter.run)
        self._services.start("sweeper", Sweeper(self._broker, self.promoter).run)
        self._services.start("recycling", self.recycling.run)
        self._heartbeat.start()
        if self._companion is not None:
            await self._companion.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._drain()
            if self._on_shutdown is not None:
                await self._on_shutdown()
        finally:
            await self.resources.close()

    async def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Work until `stop`, or with `burst` until nothing is due.

        `on_ready` is called once the worker is registered. Raises `ServerError` or
        `ConnectionLost` when it cannot register; after that it waits for its server.
        """
        async with self:
            if on_ready is not None:
                on_ready()
            done = asyncio.create_task(self._stop.wait())
            if self.settings.burst or self._suspects_only:
                empty = asyncio.create_task(
                    until_no_suspects(self.fetcher, self.in_flight)
                    if self._suspects_only
                    else until_empty(
                        self.promoter,
                        self.fetcher,
                        self.in_flight,
                        self._broker.leases,
                        self._quarantine,
                    )
                )
                await asyncio.wait({done, empty}, return_when=asyncio.FIRST_COMPLETED)
                if not empty.done():
                    empty.cancel()
                elif (error := empty.exception()) is not None:
                    raise error
            else:
                await done
            done.cancel()

    def stop(self) -> None:
        """Drain and stop; a second call stops at once."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    @property
    def name(self) -> str:
        """The name under which the worker is registered now."""
        return self._session.name

    def _build(self) -> None:
        settings = self.settings
        self._broker = Broker(self.broker_settings, name="taskq-worker")
        self._session = Session(self._broker, settings.name)
        self._executors = ExecutorSet(
            threads=settings.threads, processes=settings.processes, directory=settings.directory
        )
        intake = Intake(self.registry, self._session, self.tally, settings)
        claims = StartClaims()
        self.in_flight = InFlightJobs(
            self._session,
            Slots(self._session, intake, self._executors, self.tally, claims),
            self.tally,
            claims,
            concurrency=settings.concurrency,
            load=Load({"t": settings.threads, "p": settings.processes}),
        )
        self._services = Services(self.in_flight.slots.mass_cancelled)
        self.promoter = Promoter(self._broker)
        make = partial(_for_suspects, self)
        self._quarantine = Quarantine(self._broker, settings, self.command, make)
        self.fetcher = Fetcher(
            self._session,
            self.in_flight,
            self.tally,
            settings,
            self.registry.executors,
            None if self._suspects_only else self._quarantine.start,
        )
        self.recycling = Recycling(settings, self.tally, self._executors, self.stop)
        self._reconciler = Reconciler(self._broker, self._session, self.in_flight, self.tally)
        monitor = StallMonitor(self._session, settings.queues, claims, self.fetcher.wake.set)
        self._heartbeat = Heartbeat(
            self.broker_settings,
            self._session,
            self._describe,
            self._on_beat,
            monitor,
            self.tally,
            promotes=not self._suspects_only,
        )

    async def _register(self) -> None:
        client, keys = self._broker.client, self._broker.keys
        reply = await self._session.register(
            self._describe, self.settings, promotes=not self._suspects_only
        )
        self.promoter.choose(reply.promotes)
        await client.subscribe(keys.wake_channel + self._session.name, self._on_wake)

    def _on_wake(self, message: bytes) -> None:
        if message == b"work":
            self.fetcher.wake.set()
        elif message.startswith(b"job "):
            # As in `enqueue.lua`: a worker that held nothing and has another slot is still idle.
            idle = self.in_flight.known == 0 and self.settings.concurrency > 1
            self.in_flight.take((handed_over(message[4:]),))
            if not idle:
                self.fetcher.look_soon()
            if self.in_flight.room() <= 0:
                # The server still counts it as idle for other queues, but it is full.
                consumer, queues = self._session.consumer, self.settings.queues
                self._services.send(consumer.leave_idle(queues, fetches=True))
        elif message.startswith(b"cancel "):
            self.in_flight.cancel(message[7:].decode())

    def _on_beat(self, name: str, reply: BeatReply | None, sent: float) -> None:
        if name != self._session.name:
            return
        if reply is None:
            if not self._stop.is_set() and not self._starting_over:
                self._starting_over = True
                self._services.send(self._start_over())
            return
        self._session.renew(sent)
        self.promoter.choose(reply.promotes)
        for job_id in reply.cancels:
            self.in_flight.cancel(job_id)
        self.in_flight.fill()
        if not self.fetcher.fetching:
            self._services.send(self._reconciler.compare(reply.held))

    async def _start_over(self) -> None:
        """Go on under a new name: the server declared this worker dead and gave its jobs away."""
        old = self._session.name
        self._session.rename()
        _log.error(
            "this worker was declared dead (stopped for too long, or the server lost its data): "
            "%s interrupted; continuing as %s",
            counted(self.in_flight.running, "running job is", "running jobs are"),
            self._session.name,
        )
        self.in_flight.forget_all()
        try:
            with contextlib.suppress(ConnectionError):
                await self._broker.client.unsubscribe(self._broker.keys.wake_channel + old)
                await self._register()
        finally:
            # Until now the new name was unknown to the server too.
            self._starting_over = False

    async def _drain(self) -> None:
        if ARMED is not None:
            ARMED.reach("drain")
        self._stop.set()
        self.fetcher.stop()
        if self._companion is not None:
            await self._companion.__aexit__(None, None, None)
        quarantine = asyncio.create_task(self._quarantine.close(self.settings.grace))
        await self._services.leave("fetcher", within=5.0)
        self.in_flight.close()
        await self._session.consumer.leave_idle(self.settings.queues)
        left = await self._wait_for_jobs()
        await self.in_flight.settler.close(within=max(SETTLE_SECONDS, left))
        await quarantine
        self._services.cancel()
        await self._heartbeat.stop()
        with contextlib.suppress(ConnectionError):
            await self._broker.leases.reap(self._session.name, self._broker.reap_policy, died=False)
        await self._executors.aclose()
        await self._broker.aclose()

    async def _wait_for_jobs(self) -> float:
        """Let jobs finish within the grace period, then interrupt them and hand them back.

        Returns the seconds that are left of the grace period.
        """
        began = time.monotonic()
        idle = asyncio.create_task(self.in_flight.until_idle())
        force = asyncio.create_task(self._force.wait())
        await asyncio.wait(
            {idle, force}, timeout=self.settings.grace, return_when=asyncio.FIRST_COMPLETED
        )
        if not idle.done():
            late = counted(
                self.in_flight.running,
                "job did not end in time and is",
                "jobs did not end in time and are",
            )
            _log.warning("%s handed back", late)
            self.in_flight.slots.interrupt_all(Interruption.RELEASE)
            await asyncio.wait({idle}, timeout=1.0)
            self.in_flight.slots.abandon_all()
        idle.cancel()
        forced = force.done()
        force.cancel()
        return 0.0 if forced else self.settings.grace - (time.monotonic() - began)

    def _describe(self) -> bytes:
        return describe(
            self.settings,
            queues=() if self._suspects_only else self.settings.queues,
            running=self.in_flight.running,
            finished=self.tally.finished,
            born=self.recycling.born,
            memory=self.recycling.memory(),
            stopping=self._stop.is_set(),
        )


def _for_suspects(worker: Worker) -> Worker:
    """A worker in the same process that serves suspects."""
    settings = replace(worker.settings, name=None, max_jobs=None, max_memory=None)
    other = Worker(worker.broker_settings, worker.registry, settings, worker.resources)
    other.serve_suspects()
    return other
