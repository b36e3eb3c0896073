"""Where the server is: every form of URL, and passwords that never show."""

from __future__ import annotations

import ssl
import string
import traceback
from collections.abc import Mapping
from contextlib import nullcontext
from inspect import Parameter, signature
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from redis.asyncio.connection import (
    URL_QUERY_ARGUMENT_PARSERS,
    BlockingConnectionPool,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)

from taskq.core.errors import ConfigError
from taskq.redis.url import Address, Tls
from tests.support.tls import CERTIFICATE

ANY_TIME = settings(deadline=None, max_examples=300)
SECRET = "hunter2correcthorse"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", Address()),
        ("redis://", Address()),
        ("redis://cache:6380/2", Address(host="cache", port=6380, database=2)),
        ("redis://cache/", Address(host="cache")),
        ("redis://cache?db=3", Address(host="cache", database=3)),
        ("redis://10.0.0.1:7000", Address(host="10.0.0.1", port=7000)),
        ("redis://[::1]:7000/1", Address(host="::1", port=7000, database=1)),
        ("redis://:pw@cache", Address(host="cache", password="pw")),
        ("redis://me@cache", Address(host="cache", username="me")),
        ("redis://me:pw@cache:1/9", Address("cache", 1, None, 9, "me", "pw")),
        (
            "redis://me:p%40%2F%3A%23w@cache",
            Address(host="cache", username="me", password="p@/:#w"),
        ),
        ("redis://cache?username=me&password=pw", Address("cache", username="me", password="pw")),
        ("rediss://cache", Address(host="cache", tls=Tls())),
        (
            "rediss://cache:6380?ssl_ca_certs=/etc/ca.pem",
            Address(host="cache", port=6380, tls=Tls(ca_certs="/etc/ca.pem")),
        ),
        ("unix:///run/valkey.sock", Address(path="/run/valkey.sock")),
        ("unix:///run/my%20dir/s?db=4", Address(path="/run/my dir/s", database=4)),
        ("unix://me:pw@/run/s", Address(path="/run/s", username="me", password="pw")),
        ("unix:///run/s?password=pw", Address(path="/run/s", password="pw")),
        ("REDIS://Cache", Address(host="cache")),
    ],
)
def test_every_form_of_url(url: str, expected: Address) -> None:
    assert Address.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "flags"),
    [
        ("redis://localhost", "-h localhost -p 6379"),
        ("redis://cache:6380/2", "-h cache -p 6380"),
        ("redis://ada:secret@cache", "-h cache -p 6379 --user ada --askpass"),
        ("redis://:secret@cache", "-h cache -p 6379 --askpass"),
        ("rediss://cache?ssl_ca_certs=/etc/ca.pem", "-h cache -p 6379 --tls --cacert /etc/ca.pem"),
        ("unix:///run/my%20valkey.sock", "-s '/run/my valkey.sock'"),
    ],
)
def test_a_shell_reaches_it_with_these_flags(url: str, flags: str) -> None:
    assert Address.parse(url).flags == flags


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:pw@cache:6380/2", "redis://cache:6380/2"),
        ("rediss://cache", "rediss://cache:6379/0"),
        ("redis://[::1]:7000/1", "redis://[::1]:7000/1"),
        ("unix:///run/s", "unix:///run/s"),
        ("unix:///run/s?db=4&password=pw", "unix:///run/s?db=4"),
    ],
)
def test_an_address_is_shown_as_a_url_without_its_password(url: str, shown: str) -> None:
    address = Address.parse(url)

    assert str(address) == shown
    assert repr(address) == f"Address({shown})"
    without = Address.parse(shown)
    assert (without.host, without.port, without.path, without.database, without.tls) == (
        address.host,
        address.port,
        address.path,
        address.database,
        address.tls,
    )


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    "url", ["http://cache", "cache:6379", "localhost", "", "redis", "valkey+x://h", "/run/s"]
)
def test_another_scheme_is_refused_with_what_to_type(url: str) -> None:
    with pytest.raises(ConfigError, match=r"use redis://host:6379/0, rediss://.* or unix:///path"):
        Address.parse(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://cache:port", "a port that is not a number from 1 to 65535"),
        ("redis://cache:0", "a port that is not a number from 1 to 65535"),
        ("redis://cache/1?db=2", "names two databases"),
        ("redis://cache?db=1&db=2", "has the option db twice"),
        ("redis://cache?protocol=2", "another protocol than 3"),
        ("redis://cache?socket_keepalive=maybe", "an invalid value for socket_keepalive"),
        ("redis://ca\nche", "a line break, inside"),
        ("redis://cache?ssl_ca_certs=/ca.pem", "ssl_ca_certs, which is for rediss://"),
        ("rediss://cache?ssl_cert_reqs=perhaps", "use required, optional or none"),
        ("rediss://cache?ssl_min_version=1", "use TLSv1.2, TLSv1.3"),
        ("redis://cache:70000", "a port that is not a number from 1 to 65535"),
        ("redis://cache/tasks", "database"),
        ("redis://cache/-1", "database"),
        ("redis://cache/²", "database"),
        ("redis://cache/1/2", "database"),
        ("unix:///run/s?db=x", "db"),
        ("redis://[::1", "is invalid; use redis://host:6379/0"),
        ("unix://run/s", "unix:///"),
        ("unix://", "unix:///"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Address.parse(url)


@pytest.mark.parametrize("char", "#?/")
@pytest.mark.parametrize(
    "url",
    ["redis://:{}pw@cache:6380/2", "redis://:p{}w@cache:6380/2", "rediss://me:12{}w@cache"],
)
def test_an_unquoted_character_is_refused_with_what_to_write(url: str, char: str) -> None:
    # Else the host would end there, and another server be connected to
    with pytest.raises(ConfigError, match=f"write {quote(char, safe='')} for it"):
        Address.parse(url.format(char))


def test_what_looks_like_one_and_is_not_is_read() -> None:
    assert Address.parse("redis://cache?password=p@w").password == "p@w"
    assert Address.parse("redis://:p@w@cache").password == "p@w"
    assert Address.parse("unix://me:pw@/run/s") == Address(
        path="/run/s", username="me", password="pw"
    )
    assert Address.parse("unix:///run/a@b/s").path == "/run/a@b/s"
    assert Address.parse(" redis://cache\n") == Address(host="cache")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://cache?database=3", "no option 'database'; did you mean 'db'"),
        ("redis://cache?socket_keepaliv=1", "did you mean 'socket_keepalive'"),
        ("rediss://cache?ssl_cert_req=none", "did you mean 'ssl_cert_reqs'"),
        ("rediss://cache?ssl_ca_cert=/x", "did you mean 'ssl_ca_certs'"),
        ("unix:///run/s?user=me", "did you mean 'username'"),
        ("redis://cache?password=a&b", "in a password write %26 for &"),
        ("redis://cache?credential_provider=x", "which is an object .* use .*from_url"),
        ("redis://?host=cache", "which belongs before the ?"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_one(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Address.parse(url)


# ------------------------------------------------------------------------------- beside redis-py


def known_to(kind: type) -> set[str]:
    """The parameters of a class of redis-py, those of its bases among them."""
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    every = {name: p for base in kind.__mro__ for name, p in parameters(base).items()}
    return {name for name, p in every.items() if p.kind in named} - {"self"}


def parameters(kind: type) -> Mapping[str, Parameter]:
    return signature(kind.__init__).parameters if "__init__" in vars(kind) else {}


VALUES = {
    "ssl_cert_reqs": "required",
    "ssl_check_hostname": "true",
    "ssl_min_version": "771",
    "ssl_include_verify_flags": "VERIFY_X509_STRICT",
    "ssl_exclude_verify_flags": "[VERIFY_X509_STRICT, VERIFY_X509_PARTIAL_CHAIN]",
    "protocol": "3",
}
TEXTS = sorted(
    {*URL_QUERY_ARGUMENT_PARSERS, "client_name", "username", "password", "decode_responses"}
    | {"encoding", "encoding_errors", "lib_name", "lib_version"}
    | {name for name in signature(SSLConnection).parameters if name.startswith("ssl_")}
)
"""The options of redis-py that a URL can hold."""

TYPES = (Connection, SSLConnection, UnixDomainSocketConnection, ConnectionPool)
ALL = sorted(
    {name for kind in (*TYPES, BlockingConnectionPool) for name in known_to(kind)} | set(TEXTS)
)


@pytest.mark.parametrize("option", TEXTS)
def test_every_option_that_a_url_can_hold_is_accepted(option: str) -> None:
    value = VALUES.get(option, "1")
    parse_url(f"rediss://cache?{option}={value}")

    assert Address.parse(f"rediss://cache?{option}={value}").host == "cache"


@pytest.mark.parametrize("option", ALL)
def test_every_option_of_redis_py_is_accepted_or_refused_with_a_reason(option: str) -> None:
    reason = rf"{option!r}; (did you mean|known are)|{option}, which (is an object|belongs)"
    refusal = pytest.raises(ConfigError, match=reason)

    with nullcontext() if option in TEXTS else refusal:
        Address.parse(f"rediss://cache?{option}={VALUES.get(option, '1')}")


WORD = st.text(string.ascii_letters + string.digits + ":/?#@%&=[]!$ ", min_size=1, max_size=12)


@given(WORD | st.none(), WORD | st.none(), st.sampled_from(["userinfo", "query"]))
@ANY_TIME
def test_user_password_and_place_are_those_redis_py_reads(
    user: str | None, password: str | None, where: str
) -> None:
    shown = {
        name: quote(value, safe="")
        for name, value in (("username", user), ("password", password))
        if value is not None
    }
    url = "redis://cache:6380/2?" + "&".join(f"{name}={value}" for name, value in shown.items())
    if where == "userinfo" and shown:
        pair = shown.get("username", "") + (f":{shown['password']}" if password else "")
        url = f"redis://{pair}@cache:6380/2"

    address, expected = Address.parse(url), parse_url(url)

    assert (address.host, address.port, address.database) == ("cache", 6380, expected["db"])
    assert address.username == expected.get("username")
    assert address.password == expected.get("password")


@given(st.text(max_size=60) | st.text(":/@?#[]redis.x1%&=", max_size=40).map("redis://".__add__))
@example("redis://[")
@example("unix://[x]y/s")
@ANY_TIME
def test_any_text_is_an_address_or_an_error_of_the_configuration(url: str) -> None:
    try:
        str(Address.parse(url))
    except ConfigError:
        return


# -------------------------------------------------------------------------------------- passwords


@given(st.text(string.printable + "äß€", min_size=1, max_size=30))
@ANY_TIME
def test_any_password_can_be_written(password: str) -> None:
    address = Address.parse(f"redis://me:{quote(password, safe='')}@cache/1")

    assert address.password == password
    assert (address.username, address.host, address.database) == ("me", "cache", 1)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{SECRET}@cache/1",
        f"redis://:{SECRET}@cache",
        f"redis://cache?password={SECRET}",
        f"unix:///run/s?password={SECRET}",
        f"unix://me:{SECRET}@/run/s?db=x",
        f"http://me:{SECRET}@cache",
        f"http://cache?password={SECRET}",
        f"redis://me:{SECRET}@cache:port",
        f"redis://me:{SECRET}@cache:99999/0",
        f"redis://me:{SECRET}@cache/x",
        f"redis://cache/x?password={SECRET}",
        f"redis://cache:x?password={SECRET}",
        f"redis://me:{SECRET}@[::1",
        f"redis://me:12/{SECRET}@cache/1",
        f"redis://me:12?{SECRET}@cache/1",
        f"redis://me:12#{SECRET}@cache/1",
        f"redis://me:@{SECRET}@cache/1",
        f"redis://me:://{SECRET}@cache/x",
        f"http://cache?password=@{SECRET}",
        f"me:{SECRET}@cache:6379",
        f"{SECRET}@cache",
        f"redis://:{SECRET}",
        f"unix://:12/{SECRET}@/run/s",
        f"redis://cache?password=a&{SECRET}",
    ],
)
def test_a_password_never_shows(url: str) -> None:
    assert SECRET not in shown(url)


def shown(url: str) -> str:
    """All that is ever printed of a URL."""
    try:
        address = Address.parse(url)
    except ConfigError as error:
        return "".join(traceback.format_exception(error)[-1:])
    return f"{address} {address!r}"


@given(st.text(string.ascii_letters + string.digits + ":/?#@[]%&=", max_size=12))
@ANY_TIME
def test_not_even_one_that_should_have_been_quoted(junk: str) -> None:
    assume("%" not in junk)

    assert SECRET not in shown(f"redis://me:{junk}{SECRET}@cache/1")


# -------------------------------------------------------------------------------------------- TLS


def test_certificates_and_names_are_verified() -> None:
    context = Address.parse("rediss://cache").ssl_context()

    assert context is not None
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"


def test_what_is_verified_can_be_chosen() -> None:
    def context(options: str) -> ssl.SSLContext:
        found = Address.parse(f"rediss://cache?{options}").ssl_context()
        assert found is not None
        return found

    unverified = context("ssl_cert_reqs=none")
    assert (unverified.verify_mode, unverified.check_hostname) == (ssl.CERT_NONE, False)
    nameless = context("ssl_check_hostname=false")
    assert (nameless.verify_mode, nameless.check_hostname) == (ssl.CERT_REQUIRED, False)
    assert context("ssl_min_version=TLSv1.3").minimum_version is ssl.TLSVersion.TLSv1_3
    assert context("ssl_min_version=772").minimum_version is ssl.TLSVersion.TLSv1_3
    strict = context("ssl_include_verify_flags=VERIFY_X509_STRICT")
    assert strict.verify_flags & ssl.VerifyFlags.VERIFY_X509_STRICT
    loose = context("ssl_exclude_verify_flags=VERIFY_X509_TRUSTED_FIRST")
    assert not loose.verify_flags & ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST
    data = quote(CERTIFICATE.read_text())
    assert len(context(f"ssl_ca_data={data}").get_ca_certs()) == 1
    assert [cipher["name"] for cipher in context("ssl_ciphers=AES256-SHA").get_ciphers()][-1] == (
        "AES256-SHA"
    )


def test_a_client_certificate_is_shown() -> None:
    key = CERTIFICATE.with_suffix(".key")

    url = f"rediss://cache?ssl_certfile={CERTIFICATE}&ssl_keyfile={key}"
    assert Address.parse(url).ssl_context() is not None
    with pytest.raises(ConfigError, match=f"ssl_keyfile='{CERTIFICATE}' cannot be used"):
        Address.parse(f"{url}.absent".replace(f"{key}.absent", str(CERTIFICATE))).ssl_context()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_file_that_is_not_there_is_named(option: str) -> None:
    with pytest.raises(ConfigError, match="/nowhere"):
        Address.parse(f"rediss://cache?{option}=/nowhere").ssl_context()


def test_without_tls_there_are_no_settings_for_it() -> None:
    assert Address.parse("redis://cache").ssl_context() is None
    assert Address.parse("unix:///run/s").ssl_context() is None
