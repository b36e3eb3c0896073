"""Signing: without a key, messages on the server can be neither changed nor forged.

A sealed message is a mark, 32 bytes of HMAC-SHA256, and the original message. Besides the message
the seal covers the namespace, the purpose and the owner, so it is valid in one place only: moved to
a job with another id, or to a result in place of a job, it is broken.

The mark begins with a byte that never begins msgpack. A reader without keys can therefore tell a
sealed message from a plain one, and read it without verifying the seal.
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
_SHORTEST_KEY: Final = 32
# Above the limits of envelopes and results; verifying longer messages would cost an attack nothing.
_LONGEST: Final = 4 * 1_048_576
_MAKE_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'


class Signing:
    """The keys of one application: the first one signs, any of them verifies.

    Without `keys`, they come from the variable TASKQ_SIGNING_KEYS, separated by commas, which is
    read on first use. Without any keys nothing is signed or verified.

    Raises `ConfigError` for keys that are too short, and for an empty list or variable, which must
    not turn signing off. The message never shows a key.

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
        """Whether there are keys, so that unsigned messages are refused."""
        return bool(self._ready())

    def seal(self, data: bytes, purpose: Purpose, *whose: str) -> bytes:
        """`data` sealed for this purpose and owner; unchanged without keys."""
        keys = self._ready()
        if not keys:
            return data
        return _MARK + hmac.digest(keys[0], self._bound(data, purpose, whose), "sha256") + data

    def open(self, data: bytes, purpose: Purpose, *whose: str) -> bytes:
        """The message in `data`, after verifying its seal; without keys the seal is ignored.

        Raises `UnsignedMessage` and `ForgedMessage`.
        """
        keys = self._ready()
        if not keys:
            return unsealed(data)
        if len(data) > _LONGEST:
            raise ForgedMessage(f"the {purpose} has {len(data):,} bytes; the limit is {_LONGEST:,}")
        if not data.startswith(_MARK):
            raise UnsignedMessage(
                f"this {purpose} is not signed; its producer needs the keys: "
                f"TaskQ(signing_keys=[...]) or {ENVIRONMENT}"
            )
        seal, message = data[len(_MARK) : _HEADER], data[_HEADER:]
        bound = self._bound(message, purpose, whose)
        for key in keys:
            if hmac.compare_digest(hmac.digest(key, bound, "sha256"), seal):
                return message
        raise ForgedMessage(
            f"the seal of this {purpose} matches none of the {len(keys)} keys here: it was "
            "changed, made for another place, or signed with a key that is missing here"
        )

    def seal_job(self, job_id: str, lane: str, envelope: bytes) -> bytes:
        """The envelope of a job, sealed for its id and the queue of its lane."""
        return self.seal(envelope, "job", job_id, queue_of(lane))

    def open_job(self, job_id: str, lane: str, data: bytes) -> bytes:
        """The envelope of a delivered job; raises as `open`."""
        return self.open(data, "job", job_id, queue_of(lane))

    def _bound(self, message: bytes, purpose: Purpose, whose: Iterable[str]) -> bytes:
        # With their lengths, so that no two lists of names give the same bytes.
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
        raise TypeError("signing keys cannot be pickled or copied")


def unsealed(data: bytes) -> bytes:
    """The message in `data`, sealed or not, without verifying the seal."""
    return data[_HEADER:] if data.startswith(_MARK) else data


def _checked(what: str, keys: Sequence[str | bytes]) -> tuple[bytes, ...]:
    if isinstance(keys, (str, bytes)):
        raise ConfigError(f"{what} is a single string; use a list of keys: [{what[:-1]}]")
    if not keys:
        raise ConfigError(
            f"{what} is set but empty, which would silently turn signing off: add a key, or leave "
            f"it out if nothing is signed. To create a key: {_MAKE_ONE}"
        )
    checked: list[bytes] = []
    for number, key in enumerate(keys):
        if not isinstance(key, (str, bytes)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"{what}[{number}] is {type(key).__name__}; use text or bytes")
        # A key read from a file may end with a line feed, and is the same key.
        secret = key.strip().encode() if isinstance(key, str) else key
        if len(secret) < _SHORTEST_KEY:
            raise ConfigError(
                f"{what}[{number}] has {len(secret)} bytes; a key needs at least {_SHORTEST_KEY}. "
                f"To create one: {_MAKE_ONE}"
            )
        checked.append(secret)
    return tuple(checked)
