"""Heart: says once a second that the worker lives, from its own thread and its own connection.

So a job that blocks the event loop does not cost the worker its lease. The same thread notices when
the loop stands still, and names the job and the line that hold it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.connection import ConnectionLost
from taskq.broker.leases import BeatReply
from taskq.core.chance import CHANCE
from taskq.core.errors import ServerError
from taskq.core.liveness import (
    HEARTBEAT_CONNECT_SECONDS,
    HEARTBEAT_REPLY_SECONDS,
    HEARTBEAT_RETRY_SECONDS,
    HEARTBEAT_SECONDS,
    LOOP_CHECK_SECONDS,
    LOOP_STALL_SECONDS,
)
from taskq.core.passing import seconds_passed
from taskq.execution.stall import culprit

__all__ = ["Heart"]

_log = logging.getLogger("taskq.worker")


class Heart:
    """Beats for the worker called `name()`, described by `describe()`.

    `on_reply` is called in the worker's loop with the name, each answer (None means declared dead)
    and when that beat was sent.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        name: Callable[[], str],
        describe: Callable[[], bytes],
        on_reply: Callable[[str, BeatReply | None, float], None],
    ) -> None:
        self._settings = settings
        self._name = name
        self._describe = describe
        self._on_reply = on_reply
        self._loop = asyncio.get_running_loop()
        self._main_thread = threading.get_ident()
        self._ticked = time.monotonic()
        self._own: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._live, name="taskq-heart", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; the worker's last beat stays as it is."""
        self._ended = True
        if self._own is not None and self._stopping is not None and self._thread.is_alive():
            self._own.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, 2.0)

    def _live(self) -> None:
        asyncio.run(self._beat_and_watch())

    async def _beat_and_watch(self) -> None:
        self._own = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._ended:
            # Stopped before it had a loop to be told in.
            return
        broker = Broker(
            self._settings,
            name="taskq-heart",
            connect_timeout=HEARTBEAT_CONNECT_SECONDS,
            reply_timeout=HEARTBEAT_REPLY_SECONDS,
        )
        watch = asyncio.create_task(self._watch())
        pause = HEARTBEAT_RETRY_SECONDS
        try:
            while not self._stopping.is_set():
                if await self._beat(broker):
                    pause = HEARTBEAT_RETRY_SECONDS
                    await _either(self._stopping, HEARTBEAT_SECONDS)
                else:
                    await _either(self._stopping, CHANCE.uniform(pause / 2, pause))
                    pause = min(HEARTBEAT_SECONDS, pause * 2)
        finally:
            watch.cancel()
            await broker.aclose()

    async def _beat(self, broker: Broker) -> bool:
        """Whether it landed: the server answered it."""
        name, sent = self._name(), seconds_passed()
        try:
            # Connection and reply are bounded by themselves; finding the server is not.
            async with asyncio.timeout(HEARTBEAT_CONNECT_SECONDS + 2 * HEARTBEAT_REPLY_SECONDS):
                reply = await broker.leases.beat(name, self._describe())
        except (ServerError, ConnectionLost, TimeoutError):
            # The fetcher says what is wrong with the server.
            return False
        except Exception:
            # Without beats the worker would be declared dead while it works.
            _log.exception("a beat failed, which is an error of taskq; the next one follows")
            return False
        self._call(self._on_reply, name, reply, sent)
        return True

    async def _watch(self) -> None:
        """Ask the loop for a sign of life, and warn once each time it gives none for a second."""
        warned = False
        while True:
            self._call(self._tick)
            await asyncio.sleep(LOOP_CHECK_SECONDS)
            stalled = time.monotonic() - self._ticked
            if stalled < LOOP_STALL_SECONDS:
                warned = False
            elif not warned:
                warned = True
                self._warn(stalled)

    def _tick(self) -> None:
        self._ticked = time.monotonic()

    def _warn(self, stalled: float) -> None:
        frame = sys._current_frames().get(self._main_thread)  # pyright: ignore[reportPrivateUsage]
        who, where = culprit(frame)
        _log.warning(
            "%s has blocked the event loop for %.1f s at %s; every other job of this worker waits. "
            "Make it a plain def to run it in a thread, or executor='process' for computing",
            who,
            stalled,
            where,
        )

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            # The worker's loop is closed: nobody is left to be told.
            if self._stopping is not None:
                self._stopping.set()


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
