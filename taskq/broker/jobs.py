"""Reads and cancels single jobs; turns a job's hash into `JobInfo`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgpack

from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, script
from taskq.broker.waiting import STATES
from taskq.codec.envelope import Envelope, FailureRecord, unpack_envelope, unpack_failure
from taskq.codec.payload import check_record, decode_call, decode_value
from taskq.codec.signing import Signing
from taskq.core.durations import in_zone
from taskq.core.errors import PayloadError, UntrustedMessage
from taskq.core.job import AttemptRecord, Fire, JobInfo, JobState, Progress
from taskq.core.liveness import CALL_SECONDS
from taskq.redis.client import Client, retrying

__all__ = ["CHANGING_FIELDS", "Jobs", "read_job", "updated"]

T = TypeVar("T")

_MOST_BYTES: Final = 65_536
"""The largest record of progress or of an attempt that is read; taskq writes smaller ones."""

CHANGING_FIELDS: Final = tuple("sdxbfackwzpE")
"""The fields of a job that change while it is watched."""

_CHANGING_ATTRIBUTES: Final = (
    *("state", "due_at", "expires_at", "started_at", "finished_at", "attempt", "failures"),
    *("crashes", "worker", "cancel_requested", "progress", "error_type", "error", "traceback"),
)


def read_job(job_id: str, fields: dict[bytes, bytes], signing: Signing, now: int) -> JobInfo:
    """Read a job's hash at `now`, the server's time in milliseconds.

    An unreadable field does not hide the others. A result older than its ttl is left out. Where
    there are signing keys, an envelope without a valid signature is left out.
    """
    lane = _text(fields.get(b"q", b"/5"))
    envelope, untrusted = _envelope(job_id, lane, fields.get(b"e", b""), signing)
    args, kwargs = _lenient(decode_call, envelope.payload, ([], {}))
    state = STATES.get(fields.get(b"s", b""), JobState.QUEUED)
    failure = unpack_failure(fields[b"E"]) if fields.get(b"E") else None
    over_since, ttl = _number(fields.get(b"f")), _number(fields.get(b"l"))
    # The record outlives the result, to show that there was one.
    kept = fields.get(b"r", b"") if now <= over_since + ttl else b""
    result, forged = _result(job_id, kept, signing)
    failure = failure or forged
    queue, _, place = lane.rpartition("/")
    return JobInfo(
        id=job_id,
        task=envelope.task,
        state=state,
        queue=queue,
        priority=_number(place[:1]),
        args=tuple(args),
        kwargs=kwargs,
        headers=envelope.headers or {},
        enqueued_at=_instant(fields.get(b"t")),
        due_at=_instant(fields.get(b"d")),
        expires_at=_instant(fields.get(b"x")),
        started_at=_instant(fields.get(b"b")),
        finished_at=_instant(fields.get(b"f")),
        attempt=_runs(fields),
        failures=_number(fields.get(b"c")),
        crashes=_number(fields.get(b"k")),
        worker=_worker(fields),
        attempts=_attempts(fields, state, failure),
        cancel_requested=b"z" in fields,
        progress=_progress(fields.get(b"p")),
        result=result,
        error_type=failure.error_type if failure else None,
        error=failure.error_text if failure else None,
        traceback=failure.traceback if failure else None,
        schedule_id=envelope.fire.schedule if envelope.fire else None,
        scheduled_for=_fire_time(envelope.fire),
        untrusted=untrusted,
    )


def updated(
    known: JobInfo, values: Sequence[bytes | None], signing: Signing, now: int
) -> JobInfo | None:
    """Update `known` from the current values of its `CHANGING_FIELDS`; None when the job is gone.

    Its result and its earlier attempts are kept from `known`.
    """
    fields = {
        name.encode(): value for name, value in zip(CHANGING_FIELDS, values, strict=True) if value
    }
    if not fields:
        return None
    info = read_job(known.id, fields, signing, now)
    return replace(known, **{name: getattr(info, name) for name in _CHANGING_ATTRIBUTES})


def _envelope(job_id: str, lane: str, data: bytes, signing: Signing) -> tuple[Envelope, str | None]:
    """The envelope of the job, or an empty one and why it is not trusted."""
    untrusted = None
    try:
        data = signing.open_job(job_id, lane, data)
    except UntrustedMessage as error:
        data, untrusted = b"", str(error)
    return _lenient(unpack_envelope, data, Envelope("", b"")), untrusted


def _fire_time(fire: Fire | None) -> datetime | None:
    instant = None if fire is None else _instant(fire.slot)
    return None if fire is None or instant is None else in_zone(instant, fire.zone)


def _worker(fields: dict[bytes, bytes]) -> str | None:
    # Before the first attempt the field holds the owner of a durable call.
    return _text(fields.get(b"w", b"")) or None if b"a" in fields else None


def _result(job_id: str, data: bytes, signing: Signing) -> tuple[Any, FailureRecord | None]:
    """The result of the job, or why it is not trusted."""
    try:
        return _lenient(
            decode_value, signing.open(data, "result", job_id), None
        ) if data else None, None
    except UntrustedMessage as error:
        return None, FailureRecord(type(error).__name__, str(error), "", "forged")


def _attempts(
    fields: dict[bytes, bytes], state: JobState, failure: FailureRecord | None
) -> tuple[AttemptRecord, ...]:
    """The records of ended attempts, and the last attempt as the job's own fields show it.

    Records are kept by fence, which also counts takes that never started and left no record.
    """
    past = {
        int(name[1:]): value
        for name, value in fields.items()
        if name[:1] == b"h" and name[1:].isdigit() and len(name) < 12
    }
    fence, number = _number(fields.get(b"a")), _runs(fields)
    first = max(1, number - len(past) + 1) if fence in past else 1
    records = [_past_attempt(first + n, past[key]) for n, key in enumerate(sorted(past))]
    if number > len(past) and fence not in past and state is not JobState.EXPIRED:
        ended = state.finished
        outcome = str(failure.kind if failure else state) if ended else None
        records.append(
            AttemptRecord(
                number,
                _instant(fields.get(b"b")),
                _instant(fields.get(b"f")) if ended else None,
                _text(fields.get(b"w", b"")),
                outcome,
                failure.error_text if failure and ended else "",
            )
        )
    return tuple(records)


def _runs(fields: dict[bytes, bytes]) -> int:
    """How often the job was started: how often it was taken, less the takes that never started."""
    return max(0, _number(fields.get(b"a")) - _number(fields.get(b"m")))


def _past_attempt(number: int, value: bytes) -> AttemptRecord:
    try:
        check_record(value, most_bytes=_MOST_BYTES, most_values=8)
        began, ended, worker, text = msgpack.unpackb(value, raw=True)
        outcome, _, error = _text(text).partition("\n")
        return AttemptRecord(
            number, _instant(began), _instant(ended), _text(worker), outcome, error
        )
    except Exception:  # msgpack documents that any may come
        return AttemptRecord(number, None, None, "", "unreadable")


def _instant(milliseconds: bytes | float | None) -> datetime | None:
    try:
        return datetime.fromtimestamp(float(milliseconds) / 1000, UTC) if milliseconds else None
    except (OverflowError, TypeError, ValueError, OSError):
        return None


def _progress(value: bytes | None) -> Progress | None:
    try:
        check_record(value or b"", most_bytes=_MOST_BYTES, most_values=8)
        done, total, text = msgpack.unpackb(value or b"")
        return Progress.of(done, total, text) if type(text) is str else None
    except Exception:  # as above
        return None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _number(value: bytes | str | None) -> int:
    try:
        return int(value or 0)
    except ValueError:
        return 0


def _lenient(decode: Callable[[bytes], T], data: bytes, otherwise: T) -> T:
    """Decode `data`; unreadable bytes give `otherwise`, so that they do not hide the rest."""
    try:
        return decode(data) if data else otherwise
    except PayloadError:
        return otherwise


_ATTEMPTS = 100


class Jobs:
    """Reads and cancels jobs by id."""

    def __init__(
        self,
        client: Client,
        keys: Keys,
        offset: ClockOffset,
        *,
        failure_ttl: float,
        signing: Signing | None = None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._offset = offset
        self._ttl_ms = int(failure_ttl * 1000)
        self._signing = signing if signing is not None else Signing(keys.namespace)
        self._cancel, self._info = script("cancel"), script("info")

    async def cancel(self, job_id: str) -> int:
        """Cancel a job: 1 done, 2 its worker was asked to, 0 it had ended, -1 no such job."""
        keys = self._keys

        async def once(repeated: bool) -> int:
            return await self._client.script(
                self._cancel,
                (
                    keys.jobs,
                    keys.due,
                    keys.expiry,
                    keys.cancels,
                    keys.wake_channel,
                    keys.done_channel,
                ),
                self._offset.ms,
                job_id,
                self._ttl_ms,
                int(repeated),
            )

        return await retrying(once, seconds=CALL_SECONDS, what="the job could not be cancelled")

    async def info(self, job_id: str) -> JobInfo | None:
        """The job with its last hundred attempts; None when there is no such job."""

        async def once(_: bool) -> list[Any]:
            return await self._client.script(
                self._info, (self._keys.jobs,), self._offset.ms, job_id, _ATTEMPTS
            )

        now, *pairs = await retrying(once, seconds=CALL_SECONDS, what="the job could not be read")
        fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
        return read_job(job_id, fields, self._signing, now) if fields else None
