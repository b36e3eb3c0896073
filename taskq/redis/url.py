"""The address of a server: one frozen value, parsed from a URL, that never shows its password.

Errors do not repeat the URL: the end of an unquoted password cannot be recognized. The names of
options are redis-py's. Its parser was measured and not taken, see
docs/decisions/0009-two-libraries.md.
"""

from __future__ import annotations

import re
import shlex
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from taskq.core.errors import ConfigError, ServerUnavailable
from taskq.core.options import nearest

__all__ = ["Address", "Tls", "flag_of"]

Verify = Literal["required", "optional", "none"]

_VERIFY: Final[Mapping[str, ssl.VerifyMode]] = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS settings of `rediss://`. By default certificates and host names are verified.

    The names are those of redis-py's options, without `ssl_`.
    """

    ca_certs: str | None = None
    ca_path: str | None = None
    ca_data: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    password: str | None = field(default=None, repr=False)
    cert_reqs: Verify = "required"
    check_hostname: bool = True
    min_version: ssl.TLSVersion | None = None
    ciphers: str | None = None
    include_verify_flags: tuple[ssl.VerifyFlags, ...] = ()
    exclude_verify_flags: tuple[ssl.VerifyFlags, ...] = ()

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> Tls:
        """Read options by redis-py's names; raises `ConfigError` for an invalid value."""
        given: dict[str, Any] = {}
        for option, text in options.items():
            name = option.removeprefix("ssl_")
            try:
                given[name] = _READ.get(name, str)(text)
            except (KeyError, ValueError):
                expected = _EXPECTED.get(name, "another value")
                raise ConfigError(f"{option}={text!r} in the URL: use {expected}") from None
        return cls(**given)

    @property
    def files(self) -> str:
        """The options that name files, for error messages."""
        names = ("ca_certs", "ca_path", "certfile", "keyfile")
        given = {name: getattr(self, name) for name in names}
        return ", ".join(f"ssl_{n}={path!r}" for n, path in given.items() if path) or "TLS options"

    def context(self) -> ssl.SSLContext:
        """Raises `OSError`, `ssl.SSLError` or `ValueError` when the settings cannot be used."""
        context = ssl.create_default_context(
            cafile=self.ca_certs, capath=self.ca_path, cadata=self.ca_data
        )
        context.check_hostname = self.check_hostname and self.cert_reqs != "none"
        context.verify_mode = _VERIFY[self.cert_reqs]
        if self.certfile is not None:
            context.load_cert_chain(self.certfile, self.keyfile, self.password)
        if self.min_version is not None:
            context.minimum_version = self.min_version
        if self.ciphers is not None:
            context.set_ciphers(self.ciphers)
        for flag in self.include_verify_flags:
            context.verify_flags |= flag
        for flag in self.exclude_verify_flags:
            context.verify_flags &= ~flag
        return context


def flag_of(text: str) -> bool:
    """`true`, `yes`, `1` and their opposites; raises `ValueError` for anything else."""
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError(text)


def _verify(text: str) -> Verify:
    for known in ("required", "optional", "none"):
        if text.lower().removeprefix("cert_") == known:
            return known
    raise ValueError(text)


def _version(text: str) -> ssl.TLSVersion:
    """A version by its number, as in redis-py, or by its name: `TLSv1.2`."""
    if text.isdigit():
        return ssl.TLSVersion(int(text))
    return ssl.TLSVersion[text.replace(".", "_")]


def _flags(text: str) -> tuple[ssl.VerifyFlags, ...]:
    names = (name.strip() for name in text.strip("[]").split(","))
    return tuple(ssl.VerifyFlags[name] for name in names if name)


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "cert_reqs": _verify,
    "check_hostname": flag_of,
    "min_version": _version,
    "include_verify_flags": _flags,
    "exclude_verify_flags": _flags,
}
_EXPECTED: Final[Mapping[str, str]] = {
    "cert_reqs": "required, optional or none",
    "check_hostname": "true or false",
    "min_version": "TLSv1.2, TLSv1.3, or their numbers 771 and 772",
    "include_verify_flags": "names of ssl.VerifyFlags, such as VERIFY_X509_STRICT",
    "exclude_verify_flags": "names of ssl.VerifyFlags, such as VERIFY_X509_STRICT",
}


_FORMS: Final = "redis://host:6379/0, rediss://host:6379/0 (TLS) or unix:///path/to.sock"
_QUOTING: Final = "In a password write %2F for /, %3F for ?, %23 for # and %40 for @"
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
"""Options of redis-py's pool and replies: the same URL can configure both libraries."""

