"""The client: connecting, refusals, reconnections, and replies that must not be mixed up."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
import uvloop

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.keys import Keys
from taskq.broker.producer import Producer
from taskq.broker.scripts import ClockOffset
from taskq.core.errors import ConfigError, QueueFull, ServerRefused, ServerUnavailable
from taskq.redis.client import Client, retrying
from taskq.redis.connection import ConnectionLost
from taskq.redis.url import Address
from tests.support.proxy import Proxy
from tests.support.scripts import Scene, at, job
from tests.support.server import TestServer
from tests.support.waiting import eventually

#: Commands and users of the tests' own, which the least rights do not have.
pytestmark = pytest.mark.own_user

# ------------------------------------------------------------------------ servers that come and go


@pytest.mark.faults
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_restarts_is_found_and_listened_to_again(
    own_server: Callable[..., TestServer], how: signal.Signals
) -> None:
    server = own_server()
    broker = Broker(BrokerSettings(at(Address.parse(server.url)), Keys("t"), ClockOffset()))
    heard: list[bytes] = []
    await broker.client.subscribe("news", heard.append)
    assert await broker.producer.add(job("before"))
    server.stop(how)

    enqueued = asyncio.ensure_future(broker.producer.add(job("after")))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(server.start)

    assert await asyncio.wait_for(enqueued, 10)
    await broker.client.command("PUBLISH", "news", b"hello")
    await eventually(lambda: heard == [b"hello"])
    look = redis.Redis(unix_socket_path=str(server.socket))
    assert look.xlen(Keys("t").lane("default", 5)) == 2
    look.close()
    await broker.aclose()


@pytest.mark.faults
async def test_a_server_that_loads_its_data_is_waited_for(
    own_server: Callable[..., TestServer],
) -> None:
    server = own_server()
    with redis.Redis(unix_socket_path=str(server.socket)) as look, look.pipeline() as pipeline:
        for n in range(6000):
            pipeline.set(f"k{n}", "v")
        pipeline.execute()
    server.stop()
    server._options = ("--key-load-delay", "100")
    client = Client(at(Address.parse(server.url)))
    producer = Producer(client, Keys("t"), ClockOffset())

    starting = asyncio.create_task(asyncio.to_thread(server.start))
    await eventually(lambda: unavailable(client, "LOADING"))

    assert await asyncio.wait_for(producer.add(job("a")), 10)
    await starting
    await client.aclose()


async def unavailable(client: Client, why: str) -> bool:
    try:
        await client.command("GET", "x")
    except ServerUnavailable as error:
        return why in str(error)
    return False


@pytest.mark.faults
async def test_a_server_that_is_busy_with_a_script_is_waited_for(
    own_server: Callable[..., TestServer],
) -> None:
    server = own_server("--lua-time-limit", "50")
    client = Client(at(Address.parse(server.url)))
    producer = Producer(client, Keys("t"), ClockOffset())
    await producer.add(job("first"))
    hog = redis.Redis(unix_socket_path=str(server.socket))
    spinning = asyncio.create_task(
        asyncio.to_thread(hog.execute_command, "EVAL", "while true do end", 0)
    )
    await eventually(lambda: unavailable(client, "BUSY"))

    enqueued = asyncio.ensure_future(producer.add(job("a")))
    killer = redis.Redis(unix_socket_path=str(server.socket))
    killer.script_kill()

    assert await asyncio.wait_for(enqueued, 5)
    with pytest.raises(redis.ResponseError):
        await spinning
    hog.close()
    killer.close()
    await client.aclose()


@pytest.mark.faults
async def test_a_half_open_connection_is_given_up_within_the_reply_timeout(
    proxy: Proxy, producer: Producer, scene: Scene
) -> None:
    await producer.add(job("before"))
    proxy.half_open()
    began = time.monotonic()

    assert await producer.add(job("after"))

    # 0.6 s of silence, noticed by a look every quarter of that.
    assert 0.5 < time.monotonic() - began < 4.0
    assert scene.lane().waiting == ["first", "before", "after"]


@pytest.mark.faults
async def test_a_listener_notices_a_half_open_connection_though_it_says_nothing(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    heard: list[bytes] = []
    await client.subscribe(scene.keys.next_channel, heard.append)
    proxy.half_open()

    await eventually(lambda: scene.look.publish(scene.keys.next_channel, b"due") and heard)


@pytest.mark.faults
async def test_a_muted_server_costs_no_more_than_one_socket(proxy: Proxy, client: Client) -> None:
    proxy.mute()
    for _ in range(3):
        with pytest.raises(ServerUnavailable, match="did not answer within"):
            await client.command("PING")

    await eventually(lambda: len(proxy._pairs) == 0)
    proxy.heal()
    assert await client.command("ECHO", "back") == b"back"


@pytest.mark.faults
async def test_a_slow_line_is_no_dead_one(proxy: Proxy, producer: Producer, scene: Scene) -> None:
    proxy.delay = 0.1

    await asyncio.gather(*(producer.add(job(f"j{n}")) for n in range(5)))

    assert proxy.accepted == 1
    assert len(scene.lane().waiting) == 6


# --------------------------------------------------------------------------- refusals and messages


async def test_an_unreachable_server_is_reported_within_the_deadline() -> None:
    address = Address.parse("redis://user:hunter2@127.0.0.1:1/3")
    client = Client(at(address))
    producer = Producer(client, Keys("t"), ClockOffset(), deadline=0.3)
    began = time.monotonic()

    with pytest.raises(ServerUnavailable) as caught:
        await producer.add(job("a"))

    assert 0.2 < time.monotonic() - began < 3.0
    message = str(caught.value)
    assert "redis://127.0.0.1:1/3" in message
    assert "within 0.3 s" in message
    assert "hunter2" not in message
    assert "user" not in message
    await client.aclose()


async def test_a_socket_that_is_not_there_is_reported() -> None:
    client = Client(at(Address(path="/nowhere/at.all")))

    with pytest.raises(ServerUnavailable, match=r"unix:///nowhere/at\.all.*No such file"):
        await client.command("PING")

    await client.aclose()


async def test_a_name_that_is_not_known_is_reported() -> None:
    client = Client(at(Address(host="nowhere.invalid")))

    with pytest.raises(ServerUnavailable, match=r"cannot reach redis://nowhere\.invalid:6379/0"):
        await client.command("PING")

    await client.aclose()


async def test_a_wrong_password_is_refused_at_once(own_server: Callable[..., TestServer]) -> None:
    server = own_server()
    with redis.Redis(unix_socket_path=str(server.socket)) as look:
        look.config_set("requirepass", "right")
    for password in ("wrong", None):
        client = Client(at(Address(path=str(server.socket), password=password)))
        producer = Producer(client, Keys("t"), ClockOffset(), deadline=30.0)

        with pytest.raises(ServerRefused) as caught:
            await asyncio.wait_for(producer.add(job("a")), 3)

        assert server.url in str(caught.value)
        assert "check user, password and ACL" in str(caught.value)
        assert "wrong" not in str(caught.value).lower().replace("wrongpass", "")
        await client.aclose()

    client = Client(at(Address(path=str(server.socket), password="right")))
    assert await Producer(client, Keys("t"), ClockOffset()).add(job("a"))
    await client.aclose()


async def test_a_user_without_a_password_is_who_connects(
    own_server: Callable[..., TestServer],
) -> None:
    server = own_server()
    with redis.Redis(unix_socket_path=str(server.socket)) as look:
        look.execute_command("ACL", "SETUSER", "guest", "on", "nopass", "~*", "&*", "+@all")
    client = Client(at(Address.parse(f"unix://guest@{server.socket}")))

    assert await client.command("ACL", "WHOAMI") == b"guest"

    await client.aclose()


async def test_a_user_without_the_right_is_refused(own_server: Callable[..., TestServer]) -> None:
    server = own_server()
    with redis.Redis(unix_socket_path=str(server.socket)) as look:
        look.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@connection")
    address = Address(path=str(server.socket), username="guest", password="pw")
    client = Client(at(address))

    with pytest.raises(ServerRefused, match="NOPERM"):
        await Producer(client, Keys("t"), ClockOffset()).add(job("a"))

    await client.aclose()


async def test_channels_a_user_may_not_hear_are_refused(
    own_server: Callable[..., TestServer],
) -> None:
    server = own_server()
    with redis.Redis(unix_socket_path=str(server.socket)) as look:
        look.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "resetchannels", "+@all")
    client = Client(at(Address(path=str(server.socket), username="deaf", password="pw")))

    with pytest.raises(ServerRefused, match="NOPERM"):
        await client.subscribe("news", print)

    await client.aclose()


async def test_a_database_that_is_not_there_is_refused(server: TestServer) -> None:
    client = Client(at(Address(path=str(server.socket), database=999)))

    with pytest.raises(ServerRefused, match="DB index"):
        await client.command("PING")

    await client.aclose()


async def test_the_database_of_the_url_is_used(server: TestServer, look: redis.Redis) -> None:
    client = Client(at(Address(path=str(server.socket), database=9)))

    await client.command("SET", "only-in-nine", "x", "PX", 5000)

    assert not look.exists("only-in-nine")
    await client.aclose()


async def test_a_server_that_takes_no_more_clients_is_waited_for(
    own_server: Callable[..., TestServer],
) -> None:
    server = own_server("--maxclients", "1")
    first, second = (Client(at(Address.parse(server.url))) for _ in range(2))
    await Producer(first, Keys("t"), ClockOffset()).add(job("first"))

    with pytest.raises(ServerUnavailable):
        await second.command("PING")
    enqueued = asyncio.ensure_future(Producer(second, Keys("t"), ClockOffset()).add(job("a")))
    await asyncio.sleep(0)
    await first.aclose()

    assert await asyncio.wait_for(enqueued, 5)
    await second.aclose()


def test_a_wrong_scheme_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="use redis://host:6379/0"):
        Address.parse("http://localhost:6379")


async def test_a_closed_client_says_so(server: TestServer) -> None:
    client = Client(at(Address.parse(server.url)))
    await client.command("PING")
    await client.aclose()

    with pytest.raises(ServerUnavailable, match="was closed"):
        await client.command("PING")


async def test_an_enqueue_ends_at_once_when_its_client_is_closed(
    client: Client, producer: Producer
) -> None:
    # Given one that is on its way, and one that is handed in after that
    await client.connect()
    under_way = asyncio.ensure_future(producer.add(job("a")))
    await asyncio.sleep(0)
    await client.aclose()
    too_late = asyncio.ensure_future(producer.add(job("b")))

    # Then both end long before their deadline, and say why
    async with asyncio.timeout(2):
        for enqueue in (under_way, too_late):
            with pytest.raises(ServerUnavailable, match="enqueued: this connection was closed"):
                await enqueue


async def test_retrying_gives_the_last_reason() -> None:
    calls: list[bool] = []

    async def failing(repeated: bool) -> None:
        calls.append(repeated)
        raise ConnectionLost(f"failure {len(calls)}")

    with pytest.raises(ServerUnavailable, match=r"it did not work within 0\.1 s: failure \d"):
        await retrying(failing, seconds=0.1, what="it did not work")

    assert calls[0] is False
    assert set(calls[1:]) == {True}


async def test_retrying_does_not_repeat_what_was_refused() -> None:
    calls: list[bool] = []

    async def refused(repeated: bool) -> None:
        calls.append(repeated)
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        await retrying(refused, seconds=5.0, what="it did not work")

    assert calls == [False]


# ----------------------------------------------------------------------------------- subscriptions


async def test_a_subscription_made_while_the_connection_is_made_is_heard(
    client: Client, scene: Scene
) -> None:
    """The greeting of a new connection names the channels known when it was sent."""
    heard: list[bytes] = []
    channel = scene.keys.done_channel + "x"
    connecting = asyncio.ensure_future(client.command("PING"))
    while client.address is None:
        await asyncio.sleep(0)
    await asyncio.sleep(0)

    await asyncio.gather(connecting, client.subscribe(channel, heard.append))

    assert scene.look.publish(channel, b"hello") == 1
    await eventually(lambda: heard == [b"hello"])


async def test_what_is_unsubscribed_is_not_heard_any_more(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    heard: list[bytes] = []
    channel = scene.keys.done_channel + "x"
    await client.subscribe(channel, heard.append)
    await client.unsubscribe(channel)

    assert scene.look.publish(channel, b"hello") == 0
    proxy.cut()
    await eventually(lambda: client._connection is None or client._connection.lost)
    await client.command("PING")
    assert scene.look.publish(channel, b"hello") == 0


# ------------------------------------------------------------------------------------ cancellation


@pytest.mark.faults
async def test_calls_given_up_at_any_point_never_mix_up_replies(
    proxy: Proxy, client: Client, scene: Scene
) -> None:
    """A caller that stops waiting leaves a reply behind, which must not reach another caller."""
    for n in range(300):
        scene.look.set(f"{{{scene.keys.namespace}}}:k", n)
        call = asyncio.ensure_future(client.command("GET", f"{{{scene.keys.namespace}}}:k"))
        for _ in range(n % 12):
            await asyncio.sleep(0)
        proxy.delay = 0.001 if n % 3 else 0.0
        call.cancel()
        assert await client.command("ECHO", f"answer {n}") == b"answer %d" % n

    answers = await asyncio.gather(*(client.command("ECHO", str(n)) for n in range(200)))
    assert answers == [str(n).encode() for n in range(200)]


@pytest.mark.faults
async def test_enqueues_given_up_at_any_point_make_at_most_one_job(
    proxy: Proxy, producer: Producer, scene: Scene
) -> None:
    for n in range(60):
        call = asyncio.ensure_future(producer.add(job(f"j{n}")))
        for _ in range(1 + n % 10):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])

    assert await producer.add(job("last"))

    waiting = scene.lane().waiting
    assert len(waiting) == len(set(waiting)) == 62, "given up by the caller, not by the queue"


async def test_large_replies_come_whole(client: Client, scene: Scene) -> None:
    key = scene.keys.job("big")
    value = bytes(range(256)) * 8192
    scene.look.hset(key, "r", value)

    replies = await asyncio.gather(*(client.command("HGET", key, "r") for _ in range(3)))

    assert replies == [value] * 3


# ------------------------------------------------------------------------------ reply handlers


async def test_who_cannot_take_a_reply_costs_nobody_else_the_connection(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    connection = await scene.client.connect()

    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    connection.send(broken, "PING")
    assert await connection.call("ECHO", "still here") == b"still here"

    assert not connection.lost
    assert "a reply handler failed; this is a bug in taskq" in caplog.text


@pytest.mark.parametrize("unfit", ["\udc80", object()], ids=["no text", "no bytes"])
async def test_what_cannot_be_written_costs_its_caller_alone(scene: Scene, unfit: object) -> None:
    connection = await scene.client.connect()

    with pytest.raises((UnicodeEncodeError, TypeError)):
        await scene.client.command("ECHO", unfit)

    replies = await asyncio.gather(connection.call("ECHO", "a"), connection.call("ECHO", "b"))
    assert replies == [b"a", b"b"]


async def test_a_connection_that_is_lost_tells_everybody_who_waits(scene: Scene) -> None:
    connection = await scene.client.connect()
    replies: list[object] = []
    connection.send(replies.append, "PING")

    connection.abort()
    connection.send(replies.append, "PING")

    assert [type(reply) for reply in replies] == [ConnectionLost, ConnectionLost]


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_is_said_leaves_before_the_loop_comes_round(
    server: TestServer,
    look: redis.Redis,
    namespace: str,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The server works while this process still runs what this turn of its loop has to do."""
    key = f"{{{namespace}}}:said"

    async def say() -> None:
        client = Client(at(server.address))
        connection = await client.connect()
        connection.send(lambda _: None, "SET", key, "1", "PX", 10_000)
        deadline = time.monotonic() + 5
        while not look.exists(key):
            assert time.monotonic() < deadline, "it was kept until the end of the turn"
        await client.aclose()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(say())
    look.delete(key)


async def test_closed_while_it_connects_it_leaves_no_line(server: TestServer) -> None:
    went_on, closed = asyncio.Event(), asyncio.Event()

    async def check(*_: Any) -> None:
        went_on.set()
        await closed.wait()

    client = Client(at(server.address), check=check)
    calling = asyncio.create_task(client.command("PING"))
    await went_on.wait()
    await client.aclose()
    closed.set()

    with pytest.raises(ServerUnavailable, match="this connection was closed"):
        await calling
    assert not client.connected
