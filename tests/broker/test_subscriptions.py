"""Subscriptions on a connection that others use for calls: whose reply a confirmation is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis
import pytest

from taskq.core.errors import ServerRefused
from taskq.redis.client import Client
from taskq.redis.url import Address
from tests.support.scripts import at
from tests.support.waiting import eventually


def push(kind: str, channel: str | None, count: int = 1) -> bytes:
    name = "$-1" if channel is None else f"${len(channel)}\r\n{channel}"
    return f">3\r\n${len(kind)}\r\n{kind}\r\n{name}\r\n:{count}\r\n".encode()


class Speaker:
    """A server that answers what it is asked, with `before` each reply, as a cluster's nodes do."""

    def __init__(self) -> None:
        self.before = b""
        self.subscribed = 0
        self.refuses = False

    @asynccontextmanager
    async def listening(self, path: Path) -> AsyncIterator[Address]:
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield Address(path=str(path))
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader(notEnoughData=None)
        while data := await reader.read(65_536):
            parser.feed(data)
            while (command := parser.gets()) is not None:
                writer.write(self.before + self._answer(command))
        writer.close()

    def _answer(self, command: list[bytes]) -> bytes:
        if command[0] == b"SUBSCRIBE":
            if self.refuses:
                return b"-NOPERM no channels for you\r\n"
            self.subscribed += 1
        if command[0] in (b"SUBSCRIBE", b"UNSUBSCRIBE"):
            return push(command[0].decode().lower(), command[1].decode())
        return b"$%d\r\n%b\r\n" % (len(command[-1]), command[-1])


@pytest.fixture
def speaker() -> Speaker:
    return Speaker()


@pytest.fixture
async def client(speaker: Speaker, tmp_path: Path) -> AsyncIterator[Client]:
    async with speaker.listening(tmp_path / "s") as address:
        client = Client(at(address), reply_timeout=2.0)
        yield client
        await client.aclose()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "unasked",
    [
        push("subscribe", "other"),
        push("unsubscribe", "other"),
        push("unsubscribe", None, 0),
        push("ssubscribe", "other"),
        push("sunsubscribe", "other"),
        b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    ],
    ids=["subscribe", "unsubscribe", "unsubscribe-all", "ssubscribe", "sunsubscribe", "invalidate"],
)
async def test_a_confirmation_nobody_asked_for_is_nobodys_reply(
    speaker: Speaker, client: Client, unasked: bytes
) -> None:
    await client.command("ECHO", "first")
    speaker.before = unasked

    answers = await asyncio.gather(*(client.command("ECHO", f"{n}") for n in range(20)))

    assert answers == [b"%d" % n for n in range(20)]


async def test_calls_around_a_subscription_get_their_own_replies(client: Client) -> None:
    async def around(n: int) -> Any:
        subscribing = asyncio.ensure_future(client.subscribe(f"c{n}", lambda _: None))
        answers = await asyncio.gather(*(client.command("ECHO", f"{n}{m}") for m in "abc"))
        await subscribing
        await client.unsubscribe(f"c{n}")
        return answers

    found = await asyncio.gather(*map(around, range(5)))

    assert found == [[f"{n}{m}".encode() for m in "abc"] for n in range(5)]


async def test_a_subscription_the_server_ended_by_itself_is_made_again(
    speaker: Speaker, client: Client
) -> None:
    missed: list[bool] = []
    client.on_reconnect(lambda: missed.append(True))
    await client.subscribe("news", lambda _: None)
    before = speaker.subscribed
    speaker.before = push("unsubscribe", "news", 0)
    with pytest.raises(ConnectionError):
        await client.command("ECHO", "x")
    speaker.before = b""

    await eventually(lambda: speaker.subscribed > before and missed)


async def test_a_refused_subscription_says_so_and_costs_nobody_a_reply(
    speaker: Speaker, client: Client
) -> None:
    await client.command("ECHO", "first")
    speaker.refuses = True

    with pytest.raises(ServerRefused, match="NOPERM"):
        await client.subscribe("news", lambda _: None)

    assert await client.command("ECHO", "next") == b"next"
