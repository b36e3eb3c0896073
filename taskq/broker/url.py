"""Where the server is: one frozen value parsed from a URL, that never shows its password."""

from __future__ import annotations

import shlex
import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from taskq.core.errors import ConfigError

__all__ = ["Address"]

_SCHEMES = ("redis", "rediss", "unix")


@dataclass(frozen=True, slots=True)
class Address:
    """A server to connect to.

    `path` is a unix socket; otherwise `host` and `port` are used, with TLS when `tls` is true. With
    `uid` nothing is said to a server of another user.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    uid: int | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `redis://[user:password@]host:port/db`, `rediss://…` or `unix:///path?db=0`.

        >>> Address.parse("redis://:secret@cache:6380/2")
        Address(redis://cache:6380/2)
        """
        parts = _split(url)
        if parts.scheme not in _SCHEMES:
            raise ConfigError(
                f"{_shown(url)!r} has the scheme {parts.scheme!r}, which taskq does not know; "
                "type redis://host:6379/0, rediss://host:6379/0 (TLS) or unix:///path/to.sock"
            )
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        user = unquote(parts.username) if parts.username else query.get("username")
        password = unquote(parts.password) if parts.password else query.get("password")
        if parts.scheme == "unix":
            return cls(
                path=_socket(url, parts),
                database=_number(url, "db", query.get("db", "0")),
                username=user,
                password=password,
            )
        return cls(
            host=parts.hostname or "localhost",
            port=_port(url),
            database=_number(url, "database", parts.path.strip("/") or query.get("db", "0")),
            username=user,
            password=password,
            tls=parts.scheme == "rediss",
            ca_file=query.get("ssl_ca_certs"),
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS settings: certificates and host names are verified; None without TLS."""
        if not self.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigError(
                f"{self}: ssl_ca_certs={self.ca_file!r} cannot be read: {error}"
            ) from None

    @property
    def flags(self) -> str:
        """What `valkey-cli` and `redis-cli` need to reach it; they ask for the password."""
        if self.path is not None:
            words = ["-s", self.path]
        else:
            words = ["-h", self.host, "-p", str(self.port)]
        if self.tls:
            words += ["--tls", *(["--cacert", self.ca_file] if self.ca_file else [])]
        if self.username:
            words += ["--user", self.username]
        if self.password is not None:
            words.append("--askpass")
        return shlex.join(words)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}" + (f"?db={self.database}" if self.database else "")
        scheme = "rediss" if self.tls else "redis"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Address({self})"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ConfigError(f"{_shown(url)!r} is no URL; type redis://host:6379/0") from None


def _socket(url: str, parts: SplitResult) -> str:
    if parts.hostname or not parts.path.startswith("/"):
        raise ConfigError(f"{_shown(url)!r} names no socket; type unix:///path/to.sock")
    return unquote(parts.path)


def _number(url: str, what: str, text: str) -> int:
    # The text is not shown: where a password was not quoted, it is a part of it.
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            f"{_shown(url)!r}: the {what} is no number; type one, such as /0. In a password type "
            "%2F for /, %3F for ?, %23 for # and %40 for @"
        )
    return int(text)


def _port(url: str) -> int:
    try:
        return urlsplit(url).port or 6379
    except ValueError:
        raise ConfigError(f"{_shown(url)!r}: the port is no number from 1 to 65535") from None


def _shown(url: str) -> str:
    """The URL without its user and its query, where passwords stand."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    place, _, query = rest.partition("?")
    if "@" in query:
        # A password that was not quoted: nobody can tell where it ends.
        return f"{scheme}{separator}..."
    return scheme + separator + place.rpartition("@")[2]
