"""The watch over a connection: a peer gone without a word is noticed by the reply it owes."""

from __future__ import annotations

import asyncio

from taskq.broker.connection import Connection, Reply
from taskq.core.liveness import WATCH_LOOKS

__all__ = ["Watch"]


class Watch:
    """Ends a connection that owes a reply for `reply_timeout` seconds without a byte heard.

    One on which nothing is said is asked for a sign of life, well before that time.
    """

    def __init__(self, reply_timeout: float) -> None:
        self._reply_timeout = reply_timeout
        self._timer: asyncio.TimerHandle | None = None

    def over(self, connection: Connection) -> None:
        """Watch this connection from now on, and no other."""
        self.end()
        if connection.lost:
            return
        loop = asyncio.get_running_loop()
        if connection.oldest_wait() > self._reply_timeout:
            connection.abort()
            return
        if loop.time() - connection.heard_at > self._reply_timeout / 2:
            connection.send(_nothing, "PING")
        self._timer = loop.call_later(self._reply_timeout / WATCH_LOOKS, self.over, connection)

    def end(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()


def _nothing(_: Reply) -> None:
    """That it came is all that counts."""
