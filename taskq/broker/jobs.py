"""Reading and cancelling single jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgpack

from taskq.broker.client import Client, retrying
from taskq.broker.clock import ClockOffset
from taskq.broker.keys import Keys
from taskq.broker.scripts import script
from taskq.broker.waiting import STATES
from taskq.core.envelope import Envelope, FailureRecord, unpack_envelope, unpack_failure
from taskq.core.errors import PayloadError, UntrustedMessage
from taskq.core.job import AttemptRecord, JobInfo, Progress
from taskq.core.payload import decode_call, decode_value
from taskq.core.signing import Signing, unsealed
from taskq.core.state import JobState

__all__ = ["Jobs"]

T = TypeVar("T")


class Jobs:
    """What can be asked and said about one job by its id."""

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
        self._cancel = script("cancel")

    async def cancel(self, job_id: str) -> int:
        """Cancel a job: 1 done, 2 its worker was asked, 0 it was over, -1 there is none."""
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

        return await retrying(once, seconds=10.0, what="the job could not be cancelled")

    async def info(self, job_id: str) -> JobInfo | None:
        """Everything the server knows about a job; None when it knows none."""

        async def once(_: bool) -> dict[bytes, bytes]:
            return await self._client.command("HGETALL", self._keys.job(job_id))

        fields = await retrying(once, seconds=10.0, what="the job could not be read")
        return _info(job_id, fields, self._signing) if fields else None


def _info(job_id: str, fields: dict[bytes, bytes], signing: Signing) -> JobInfo:
    envelope = _lenient(unpack_envelope, unsealed(fields.get(b"e", b"")), Envelope("", b""))
    no_call: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    args, kwargs = _lenient(decode_call, envelope.payload, no_call)
    state = STATES.get(fields.get(b"s", b""), JobState.QUEUED)
    failure = unpack_failure(fields[b"E"]) if fields.get(b"E") else None
    result, untrusted = _result(job_id, fields.get(b"r", b""), signing)
    failure = failure or untrusted
    queue, _, priority = fields.get(b"q", b"/5").decode().rpartition("/")
    return JobInfo(
        id=job_id,
        task=envelope.task,
        state=state,
        queue=queue,
        priority=int(priority),
        args=tuple(args),
        kwargs=kwargs,
        headers=envelope.headers,
        enqueued_at=_instant(fields.get(b"t")),
        due_at=_instant(fields.get(b"d")),
        expires_at=_instant(fields.get(b"x")),
        started_at=_instant(fields.get(b"b")),
        finished_at=_instant(fields.get(b"f")),
        attempt=int(fields.get(b"a", 0)),
        failures=int(fields.get(b"c", 0)),
        crashes=int(fields.get(b"k", 0)),
        worker=fields.get(b"w", b"").decode() or None,
        attempts=_attempts(fields, state, failure),
        cancel_requested=b"z" in fields,
        progress=_progress(fields.get(b"p")),
        result=result,
        error_type=failure.error_type if failure else None,
        error=failure.error_text if failure else None,
        traceback=failure.traceback if failure else None,
        schedule_id=envelope.fire.schedule if envelope.fire else None,
        scheduled_for=_instant(envelope.fire.slot) if envelope.fire else None,
    )


def _result(job_id: str, data: bytes, signing: Signing) -> tuple[Any, FailureRecord | None]:
    """What the job returned, or why that cannot be believed."""
    try:
        return _lenient(
            decode_value, signing.open(data, "result", job_id), None
        ) if data else None, None
    except UntrustedMessage as error:
        return None, FailureRecord(type(error).__name__, str(error), "", "forged")


def _attempts(
    fields: dict[bytes, bytes], state: JobState, failure: FailureRecord | None
) -> tuple[AttemptRecord, ...]:
    """The records of ended attempts, and the last one as the job's own fields tell it."""
    records: list[AttemptRecord] = []
    for name, value in fields.items():
        if name[:1] == b"h" and name[1:].isdigit():
            records.append(_past_attempt(int(name[1:]), value))
    records.sort(key=lambda record: record.number)
    number = int(fields.get(b"a", 0))
    if number and (not records or records[-1].number < number) and state is not JobState.EXPIRED:
        ended = state.finished
        outcome = str(failure.kind if failure else state) if ended else None
        records.append(
            AttemptRecord(
                number,
                _instant(fields.get(b"b")),
                _instant(fields.get(b"f")) if ended else None,
                fields.get(b"w", b"").decode(),
                outcome,
                failure.error_text if failure and ended else "",
            )
        )
    return tuple(records)


def _past_attempt(number: int, value: bytes) -> AttemptRecord:
    try:
        began, ended, worker, text = msgpack.unpackb(value, raw=True)
    except (TypeError, ValueError):
        return AttemptRecord(number, None, None, "", "unreadable")
    outcome, _, error = text.decode("utf-8", "replace").partition("\n")
    return AttemptRecord(number, _instant(began), _instant(ended), worker.decode(), outcome, error)


def _instant(milliseconds: bytes | float | None) -> datetime | None:
    if not milliseconds:
        return None
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)


def _progress(value: bytes | None) -> Progress | None:
    try:
        return None if value is None else Progress(*msgpack.unpackb(value))
    except (TypeError, ValueError):
        return None


def _lenient(decode: Callable[[bytes], T], data: bytes, otherwise: T) -> T:
    """Bytes that cannot be read must not hide the rest of a job."""
    try:
        return decode(data) if data else otherwise
    except PayloadError:
        return otherwise
