"""The definition of a schedule, and its bytes, which are opaque to the server's scripts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgpack

from taskq.broker.schedule_record import StoredSchedule
from taskq.codec.envelope import pack_envelope
from taskq.codec.payload import check_record
from taskq.core.durations import in_zone
from taskq.core.errors import ConfigError, DecodeError
from taskq.core.job import Fire, lane_of
from taskq.core.retry import Retry
from taskq.schedules.policy import Policy
from taskq.triggers.packing import pack_trigger, unpack_trigger
from taskq.triggers.trigger import Trigger

__all__ = ["Spec", "from_ms", "spec_of", "to_ms"]

VERSION: Final = 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_TRIES: Final = 100
_MOST_BYTES: Final = 4 * 1_048_576
_MOST_VALUES: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A schedule without its state: what to run, when, and under which options.

    `payload` holds the encoded arguments. `since` is the first fire time it may make (ms): its seal
    covers no earlier fire. `executor` is that of the task, empty for the event loop. `declared` is
    the module that declares it and `fingerprint` a digest of the declared content; schedules added
    at run time have no `declared`.
    """

    task: str
    payload: bytes
    trigger: Trigger
    queue: str
    priority: int
    policy: Policy = field(default_factory=Policy)
    timeout: float | None = None
    result_ttl: float | None = None
    retry: Retry | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    expires: float | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    since: int | None = None
    executor: str = ""
    declared: str = ""
    fingerprint: str = ""

    @property
    def lane(self) -> str:
        """The lane of its jobs."""
        return lane_of(self.queue, self.priority, self.executor or "loop")

    @property
    def jitter_ms(self) -> int:
        """The longest random delay of a fire."""
        jitter = self.policy.jitter
        return int((self.trigger.jitter if jitter is None else jitter) * 1000)

    @property
    def expires_after(self) -> str:
        """When its jobs expire, in the form that the scripts take."""
        return "" if self.expires is None else f"+{int(self.expires * 1000)}"

    def envelope(self, schedule: str, slot: int, *, by_hand: bool = False) -> bytes:
        """The envelope of the job of one fire."""
        return pack_envelope(
            self.task,
            self.payload,
            timeout=self.timeout,
            result_ttl=self.result_ttl,
            retry=self.retry,
            headers=self.headers,
            fire=Fire(schedule, slot, by_hand, self._zone(slot)),
        )

    def fire_time(self, slot: int) -> datetime:
        """A fire time in the time zone of the trigger."""
        return in_zone(from_ms(slot), self._zone(slot))

    def _zone(self, slot: int) -> str:
        try:
            return self.trigger.zone(from_ms(slot))
        except ConfigError:  # a part of a combination that cannot be computed
            return ""

    def begin(self, now: int) -> int | None:
        """The first fire time of a schedule added at `now`, or None."""
        start = self.policy.start
        if start is not None and start > now:
            return self.following(start - 1)
        return self._bounded(self.trigger.begin(from_ms(now)))

    def gives(self, slot: int) -> bool:
        """Whether this is one of its fire times.

        Asks the trigger, which is sealed, and not the server.
        """
        return (self.since is None or slot >= self.since) and self.following(slot - 1) == slot

    def following(self, slot: int) -> int | None:
        """The first fire time after `slot`, or None."""
        if self.policy.start is not None:
            slot = max(slot, self.policy.start - 1)
        after = from_ms(slot)
        for _ in range(_TRIES):
            fire = self.trigger.next(after)
            found = self._bounded(fire)
            if fire is None or found is None or found > slot:
                return found
            # Two fires within one millisecond are one.
            after = fire
        raise ConfigError(f"the trigger does not get past {after}: {self.trigger.explain()}")

    def _bounded(self, fire: datetime | None) -> int | None:
        if fire is None:
            return None
        found = to_ms(fire)
        end = self.policy.end
        return found if end is None or found <= end else None

    @property
    def content(self) -> str:
        """Its fingerprint: a digest of the fire times, and one of everything."""
        plain = self._plain()
        for name in ("declared", "fingerprint", "since"):
            plain.pop(name, None)
        times = (plain["trigger"], self.policy.start, self.policy.end)
        return f"{_digest(times)}.{_digest(plain)}"

    def same_times(self, fingerprint: str) -> bool:
        """Whether it fires at the same times as the schedule with this fingerprint."""
        return self.fingerprint.partition(".")[0] == fingerprint.partition(".")[0]

    def pack(self) -> bytes:
        """Encode it, without values that are defaults."""
        return msgpack.packb((VERSION, self._plain()))

    def _plain(self) -> dict[str, Any]:
        plain: dict[str, Any] = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("trigger", "policy", "retry")
        }
        policy = {item.name: getattr(self.policy, item.name) for item in fields(Policy)}
        default = Policy()
        plain = {name: value for name, value in plain.items() if value not in (None, "", (), {})}
        plain["policy"] = {n: v for n, v in policy.items() if v != getattr(default, n)}
        plain["trigger"] = pack_trigger(self.trigger)
        if self.retry is not None:
            plain["retry"] = _pack_retry(self.retry)
        return plain

    @classmethod
    def unpack(cls, data: bytes) -> Spec:
        """Read what `pack` wrote; raises `DecodeError`."""
        try:
            check_record(data, most_bytes=_MOST_BYTES, most_values=_MOST_VALUES)
            version, plain = msgpack.unpackb(data)
            if version > VERSION:
                raise DecodeError(f"a newer taskq wrote it (format {version}); update this process")
            known = {item.name for item in fields(cls)}
            values = {name: value for name, value in plain.items() if name in known}
            values["trigger"] = unpack_trigger(plain["trigger"])
            values["policy"] = Policy(**plain.get("policy", {}))
            values["tags"] = tuple(plain.get("tags", ()))
            if "retry" in plain:
                values["retry"] = Retry(*plain["retry"])
            return cls(**values)
        except DecodeError:
            raise
        except Exception as error:  # foreign bytes may raise anything
            raise DecodeError(
                f"it is not a schedule that this taskq can read: {error!r}"
            ) from error


def spec_of(stored: StoredSchedule) -> Spec:
    """Read a stored schedule; raises `DecodeError` when it cannot be read or trusted."""
    if stored.untrusted:
        raise DecodeError(stored.untrusted)
    return Spec.unpack(stored.spec)


def _digest(plain: Any) -> str:
    return hashlib.sha256(msgpack.packb(plain)).hexdigest()[:16]


def _pack_retry(retry: Retry) -> list[Any]:
    if retry.on != (Exception,) or retry.never:
        raise ConfigError(
            "on= and never= name classes, which cannot travel with a schedule; set them on the "
            "task: @q.task(retry=Retry(on=..., never=...))"
        )
    backoff, most = (
        value.total_seconds() if isinstance(value, timedelta) else float(value)
        for value in (retry.backoff, retry.max_delay)
    )
    return [retry.max_attempts, backoff, most, retry.jitter]


def to_ms(instant: datetime) -> int:
    """Milliseconds since the epoch, rounded up: a fire is never early."""
    return -((_EPOCH - instant.astimezone(UTC)) // _MS)


def from_ms(milliseconds: int) -> datetime:
    """The instant, in UTC."""
    return _EPOCH + milliseconds * _MS
