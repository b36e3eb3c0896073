"""`rediss://`: connections are encrypted, and the server's certificate is verified."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
import redis.asyncio
import uvloop
from redis.credentials import CredentialProvider

from taskq import TaskQ
from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset
from taskq.core.errors import ConfigError, ServerRefused, ServerUnavailable
from taskq.core.job import Ending
from taskq.redis.url import Address
from tests.support.scripts import at, job
from tests.support.server import TestServer
from tests.support.tls import CERTIFICATE, tls_front

#: The front speaks as the server's default user.
pytestmark = pytest.mark.own_user


def broker_at(url: str, namespace: str, **settings: float) -> Broker:
    return Broker(
        BrokerSettings(at(Address.parse(url)), Keys(namespace), ClockOffset(), **settings)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_jobs_travel_through_tls(
    server: TestServer, namespace: str, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def use() -> None:
        async with tls_front(server.socket) as port:
            url = f"rediss://localhost:{port}/0?ssl_ca_certs={CERTIFICATE}"
            broker = broker_at(url, namespace)
            large = [job(f"j{n}", envelope=bytes(10_000)) for n in range(1000)]
            assert await broker.producer.add_many(large) == [True] * 1000

            assert await broker.waiting.until_over("unknown") == Ending(None)
            assert await broker.jobs.cancel("j7") == 1
            await broker.client.command("EVAL", DELETE, 0, f"{{{namespace}}}:*")
            await broker.aclose()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(use())


DELETE = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"


@pytest.mark.parametrize(
    ("host", "query", "message"),
    [
        ("localhost", "", r"TLS failed: .*\?ssl_ca_certs="),
        ("127.0.0.1", f"?ssl_ca_certs={CERTIFICATE}", "TLS failed"),
    ],
    ids=["unknown authority", "other host name"],
)
async def test_a_certificate_that_cannot_be_verified_is_refused(
    server: TestServer, namespace: str, host: str, query: str, message: str
) -> None:
    async with tls_front(server.socket) as port:
        broker = broker_at(f"rediss://{host}:{port}/0{query}", namespace)
        with pytest.raises(ServerRefused, match=message):
            await broker.client.connect()
        await broker.aclose()


async def test_a_file_of_authorities_that_is_not_there_is_named(
    namespace: str, tmp_path: Path
) -> None:
    missing = tmp_path / "ca.pem"
    broker = broker_at(f"rediss://localhost:1/0?ssl_ca_certs={missing}", namespace)
    with pytest.raises(ConfigError, match=rf"ssl_ca_certs='{missing}' cannot be used"):
        await broker.client.connect()
    await broker.aclose()


async def test_a_connection_without_tls_to_a_tls_port_fails_within_its_deadline(
    server: TestServer, namespace: str
) -> None:
    async with tls_front(server.socket) as port:
        broker = broker_at(f"redis://localhost:{port}/0", namespace, enqueue_deadline=0.5)
        with pytest.raises(ServerUnavailable, match=f"redis://localhost:{port}/0"):
            await broker.producer.add(job("a"))
        await broker.aclose()


async def test_a_client_of_redis_py_brings_its_tls_and_its_changing_password(
    server: TestServer, look: redis.Redis, namespace: str
) -> None:
    class Rotating(CredentialProvider):
        password = ""

        async def get_credentials_async(self) -> tuple[str, str]:
            return namespace, self.password

    def rotate(password: str) -> None:
        Rotating.password = password
        rule = ["resetpass", f">{password}", "on", "~*", "&*", "+@all"]
        look.execute_command("ACL", "SETUSER", namespace, *rule)
        look.execute_command("CLIENT", "KILL", "USER", namespace)

    rotate("first")
    async with tls_front(server.socket) as port:
        client = redis.asyncio.Redis(
            host="localhost", port=port, ssl=True, ssl_ca_certs=str(CERTIFICATE),
            credential_provider=Rotating(),
        )  # fmt: skip
        async with TaskQ(client, namespace=namespace) as q:

            @q.task(name="square")
            async def square(number: int) -> int:
                return number * number

            first = await square.enqueue(3)
            rotate("second")
            assert await q.run_until_empty() == 1
            assert await first.result(timeout=5) == 9
    look.execute_command("ACL", "DELUSER", namespace)
