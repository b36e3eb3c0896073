"""Monitoring of a client's connection: one that died silently, and one that was cut off.

A reply that is owed for a moment raises a doubt, and the server is asked for a sign of life on a
connection of its own, where it is by now. Only an answer there condemns the silent line: a server
that is slow, paused or hung answers on neither, and is waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final

from taskq.core.errors import TaskqError
from taskq.core.liveness import DOUBT_SECONDS, PROBE_SECONDS, WATCH_LOOKS, WATCH_SECONDS
from taskq.redis.connection import Connection, ConnectionLost, Locate, Reply, connect
from taskq.redis.server_check import BUFFERS, Facts, judge_buffers, lenient, read_settings
from taskq.redis.url import Address

__all__ = ["ConnectionMonitor"]

_log = logging.getLogger("taskq.broker")

_SMALL_BYTES: Final = 65_536
"""What is larger takes a slow line, or a busy server, longer than a probe."""

_CLOSINGS, _CLOSINGS_SECONDS = 3, 60.0
_NONE_FOR_BUFFERS: Final = b"client_output_buffer_limit_disconnections:0\r"


class ConnectionMonitor:
    """Watches the connections of one client called `name`, one after the other.

    One that owes a reply for `reply_timeout` seconds without a byte heard is ended, and earlier
    when the server answers elsewhere. One on which nothing is said is asked for a sign of life.
    A server that goes on closing connections on which it owes replies is reported.
    """

    def __init__(self, reply_timeout: float, locate: Locate, name: str) -> None:
        self._reply_timeout = reply_timeout
        self._pause = min(WATCH_SECONDS, reply_timeout / WATCH_LOOKS)
        self._locate = locate
        self._name = name
        self._connection: Connection | None = None
        self._address: Address | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._silent = 0.0
        self._sent: deque[tuple[float, int]] = deque(maxlen=1 + int(reply_timeout / self._pause))
        self._closings: deque[float] = deque(maxlen=_CLOSINGS)

    def over(self, connection: Connection, address: Address) -> None:
        """Watch this connection to `address` from now on, and no other."""
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
        """Watch no more."""
        for ending in (self._timer, self._task):
            if ending is not None:
                ending.cancel()
        self._timer = self._task = None

    def _look(self, connection: Connection) -> None:
        if connection.lost:
            return
        loop = asyncio.get_running_loop()
        # Counted in looks: while this process stands still nobody is silent.
        self._silent = min(connection.oldest_wait(), self._silent + self._pause)
        if self._silent > self._reply_timeout:
            connection.abort()
            return
        if self._silent > DOUBT_SECONDS and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._doubt(connection))
        if loop.time() - connection.heard_at > self._reply_timeout / 2:
            connection.send(_nothing, "PING")
        self._sent.append((loop.time(), connection.sent))
        self._timer = loop.call_later(self._pause, self._look, connection)

    async def _doubt(self, connection: Connection) -> None:
        """Leave a silent line when the server answers on another, or when another one does."""
        heard_at = connection.heard_at
        try:
            elsewhere = await self._probe()
        except (TaskqError, ConnectionLost, OSError, TimeoutError):
            return
        # What was held up for both may reach the older line a moment later.
        await asyncio.sleep(WATCH_SECONDS)
        if connection.lost or connection.heard_at != heard_at or not connection.oldest_wait():
            return
        if elsewhere or self._owed_bytes(connection) <= _SMALL_BYTES:
            _log.warning(
                "a connection was silent for %.1f s, while the server answers on a new one: the "
                "silent one is left",
                connection.oldest_wait(),
            )
            connection.abort()

    async def _probe(self) -> bool:
        """Whether who answers is found at another address; raises where nobody answers."""
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
                # A script: where writes are paused, a PING would be answered all the same.
                await probe.call("EVAL", "return 1", 0)
        finally:
            probe.abort()
        return address != self._address

    def _owed_bytes(self, connection: Connection) -> int:
        """How much was sent, at most, since the oldest call that is not answered."""
        before = [sent for at, sent in self._sent if at <= connection.owed_since]
        return connection.sent - (before[-1] if before else 0)


async def _explain_closings(connection: Connection, address: Address) -> None:
    """Say why a server goes on closing connections, where it tells."""
    ask = lenient(connection.call)
    try:
        stats, settings = await asyncio.gather(ask("INFO", "stats"), read_settings(ask, BUFFERS))
    except ConnectionLost:
        return
    # From 7.0 on; an older server does not count them, and is suspected.
    if isinstance(stats, bytes) and _NONE_FOR_BUFFERS in stats:
        return
    verdict = judge_buffers(Facts({}, settings, address.flags))
    _log.error(
        "%s closed the connection %d times while it owed a reply, as it does when a reply is "
        "larger than its %s for pubsub clients: what was fetched cannot be read. %s. What to do: "
        "%s",
        address,
        _CLOSINGS,
        BUFFERS,
        verdict.what,
        verdict.fix,
    )


def _nothing(_: Reply) -> None:
    """That it came is all that counts."""
