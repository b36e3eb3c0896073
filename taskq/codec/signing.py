"""Signing: who has no key can neither change nor make up what travels through the server.

A sealed message is a mark, 32 bytes of HMAC-SHA256, and the message as it was. The seal covers the
namespace, what the message is for and whose it is besides its bytes, so that it holds for one place
only: on a job of another id, or on a result where a job is wanted, it is broken.

The mark begins with a byte that begins no msgpack. So whoever has no keys can tell a sealed message
from a plain one, and read it without a look at its seal.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from taskq.core.errors import ConfigError, ForgedMessage, UnsignedMessage
from taskq.core.job import queue_of

__all__ = ["ENVIRONMENT", "Purpose", "Signing", "unsealed"]

ENVIRONMENT: Final = "TASKQ_SIGNING_KEYS"

Purpose = Literal["job", "result", "schedule"]

_MARK: Final = b"\xc1\x01"
_HEADER: Final = len(_MARK) + 32
_LEAST_KEY: Final = 32
# Over the limits of envelopes and results; the time to look at a longer one would be the attack.
_MOST: Final = 4 * 1_048_576
_MAKE_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class Signing:
    """The keys of one application: the first one signs, any of them verifies.

    Where no keys are configured nothing is signed and nothing is verified. Without `keys` they are
    those in the environment's TASKQ_SIGNING_KEYS, separated by commas, read when first needed.

    Raises `ConfigError` for keys that are too short, and for a list or a variable that is there and
    holds none: that must not turn signing off. The message never shows a key.

    >>> signing = Signing("shop", ["0123456789" * 4])
    >>> signing.open(signing.seal(b"hello", "job", "id", "default"), "job", "id", "default")
    b'hello'
    """

    __slots__ = ("_keys", "_namespace")

    def __init__(self, namespace: str, keys: Sequence[str | bytes] | None = None) -> None:
        self._namespace = namespace
        self._keys = None if keys is None else _checked("signing_keys", keys)

    @property
    def enabled(self) -> bool:
        """Whether there are keys: what is unsigned is refused then."""
        return bool(self._ready())

    def seal(self, data: bytes, purpose: Purpose, *whose: str) -> bytes:
        """`data` sealed for this purpose and owner; without keys `data` as it is."""
        keys = self._ready()
        if not keys:
            return data
        return _MARK + hmac.digest(keys[0], self._bound(data, purpose, whose), "sha256") + data

    def open(self, data: bytes, purpose: Purpose, *whose: str) -> bytes:
        """The message in `data`, once its seal is verified; without keys that is not looked at.

        Raises `UnsignedMessage` and `ForgedMessage`.
        """
        keys = self._ready()
        if not keys:
            return unsealed(data)
        if len(data) > _MOST:
            raise ForgedMessage(f"a {purpose} of {len(data):,} bytes; none has over {_MOST:,}")
        if not data.startswith(_MARK):
            raise UnsignedMessage(
                f"this {purpose} is not signed; whatever made it needs the keys: "
                f"TaskQ(signing_keys=[...]) or {ENVIRONMENT}"
            )
        seal, message = data[len(_MARK) : _HEADER], data[_HEADER:]
        bound = self._bound(message, purpose, whose)
        for key in keys:
            if hmac.compare_digest(hmac.digest(key, bound, "sha256"), seal):
                return message
        raise ForgedMessage(
            f"the seal of this {purpose} fits none of the {len(keys)} keys here: it was changed on "
            "its way, made for another place, or signed with a key that is missing here"
        )

    def seal_job(self, job_id: str, lane: str, envelope: bytes) -> bytes:
        """The envelope of a job, sealed for its id and the queue of its lane."""
        return self.seal(envelope, "job", job_id, queue_of(lane))

    def open_job(self, job_id: str, lane: str, data: bytes) -> bytes:
        """The envelope of a job that was handed out; raises as `open`."""
        return self.open(data, "job", job_id, queue_of(lane))

    def _bound(self, message: bytes, purpose: Purpose, whose: Iterable[str]) -> bytes:
        # Each with its length: no two lists of names give the same bytes.
        names = [
            name.encode("utf-8", "backslashreplace") for name in (self._namespace, purpose, *whose)
        ]
        lengths = " ".join(str(len(name)) for name in names)
        return b"".join((b"taskq 1 ", lengths.encode(), b"\n", *names, message))

    def _ready(self) -> tuple[bytes, ...]:
        if self._keys is None:
            given = os.environ.get(ENVIRONMENT)
            texts = None if given is None else [text for text in given.split(",") if text.strip()]
            self._keys = () if texts is None else _checked(ENVIRONMENT, texts)
        return self._keys

    def __repr__(self) -> str:
        return f"Signing({self._namespace!r}, {len(self._keys or ())} keys)"

    def __reduce__(self) -> str:
        raise TypeError("signing keys are not copied out of their process")


def unsealed(data: bytes) -> bytes:
    """The message in `data`, sealed or not; the seal is not looked at."""
    return data[_HEADER:] if data.startswith(_MARK) else data


def _checked(what: str, keys: Sequence[str | bytes]) -> tuple[bytes, ...]:
    if isinstance(keys, (str, bytes)):
        raise ConfigError(f"{what} is one text; use a list of keys: [{what[:-1]}]")
    if not keys:
        raise ConfigError(
            f"{what} is set and holds no key, which would turn signing off unnoticed: give it one, "
            f"or leave it out where nothing is signed. Make one: {_MAKE_ONE}"
        )
    checked: list[bytes] = []
    for number, key in enumerate(keys):
        if not isinstance(key, (str, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"{what}[{number}] is {type(key).__name__}; use text or bytes")
        # A key that was read from a file ends with a line feed, and is the same key.
        secret = key.strip().encode() if isinstance(key, str) else key
        if len(secret) < _LEAST_KEY:
            raise ConfigError(
                f"{what}[{number}] has {len(secret)} bytes; a key has at least {_LEAST_KEY}. Make "
                f"one: {_MAKE_ONE}"
            )
        checked.append(secret)
    return tuple(checked)
