"""Where the server is: one frozen value parsed from a URL, that never shows its password.

What is wrong with a URL is said without repeating it: where a password was not quoted, nobody can
tell where it ends.
"""

from __future__ import annotations

import re
import shlex
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from taskq.broker.tls import Tls, flag_of
from taskq.core.errors import ConfigError
from taskq.core.options import nearest

__all__ = ["Address"]

_FORMS: Final = "redis://host:6379/0, rediss://host:6379/0 (TLS) or unix:///path/to.sock"
_TLS_OPTIONS: Final = frozenset(f"ssl_{option.name}" for option in fields(Tls))

_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": str,
    "username": str,
    "password": str,
    "socket_connect_timeout": float,
    "socket_keepalive": flag_of,
}
_WITHOUT_EFFECT: Final[Mapping[str, Callable[[str], Any]]] = {
    "client_name": str,
    "decode_responses": flag_of,
    "encoding": str,
    "encoding_errors": str,
    "health_check_interval": float,
    "legacy_responses": flag_of,
    "lib_name": str,
    "lib_version": str,
    "max_connections": int,
    "protocol": int,
    "retry_on_timeout": flag_of,
    "socket_read_size": int,
    "socket_timeout": float,
    "timeout": float,
}
"""What redis-py takes for its pool and its replies: an address may serve both."""

_KNOWN: Final = [*_OPTIONS, *sorted(_TLS_OPTIONS), *_WITHOUT_EFFECT]
_MEANT: Final = {"database": "db", "user": "username", "pass": "password", "cafile": "ssl_ca_certs"}


@dataclass(frozen=True, slots=True)
class Address:
    """A server to connect to.

    `path` is a unix socket; otherwise `host` and `port` are used, with TLS unless `tls` is None.
    `connect_timeout` (seconds) may shorten an attempt to connect. With `uid` nothing is said to a
    server of another user.
    """

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    connect_timeout: float | None = None
    keepalive: bool = False
    uid: int | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Read `redis://[user:password@]host:port/db`, `rediss://…` or `unix:///path?db=0`.

        Options are those of redis-py's `from_url`.

        >>> Address.parse("redis://:secret@cache:6380/2")
        Address(redis://cache:6380/2)
        """
        parts = _split(url.strip())
        options = _options(parts)
        user = unquote(parts.username) if parts.username else options.get("username")
        password = unquote(parts.password) if parts.password else options.get("password")
        common: dict[str, Any] = {
            "username": user or None,
            "password": password or None,
            "connect_timeout": options.get("socket_connect_timeout"),
            "keepalive": options.get("socket_keepalive", False),
        }
        if parts.scheme == "unix":
            database = _number(options.get("db") or "0")
            return cls(path=_socket(parts), database=database, **common)
        tls = {name: value for name, value in options.items() if name in _TLS_OPTIONS}
        return cls(
            host=unquote(parts.hostname or "localhost"),
            port=_port(parts),
            database=_database(parts, options),
            tls=Tls.parse(tls) if parts.scheme == "rediss" else None,
            **common,
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS settings; None without TLS."""
        if self.tls is None:
            return None
        try:
            return self.tls.context()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self}: {self.tls.files} cannot be used: {error}") from None

    @property
    def flags(self) -> str:
        """What `valkey-cli` and `redis-cli` need to reach it; they ask for the password."""
        if self.path is not None:
            words = ["-s", self.path]
        else:
            words = ["-h", self.host, "-p", str(self.port)]
        if self.tls is not None:
            words += ["--tls", *(["--cacert", self.tls.ca_certs] if self.tls.ca_certs else [])]
        if self.username:
            words += ["--user", self.username]
        if self.password is not None:
            words.append("--askpass")
        return shlex.join(words)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}" + (f"?db={self.database}" if self.database else "")
        scheme = "redis" if self.tls is None else "rediss"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Address({self})"


