"""A socket in front of the server that misbehaves on demand.

Bytes pass unread, except that patterns are looked for in them. Whatever can go wrong between a
client and a server is one method here::

    async with Proxy(server.socket) as proxy:
        proxy.lose_reply(b"EVALSHA")     # the server did it, the client never hears
        proxy.lose_request(b"EVALSHA")   # the client sent it, the server never hears
        proxy.cut_after(100)             # in the middle of a message
        proxy.mute()                     # the server's replies vanish, the connection stays
        proxy.half_open()                # both ends think they are connected; nothing passes
        proxy.half_open(b"taskq-heart")  # only on the connections of clients with this name
        proxy.delay = 0.2                # seconds, in each direction
        proxy.refuse()                   # nobody answers
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from taskq.redis.url import Address

__all__ = ["Proxy"]

Direction = Literal["up", "down"]
"""`up` is from the client to the server."""


@dataclass
class _Rule:
    """When `pattern` (or `bytes` more bytes) passed in a direction, the connection is cut.

    `what` is lost with it: the `request` that holds the pattern, the `reply` to it, or nothing.
    """

    direction: Direction
    lost: Literal["request", "reply", "nothing"]
    pattern: bytes = b""
    count: int = 0
    times: int = 1


class Proxy:
    """Listens on a unix socket of its own and passes everything on to the server's."""

    def __init__(self, server: Path, as_user: str = "") -> None:
        self._as_user = as_user
        self._server = str(server)
        self._directory = Path(tempfile.mkdtemp(prefix="tqp"))
        self._rules: list[_Rule] = []
        self._pairs: set[_Pair] = set()
        self._listener: asyncio.Server | None = None
        self._swallowed: frozenset[Direction] = frozenset()
        self._only_old: frozenset[_Pair] | None = None
        self.delay = 0.0
        self.accepted = 0
        self.cuts = 0

    @property
    def url(self) -> str:
        return f"unix://{self._directory / 's'}{self._as_user}"

    async def locate(self) -> Address:
        """Where a client finds this proxy."""
        return Address.parse(self.url)

    def lose_reply(self, pattern: bytes, times: int = 1) -> None:
        """Let requests with `pattern` pass, swallow what is answered, and cut, so many times."""
        self._rules.append(_Rule("up", "reply", pattern, times=times))

    def lose_request(self, pattern: bytes, times: int = 1) -> None:
        """Cut when a request with `pattern` arrives, so many times; the server never sees it."""
        self._rules.append(_Rule("up", "request", pattern, times=times))

    def cut_after(self, count: int, direction: Direction = "up", times: int = 1) -> None:
        """Cut each connection once `count` bytes have passed, in the middle of a message."""
        self._rules.append(_Rule(direction, "nothing", count=count, times=times))

    def mute(self) -> None:
        """Swallow what the server says from now on."""
        self._swallowed = frozenset({"down"})

    def half_open(self, name: bytes = b"") -> int:
        """Swallow everything on the connections there are now; new ones are well.

        With a `name` only on those that greeted with it. Returns how many these are.
        """
        self._swallowed = frozenset({"up", "down"})
        self._only_old = frozenset(pair for pair in self._pairs if name in pair.greeting)
        return len(self._only_old)

    def heal(self) -> None:
        """Behave from now on. A connection that lost bytes is cut: no network mends such a one."""
        self._swallowed, self._only_old, self.delay = frozenset(), None, 0.0
        self._rules.clear()
        for pair in list(self._pairs):
            if pair.torn:
                pair.cut()

    def cut(self) -> None:
        """Cut every connection now."""
        for pair in list(self._pairs):
            pair.cut()

    async def refuse(self) -> None:
        """Cut every connection and take no more."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            (self._directory / "s").unlink(missing_ok=True)
        self.cut()

    async def accept(self) -> None:
        """Take connections (again)."""
        self._listener = await asyncio.start_unix_server(self._connected, self._directory / "s")

    async def __aenter__(self) -> Proxy:
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.refuse()
        while self._pairs:
            await asyncio.sleep(0.001)
        shutil.rmtree(self._directory)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            upstream = await asyncio.open_unix_connection(self._server)
        except OSError:
            writer.transport.abort()
            return
        pair = _Pair(self, (reader, writer), upstream)
        self._pairs.add(pair)
        try:
            await pair.run()
        finally:
            self._pairs.discard(pair)

    def swallows(self, pair: _Pair, direction: Direction) -> bool:
        """Whether bytes of this pair vanish."""
        affected = self._only_old is None or pair in self._only_old
        return affected and direction in self._swallowed

    def rule_for(self, direction: Direction, seen: bytes, passed: int) -> _Rule | None:
        """The first rule these bytes meet; it is used up once."""
        for rule in self._rules:
            met = rule.pattern in seen if rule.pattern else passed >= rule.count
            if rule.direction == direction and rule.times > 0 and met:
                rule.times -= 1
                return rule
        return None


class _Pair:
    """One connection of a client, and ours to the server on its behalf."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._awaiting_lost_reply = False
        self.greeting = b""
        self.torn = False

    async def run(self) -> None:
        """Pass bytes both ways until one end closes or is cut off."""
        ways = [
            asyncio.ensure_future(self._pass("up", self._client[0], self._server[1])),
            asyncio.ensure_future(self._pass("down", self._server[0], self._client[1])),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        self.cut()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)

    def cut(self) -> None:
        """Close both ends without a word."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def _pass(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        tail, passed = b"", 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                if direction == "up" and not passed:
                    self.greeting = data
                if self._proxy.delay:
                    await asyncio.sleep(self._proxy.delay)
                if self._proxy.swallows(self, direction):
                    self.torn = True
                    continue
                if direction == "down" and self._awaiting_lost_reply:
                    self._proxy.cuts += 1
                    return
                rule = self._proxy.rule_for(direction, tail + data, passed + len(data))
                if rule is not None and not await self._misbehave(rule, data, passed, writer):
                    return
                if rule is None:
                    writer.write(data)
                passed += len(data)
                # A pattern may come in two pieces; no pattern here is longer than this.
                tail = (tail + data)[-100:] if rule is None else b""

    async def _misbehave(
        self, rule: _Rule, data: bytes, passed: int, writer: asyncio.StreamWriter
    ) -> bool:
        """Act on a rule; false when the connection is to be cut now."""
        if rule.lost == "reply":
            self._awaiting_lost_reply = True
            writer.write(data)
            return True
        self._proxy.cuts += 1
        if rule.lost == "nothing":
            writer.write(data[: max(0, rule.count - passed)])
            await writer.drain()
        return False
