"""Where the server is, when a client of redis-py says so."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis
from redis.asyncio import ConnectionPool, Redis, RedisCluster, Sentinel
from redis.credentials import UsernamePasswordCredentialProvider

from taskq import TaskQ
from taskq.core.errors import ConfigError, ServerUnavailable
from taskq.location import locator
from taskq.redis.url import Address, Tls
from tests.support.tls import CERTIFICATE


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache:6380/2",
        "redis://me:pw@cache",
        "redis://:pw@cache?socket_connect_timeout=3&socket_keepalive=0",
        "unix://me:pw@/run/s?db=4",
    ],
)
async def test_a_client_is_read_as_the_url_it_was_made_from(url: str) -> None:
    found, same = await locator(Redis.from_url(url))(), Address.parse(url)

    names = ("host", "port", "path", "database", "username", "password", "tls")
    assert [getattr(found, name) for name in names] == [getattr(same, name) for name in names]
    assert found.connect_timeout == (same.connect_timeout or found.connect_timeout)
    assert str(found) == str(same)


async def test_its_tls_settings_are_used() -> None:
    key = CERTIFICATE.with_suffix(".key")
    client = Redis(
        host="cache", ssl=True, ssl_ca_certs=str(CERTIFICATE), ssl_check_hostname=False,
        ssl_certfile=str(CERTIFICATE), ssl_keyfile=str(key), ssl_min_version=772,
    )  # fmt: skip
    address = await locator(client)()
    context = address.ssl_context()

    assert str(address) == "rediss://cache:6379/0"
    assert address.tls == Tls(
        ca_certs=str(CERTIFICATE), certfile=str(CERTIFICATE), keyfile=str(key)
    )
    assert context is not None
    assert (len(context.get_ca_certs()) > 0, context.check_hostname) == (True, False)
    assert context.minimum_version == 772


async def test_a_file_for_tls_that_is_missing_is_named() -> None:
    address = await locator(Redis.from_url("rediss://cache?ssl_ca_certs=/nowhere"))()

    with pytest.raises(ConfigError, match="ssl_ca_certs='/nowhere' cannot be used"):
        address.ssl_context()


async def test_its_credential_provider_is_asked_for_each_connection() -> None:
    tokens = iter(["first", "second"])

    class Provider(UsernamePasswordCredentialProvider):
        async def get_credentials_async(self) -> Any:
            return "me", next(tokens)

    address = await locator(Redis(credential_provider=Provider()))()

    assert await address.credentials() == ("me", "first")
    assert await address.credentials() == ("me", "second")
    assert address.flags == "-h localhost -p 6379 --askpass"
    with pytest.raises(ServerUnavailable, match="its credential provider failed: RuntimeError"):
        await address.credentials()


async def test_a_provider_may_know_a_password_alone() -> None:
    provider = UsernamePasswordCredentialProvider(password="pw")

    address = await locator(Redis(credential_provider=provider))()

    assert await address.credentials() == (None, "pw")
    assert "pw" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("client", "message"),
    [
        (42, "is a int, which is neither a text nor a redis.asyncio.Redis"),
        (redis.Redis(), "is a Redis, which is neither a text nor a redis.asyncio.Redis"),
        (ConnectionPool(), "is a ConnectionPool, which is neither"),
        (RedisCluster("localhost"), "is a RedisCluster, which is neither"),
        (Sentinel([("a", 1)]).master_for("m"), "through Sentinel, which taskq does not support"),
        (Redis(redis_connect_func=print), "a redis_connect_func, which taskq does not call"),
    ],
)
def test_any_other_object_is_refused(client: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TaskQ(client)


def test_redis_py_is_imported_by_those_alone_who_hand_in_a_client() -> None:
    program = (
        "import sys; from taskq import TaskQ; TaskQ('rediss://me:pw@cache?ssl_cert_reqs=none');"
        "print(sorted({'redis', 'anyio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