def _split(url: str) -> SplitResult:
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("redis", "rediss", "unix"):
        what = "has no scheme"
        if separator and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
            what = f"has the scheme {scheme!r}, which taskq does not know"
        raise ConfigError(f"the server's URL {what}; type {_FORMS}")
    _refuse_unquoted(scheme, rest)
    try:
        return urlsplit(f"{scheme}://{rest}")
    except ValueError:
        raise _unusable(
            scheme,
            "is not a URL; type redis://host:6379/0, and %5B and %5D for [ and ] in a password",
        ) from None


def _refuse_unquoted(scheme: str, rest: str) -> None:
    """Refuse what ends the host early, and would connect to another one."""
    if "#" in rest:
        raise _unusable(scheme, "has an unquoted '#'; in a user or password write %23 for it")
    if re.search(r"[\x00-\x1f\x7f]", rest):
        raise _unusable(scheme, "has a control character, such as a line break, inside")
    ends = re.search(r"[/?]", rest)
    if ends is None or scheme == "unix":
        return
    found, behind = ends.group(), rest[ends.start() + 1 :]
    path, _, query = behind.partition("?") if found == "/" else ("", "", behind)
    if "@" in path or ("@" in query and query.partition("=")[0] not in _KNOWN):
        quoted = {"/": "%2F", "?": "%3F"}[found]
        raise _unusable(
            scheme,
            f"has an unquoted {found!r} before its @; in a user or password write {quoted} for it",
        )


def _options(parts: SplitResult) -> dict[str, Any]:
    """The options by name, read; those without an effect are only checked."""
    scheme, given = parts.scheme, parse_qs(parts.query, keep_blank_values=True)
    options: dict[str, Any] = {}
    for name, values in given.items():
        if name not in _KNOWN:
            raise _unknown(scheme, name, secret="password" in given)
        if len(values) > 1:
            raise _unusable(scheme, f"has the option {name} twice; give it once")
        if name in _TLS_OPTIONS and scheme != "rediss":
            raise _unusable(scheme, f"has {name}, which is for rediss:// (TLS)")
        read = _OPTIONS.get(name) or _WITHOUT_EFFECT.get(name, str)
        try:
            options[name] = read(values[0])
        except ValueError:
            raise _unusable(scheme, f"has a value of {name} that is not one") from None
    if options.get("protocol", 3) != 3:
        raise _unusable(scheme, "wants another protocol than 3, the one taskq speaks")
    return options


def _unknown(scheme: str, name: str, *, secret: bool) -> ConfigError:
    if secret:
        # Behind a password nobody knows whether it is a part of it.
        return _unusable(
            scheme,
            "has an option that taskq does not know; in a password write %26 for &. There "
            f"are {', '.join(sorted(_OPTIONS))}, and ssl_ options",
        )
    meant = _MEANT.get(name)
    hint = f"; did you mean {meant!r}?" if meant else nearest(name, _KNOWN)
    return _unusable(scheme, f"has no option {name!r}{hint}")


def _socket(parts: SplitResult) -> str:
    if (not parts.netloc.endswith("@") and parts.netloc) or not parts.path.startswith("/"):
        raise _unusable(
            "unix", "names no socket; type unix:///path/to.sock, and in a password %2F for /"
        )
    return unquote(parts.path)


def _database(parts: SplitResult, options: Mapping[str, str]) -> int:
    path, option = unquote(parts.path).strip("/"), options.get("db", "")
    if path and option and path != option:
        raise _unusable(parts.scheme, "names two databases, in its path and as db=; leave one out")
    return _number(path or option or "0")


def _number(text: str) -> int:
    # The text is not shown: where a password was not quoted, it is a part of it.
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            "the database in the server's URL is not a number; type one, such as /0 or ?db=0. In a "
            "password write %2F for /, %3F for ?, %23 for # and %40 for @"
        )
    return int(text)


def _port(parts: SplitResult) -> int:
    try:
        port = 6379 if parts.port is None else parts.port
    except ValueError:
        port = 0
    if not port:
        raise _unusable(
            parts.scheme,
            "has a port that is not a number from 1 to 65535. In a password write "
            "%2F for /, %3F for ?, %23 for # and %40 for @",
        )
    return port


def _unusable(scheme: str, why: str) -> ConfigError:
    return ConfigError(f"the server's URL ({scheme}://…) {why}")
