"""Heartbeat: tells the server once a second that the worker is alive.

It has its own thread and connection, so a job that blocks the event loop does not cost the worker
its lease. Each reply lists workers that were silent lately: `Observer` decides which of them are
dead, and the same thread reaps their jobs. Every worker does this; there is no leader.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.leases import BeatReply, SilentWorker
from taskq.core.clock import monotonic
from taskq.core.errors import ServerError
from taskq.core.liveness import (
    FRESH_SECONDS,
    HEARTBEAT_CONNECT_SECONDS,
    HEARTBEAT_REPLY_SECONDS,
    HEARTBEAT_RETRY_SECONDS,
    HEARTBEAT_SECONDS,
    LEASE_SECONDS,
    SILENT_SECONDS,
)
from taskq.core.rng import RNG
from taskq.redis.connection import ConnectionLost
from taskq.worker.session import Session
from taskq.worker.settings import Tally
from taskq.worker.stall_monitor import StallMonitor

__all__ = ["Heartbeat", "Observer"]


class _Landed(NamedTuple):
    number: int
    answered: float


class Observer:
    """Decides which workers are dead from the order of heartbeats and this process's clock alone.

    The server numbers all heartbeats. A worker whose last heartbeat has a lower number than one of
    ours has sent none since ours was answered. It is dead if that answer came `dead_after` seconds
    before we asked again, and our own heartbeats arrived throughout: when the server pauses or the
    network breaks, no heartbeat arrives and the count starts over. Wall clocks, key expiry and idle
    times play no part. A worker without a heartbeat for `silent_after` seconds is silent.
    """

    def __init__(
        self, dead_after: float = LEASE_SECONDS, *, silent_after: float = SILENT_SECONDS
    ) -> None:
        self._dead_after = dead_after
        self._silent_after = silent_after
        self._landed: deque[_Landed] = deque()

    def since(self, now: float) -> int:
        """The heartbeat to send at `now`: workers without a later one are silent. 0: none are."""
        return self._before(now - self._silent_after)

    def landed(self, number: int, sent: float, answered: float) -> None:
        """Note that our heartbeat, sent at `sent`, was answered at `answered` (monotonic)."""
        last = self._landed[-1] if self._landed else None
        # The server lost its last writes, so it reuses earlier numbers.
        went_back = last is not None and number <= last.number
        if last is not None and (went_back or answered - last.answered > FRESH_SECONDS):
            self._landed.clear()
        self._landed.append(_Landed(number, answered))
        while len(self._landed) > 1 and self._landed[1].answered <= sent - self._dead_after:
            self._landed.popleft()

    def dead(self, silent: Iterable[SilentWorker], sent: float) -> list[SilentWorker]:
        """The dead among `silent`, which came with the answer to the heartbeat sent at `sent`."""
        limit = self._before(sent - self._dead_after)
        return [worker for worker in silent if worker.heartbeat < limit or worker.heartbeat < 0]

    def next_death(self, silent: Iterable[SilentWorker]) -> float:
        """When the first of these will be dead, unless it is heard; infinity if there are none."""
        return min((self._heard_before(worker) for worker in silent), default=float("inf"))

    def forget(self) -> None:
        """Start over: this worker has a new name."""
        self._landed.clear()

    def _before(self, then: float) -> int:
        """The last heartbeat that was answered before `then`."""
        numbers = [beat.number for beat in self._landed if beat.answered <= then]
        return numbers[-1] if numbers else 0

    def _heard_before(self, worker: SilentWorker) -> float:
        for beat in self._landed:
            if beat.number > worker.heartbeat:
                return beat.answered + self._dead_after
        return float("inf")


_log = logging.getLogger("taskq.worker")

_MIN_PAUSE_SECONDS = 0.05
"""The shortest pause between two heartbeats, when another worker may be about to die."""


class Heartbeat:
    """Sends the heartbeats of the worker of `session`, with the description by `describe()`.

    `on_reply` is called in the worker's loop with the worker's name, the reply (None: declared
    dead) and the time at which the heartbeat was sent. `monitor` runs in the same thread.
    `promotes`: whether this worker may be the one that promotes due jobs.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        session: Session,
        describe: Callable[[], bytes],
        on_reply: Callable[[str, BeatReply | None, float], None],
        monitor: StallMonitor,
        tally: Tally,
        *,
        promotes: bool,
    ) -> None:
        self._settings = settings
        self._session = session
        self._describe = describe
        self._on_reply = on_reply
        self._monitor = monitor
        self._tally = tally
        self._promotes = promotes
        self._observer = Observer()
        self._observed = ""
        self._own: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.Event | None = None
        self._reaping: dict[str, asyncio.Task[None]] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._run_thread, name="taskq-heart", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Stop the thread; the worker's last heartbeat stays at the server."""
        self._ended = True
        if self._own is not None and self._next is not None and self._thread.is_alive():
            self._own.call_soon_threadsafe(self._next.set)
        await asyncio.to_thread(self._thread.join, 2.0)

    def _run_thread(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._own = asyncio.get_running_loop()
        self._next = asyncio.Event()
        broker = Broker(
            self._settings,
            name="taskq-heart",
            connect_timeout=HEARTBEAT_CONNECT_SECONDS,
            reply_timeout=HEARTBEAT_REPLY_SECONDS,
        )
        monitoring = asyncio.create_task(self._monitor.run(broker, self._next.set))
        retry = HEARTBEAT_RETRY_SECONDS
        try:
            while not (self._ended or self._monitor.abandoned):
                self._next.clear()
                pause = await self._beat(broker)
                if pause is None:
                    pause = RNG.uniform(retry / 2, retry)
                    retry = min(HEARTBEAT_SECONDS, retry * 2)
                else:
                    retry = HEARTBEAT_RETRY_SECONDS
                await _either(self._next, pause)
        finally:
            for task in (monitoring, *self._reaping.values()):
                task.cancel()
            await broker.aclose()

    async def _beat(self, broker: Broker) -> float | None:
        """Send a heartbeat and act on its reply; seconds until the next one, None if it failed."""
        name, sent = self._session.name, monotonic()
        if name != self._observed:
            # Numbers seen under another name are not this worker's.
            self._observed, self._observer = name, Observer()
        since = self._observer.since(sent)
        promotes = self._promotes and not self._monitor.stalled
        try:
            # Connecting and waiting for a reply have timeouts of their own; finding the server has
            # none.
            async with asyncio.timeout(HEARTBEAT_CONNECT_SECONDS + 2 * HEARTBEAT_REPLY_SECONDS):
                reply = await broker.leases.beat(
                    name, self._describe(), since=since, promotes=promotes
                )
        except (ServerError, ConnectionLost, TimeoutError):
            # The fetcher logs what is wrong with the server.
            return None
        except Exception:
            # Without heartbeats the worker would be declared dead while it works.
            _log.exception("a heartbeat failed, which is an error in taskq; the next one follows")
            return None
        self._monitor.call(self._on_reply, name, reply, sent)
        return HEARTBEAT_SECONDS if reply is None else self._observe(broker, reply, sent)

    def _observe(self, broker: Broker, reply: BeatReply, sent: float) -> float:
        observer = self._observer
        observer.landed(reply.heartbeat, sent, monotonic())
        dead = observer.dead(reply.silent, sent)
        for worker in dead:
            if worker.worker not in self._reaping:
                task = asyncio.create_task(self._reap(broker, worker))
                self._reaping[worker.worker] = task
                task.add_done_callback(lambda _, name=worker.worker: self._reaping.pop(name))
        # Send the next heartbeat as soon as another worker may be dead.
        dying = [worker for worker in reply.silent if worker not in dead]
        soonest = observer.next_death(dying) - monotonic()
        return min(HEARTBEAT_SECONDS, max(_MIN_PAUSE_SECONDS, soonest))

    async def _reap(self, broker: Broker, dead: SilentWorker) -> None:
        try:
            reaped = await broker.leases.reap(
                dead.worker, broker.reap_policy, heartbeat=dead.heartbeat
            )
        except (ServerError, ConnectionLost):
            # The next reply lists it again.
            return
        if reaped is None:
            return
        self._tally.reaped += reaped.moved
        _log.warning(
            "worker %s is dead: %d of its jobs go to others, %d have killed too many workers",
            dead.worker,
            reaped.moved,
            reaped.poisoned,
        )


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
