"""TLS as a URL asks for it: redis-py's `ssl_…` options, checked when they are read."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from taskq.core.errors import ConfigError

__all__ = ["Tls", "flag_of"]

Verify = Literal["required", "optional", "none"]

_VERIFY: Final[Mapping[str, ssl.VerifyMode]] = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
}
_TRUE, _FALSE = ("1", "t", "true", "y", "yes"), ("0", "f", "false", "n", "no")


@dataclass(frozen=True, slots=True)
class Tls:
    """What `rediss://` is to check and to show. By default certificates and names are verified.

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
        """Read options by redis-py's names; raises `ConfigError` for a value that is not one."""
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
        """The options that name files, for messages."""
        names = ("ca_certs", "ca_path", "certfile", "keyfile")
        given = {name: getattr(self, name) for name in names}
        return ", ".join(f"ssl_{n}={path!r}" for n, path in given.items() if path) or "TLS options"

    def context(self) -> ssl.SSLContext:
        """Raises `OSError` or `ssl.SSLError` for what cannot be read, and `ValueError`."""
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
    """By its number, as redis-py takes it, or by its name: `TLSv1.2`."""
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