_KNOWN: Final = [*_OPTIONS, *sorted(_TLS_OPTIONS), *_WITHOUT_EFFECT]
_REASONS: Final[Mapping[str, str]] = {
    "credential_provider": "which is an object and cannot be in a URL; use "
    "TaskQ(redis.asyncio.Redis.from_url(url, credential_provider=...))",
    "host": "which belongs before the ?, as in redis://host:6379/0",
    "port": "which belongs before the ?, as in redis://host:6379/0",
    "path": "which belongs before the ?, as in unix:///path/to.sock",
}
_MEANT: Final = {"database": "db", "user": "username", "pass": "password", "cafile": "ssl_ca_certs"}


@dataclass(frozen=True, slots=True)
class Address:
    """A server to connect to.

    `path` is a unix socket; otherwise `host` and `port` are used, with TLS unless `tls` is None.
    `connect_timeout` (seconds) may shorten an attempt to connect. With `uid`, nothing is sent to a
    server of another user. `make_context` replaces the context that `tls` describes; `provider`
    gives a password, or a user and a password, for each connection.
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
    make_context: Callable[[], ssl.SSLContext] | None = None
    provider: Callable[[], Awaitable[Sequence[str]]] | None = None

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

    async def credentials(self) -> tuple[str | None, str | None]:
        """User and password for one connection; raises `ServerUnavailable` if a provider fails."""
        if self.provider is None:
            return self.username, self.password
        try:
            *user, password = await self.provider()
        except Exception as error:
            raise ServerUnavailable(f"{self}: its credential provider failed: {error!r}") from error
        return (user[0] if user else None), password

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS settings; None without TLS. Raises `ConfigError` if they cannot be used."""
        if self.tls is None:
            return None
        try:
            return (self.make_context or self.tls.context)()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self}: {self.tls.files} cannot be used: {error}") from None

    @property
    def flags(self) -> str:
        """Options of `valkey-cli` and `redis-cli` for this server; these ask for the password."""
        if self.path is not None:
            words = ["-s", self.path]
        else:
            words = ["-h", self.host, "-p", str(self.port)]
        if self.tls is not None:
            words += ["--tls", *(["--cacert", self.tls.ca_certs] if self.tls.ca_certs else [])]
        if self.username:
            words += ["--user", self.username]
        if self.password is not None or self.provider is not None:
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
            what = f"has the scheme {scheme!r}, which taskq does not support"
        raise ConfigError(f"the server's URL {what}; use {_FORMS}")
    _refuse_unquoted(scheme, rest)
    try:
        return urlsplit(f"{scheme}://{rest}")
    except ValueError:
        raise _unusable(
            scheme,
            "is invalid; use redis://host:6379/0, and in a password write %5B and %5D for [ and ]",
        ) from None


def _refuse_unquoted(scheme: str, rest: str) -> None:
    """Refuse characters that would end the host early, and so connect to another one."""
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
    """The parsed options by name; those without an effect are only checked."""
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
            raise _unusable(scheme, f"has an invalid value for {name}") from None
    if options.get("protocol", 3) != 3:
        raise _unusable(scheme, "asks for another protocol than 3, which taskq requires")
    return options


def _unknown(scheme: str, name: str, *, secret: bool) -> ConfigError:
    if secret:
        # The name may be part of an unquoted password, and is not shown.
        return _unusable(
            scheme,
            "has an unknown option; in a password write %26 for &. The options are "
            f"{', '.join(sorted(_OPTIONS))} and those with ssl_",
        )
    if name in _REASONS:
        return _unusable(scheme, f"has the option {name}, {_REASONS[name]}")
    meant = _MEANT.get(name)
    hint = f"; did you mean {meant!r}?" if meant else nearest(name, _KNOWN)
    return _unusable(scheme, f"has no option {name!r}{hint}")


def _socket(parts: SplitResult) -> str:
    if (not parts.netloc.endswith("@") and parts.netloc) or not parts.path.startswith("/"):
        raise _unusable(
            "unix",
            "does not name a socket; use unix:///path/to.sock, and in a password write %2F for /",
        )
    return unquote(parts.path)


def _database(parts: SplitResult, options: Mapping[str, str]) -> int:
    path, option = unquote(parts.path).strip("/"), options.get("db", "")
    if path and option and path != option:
        raise _unusable(parts.scheme, "names two databases, in its path and as db=; leave one out")
    return _number(path or option or "0")


def _number(text: str) -> int:
    # The text is not shown: it may be part of an unquoted password.
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(
            "the database in the server's URL is not a number; use /0 or ?db=0, for example. "
            f"{_QUOTING}"
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
            f"has a port that is not a number from 1 to 65535. {_QUOTING}",
        )
    return port


def _unusable(scheme: str, why: str) -> ConfigError:
    return ConfigError(f"the server's URL ({scheme}://…) {why}")
