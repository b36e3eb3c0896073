"""Finds out whether a client's silent connection is dead, or the server is slow.

When a reply is late, a probe connects to the server's current address. Only an answer to the probe
proves that the silent connection is dead: a server that is slow, paused or hung answers on neither,
and the client waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from taskq.core.errors import TaskqError
from taskq.core.liveness import DOUBT_SECONDS, PROBE_SECONDS, WATCH_CHECKS, WATCH_SECONDS
from taskq.redis.connection import Connection, ConnectionLost, Locate, Reply, connect
from taskq.redis.server_check import BUFFERS, Facts, judge_buffers, lenient, read_settings
from taskq.redis.url import Address

__all__ = ["ConnectionMonitor"]

_log = logging.getLogger("taskq.broker")

_SMALL_BYTES: Final = 65_536
"""More outstanding data than this may be slower than a probe, without a dead connection."""

_CLOSINGS, _CLOSINGS_SECONDS = 3, 60.0
_NONE_FOR_BUFFERS: Final = b"client_output_buffer_limit_disconnections:0\r"


class ConnectionMonitor:
    """Monitors the current connection of the client called `name`.

    Aborts a connection when a reply is outstanding and nothing was received for `reply_timeout`
    seconds, and earlier when a probe is answered. Pings an idle connection. Logs an error when the
    server repeatedly closes connections with outstanding replies.
    """

    def __init__(self, reply_timeout: float, locate: Locate, name: str) -> None:
        self._reply_timeout = reply_timeout
        self._pause = min(WATCH_SECONDS, reply_timeout / WATCH_CHECKS)
        self._locate = locate
        self._name = name
        self._connection: Connection | None = None
        self._address: Address | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._silent = 0.0
        self._sent: deque[tuple[float, int]] = deque(maxlen=1 + int(reply_timeout / self._pause))
        self._closings: deque[float] = deque(maxlen=_CLOSINGS)

    def watch(self, connection: Connection, address: Address) -> None:
        """Monitor this connection to `address` from now on, in place of the one before."""
        previous, self._connection = self._connection, connection
        self._address = address
        self.end()
        now = asyncio.get_running_loop().time()
        if previous is not None and previous.dropped:
            self._closings.append(now)
            if len(self._closings) == _CLOSINGS and now - self._closings[0] < _CLOSINGS_SECONDS:
                self._closings.clear()
                self._task = asyncio.create_task(_explain_closings(connection, address))
        self._silent = 0.0
        self._sent.clear()
        self._look(connection)

    def end(self) -> None:
        """Stop monitoring."""
        for ending in (self._timer, self._task):
            if ending is not None:
                ending.cancel()
        self._timer = self._task = None

    def _look(self, connection: Connection) -> None:
        if connection.lost:
            return
        loop = asyncio.get_running_loop()
        # Counted in looks, so that time in which this process was stopped does not count.
        self._silent = min(connection.oldest_wait(), self._silent + self._pause)
        if self._silent > self._reply_timeout:
            connection.abort()
            return
        if self._silent > DOUBT_SECONDS and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._probe_silent(connection))
        if loop.time() - connection.heard_at > self._reply_timeout / 2:
            connection.send(_nothing, "PING")
        self._sent.append((loop.time(), connection.sent))
        self._timer = loop.call_later(self._pause, self._look, connection)

    async def _probe_silent(self, connection: Connection) -> None:
        """Abort a silent connection when a probe is answered, here or at another address."""
        heard_at = connection.heard_at
        try:
            elsewhere = await self._probe()
        except (TaskqError, ConnectionLost, OSError, TimeoutError):
            return
        # What delayed both may reach the older connection a moment later.
        await asyncio.sleep(WATCH_SECONDS)
        if connection.lost or connection.heard_at != heard_at or not connection.oldest_wait():
            return
        if elsewhere or self._outstanding_bytes(connection) <= _SMALL_BYTES:
            _log.warning(
                "a connection was silent for %.1f s while the server answers on a new one; "
                "closing the silent connection",
                connection.oldest_wait(),
            )
            connection.abort()

    async def _probe(self) -> bool:
        """Whether the server that answers has another address; raises without an answer."""
        address = await self._locate()
        probe = await connect(
            address,
            lambda: Connection(_nothing, lambda: None),
            name=f"{self._name}-probe",
            channels=(),
            timeout=PROBE_SECONDS,
        )
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                # A script, because a server that pauses writes still answers PING.
                await probe.call("EVAL", "return 1", 0)
        finally:
            probe.abort()
        return address != self._address

    def _outstanding_bytes(self, connection: Connection) -> int:
        """The most bytes that can have been sent since the oldest unanswered call."""
        before = [sent for at, sent in self._sent if at <= connection.owed_since]
        return connection.sent - (before[-1] if before else 0)


async def _explain_closings(connection: Connection, address: Address) -> None:
    """Log why a server repeatedly closes connections, if its settings explain it."""
    ask = lenient(connection.call)
    try:
        stats, settings = await asyncio.gather(ask("INFO", "stats"), read_settings(ask, BUFFERS))
    except ConnectionLost:
        return
    # Counted since 7.0; an older server is suspected.
    if isinstance(stats, bytes) and _NONE_FOR_BUFFERS in stats:
        return
    verdict = judge_buffers(Facts({}, settings, address.flags))
    _log.error(
        "%s closed the connection %d times with replies outstanding, as it does when a reply is "
        "larger than its %s for pubsub clients: fetched jobs cannot be read. %s. What to do: %s",
        address,
        _CLOSINGS,
        BUFFERS,
        verdict.what,
        verdict.fix,
    )


def _nothing(_: Reply) -> None:
    """Ignore a reply: its arrival is all that counts."""
