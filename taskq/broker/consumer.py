"""What a worker exchanges with the server: fetches, ends of attempts, progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

import msgpack

from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, group_consecutive, script
from taskq.codec.payload import check_record
from taskq.codec.signing import Signing
from taskq.core.errors import DecodeError, ServerError
from taskq.core.job import Delivery
from taskq.core.liveness import CALL_SECONDS
from taskq.redis.client import Client, retrying
from taskq.redis.connection import ConnectionLost, ReplyHandler

__all__ = [
    "UNLIMITED",
    "Capacity",
    "Consumer",
    "DeclaredDead",
    "Frame",
    "delivery_of",
    "handed_over",
]

Frame = tuple[Delivery, str, bytes, int, int, int]
"""The end of an attempt: delivery, kind, payload, ttl (ms), delay (ms), count; see `finish.lua`."""


class DeclaredDead(Exception):
    """The server does not know this worker: it was declared dead, or the server lost its data."""


Which = Literal["h", "l", "s"]

QUEUES_AT_ONCE = 200
"""The server can search all lanes of this many queues in a few milliseconds."""


class Capacity(NamedTuple):
    """How many jobs a worker can start in `threads` and in `processes`.

    `kinds` is the order in which it asks for the kinds of jobs, `waits_for` the kinds it waits for;
    both consist of the letters `l` (event loop), `t` (threads) and `p` (processes).
    """

    threads: int
    processes: int
    kinds: str = "ltp"
    waits_for: str = "l"

    def without(self, taken: Iterable[Delivery]) -> Capacity:
        """The capacity that is left beside these jobs."""
        threads = processes = 0
        for delivery in taken:
            threads += delivery.lane[-1] == "t"
            processes += delivery.lane[-1] == "p"
        return self._replace(threads=self.threads - threads, processes=self.processes - processes)


UNLIMITED: Final = Capacity(1_000_000, 1_000_000)


class Consumer:
    """Fetches and finishes jobs under the name of one worker.

    `failure_ttl` (seconds) is how long records of failed, cancelled and expired jobs are kept, and
    `keep_failed` the maximum number of failed ones per queue. `signing` signs the results.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        offset: ClockOffset,
        worker: str,
        *,
        failure_ttl: float,
        keep_failed: int,
        signing: Signing | None = None,
    ) -> None:
        self._client = client
        self._offset = offset
        self._keep_failed = keep_failed
        self._signing = signing if signing is not None and signing.enabled else None
        self.worker = worker
        self.saw_suspects: bool = False
        """Whether suspects wait, as of the last fetch: jobs that were in several crashes."""
        self.failure_ttl_ms = int(failure_ttl * 1000)
        self._may_wait = True
        self._scripts = {
            name: script(name) for name in ("begin", "fetch", "finish", "leave", "progress")
        }
        self._fetch_keys = (
            keys.jobs,
            keys.lane_prefix,
            keys.lanes,
            keys.idle,
            keys.workers,
            keys.held,
            keys.expiry,
            keys.done_channel,
            keys.malformed,
        )
        self._finish_keys = (
            keys.jobs,
            keys.lane_prefix,
            keys.lanes,
            keys.due,
            keys.expiry,
            keys.held,
            keys.failed,
            keys.stats,
            keys.done_channel,
            keys.next_channel,
            keys.idle,
            keys.wake_channel,
            keys.cancels + worker,
        )
        self._progress_keys = (keys.jobs, keys.watch_channel)
        self._leave_keys = (keys.idle, keys.wake_channel)

    async def fetch(
        self,
        want: int,
        queues: Sequence[str],
        which: Which = "h",
        capacity: Capacity = UNLIMITED,
    ) -> list[Delivery]:
        """Take up to `want` jobs of `queues`: `h` highest priority first, `l` lowest first.

        With more than 200 queues that order holds within each 200, the most that the server can
        search in a few milliseconds. `s` takes only suspects, and no more than may run together.
        It takes no more jobs for threads and processes than `capacity` allows.

        Never cancel a fetch and never repeat it blindly: a lost reply strands the jobs it took
        until the reconciler finds them. Raises `DeclaredDead`, `ServerError` and `ConnectionLost`.
        """
        if len(queues) <= QUEUES_AT_ONCE:
            return await self._fetch_of(want, queues, which, capacity)
        taken: list[Delivery] = []
        may_wait, saw_suspects = self._may_wait, False
        for first in range(0, len(queues), QUEUES_AT_ONCE):
            part, left = queues[first : first + QUEUES_AT_ONCE], capacity.without(taken)
            self._may_wait = may_wait
            try:
                taken += await self._fetch_of(want - len(taken), part, which, left)
            except (ServerError, ConnectionLost):
                if not taken:
                    raise
                break
            may_wait, saw_suspects = may_wait or self._may_wait, saw_suspects or self.saw_suspects
            if len(taken) >= want or (taken and which == "s"):
                break
        self._may_wait, self.saw_suspects = may_wait, saw_suspects
        if may_wait and len(taken) >= want:
            # It still waits in queues that earlier rounds, or the fetch before, searched in vain.
            await self.leave_idle(queues, fetches=True)
        return taken

    async def _fetch_of(
        self, want: int, queues: Sequence[str], which: Which, capacity: Capacity
    ) -> list[Delivery]:
        taken, more = await self._fetch_some(want, queues, which, capacity)
        while more and len(taken) < want:
            try:
                left = capacity.without(taken)
                found, more = await self._fetch_some(want - len(taken), queues, which, left)
            except (ServerError, ConnectionLost):
                # The reconciler finds what a lost reply took; earlier replies have arrived.
                if not taken:
                    raise
                return taken
            taken += found
        return taken

    async def _fetch_some(
        self, want: int, queues: Sequence[str], which: Which, capacity: Capacity
    ) -> tuple[list[Delivery], bool]:
        """The jobs that one call finds, and whether there may be more."""
        may_wait, self._may_wait = self._may_wait, True
        reply = await self._client.script(
            self._scripts["fetch"],
            self._fetch_keys,
            self._offset.ms,
            self.worker,
            want,
            which,
            self.failure_ttl_ms,
            *capacity,
            int(may_wait),
            *queues,
        )
        if reply is None:
            raise DeclaredDead(self.worker)
        more, suspects, *rows = reply
        self.saw_suspects = suspects == b"1"
        # A full worker was removed from the idle sets; that is not repeated.
        self._may_wait = len(rows) < want and more == b"0"
        return [delivery_of(row) for row in rows], more == b"1"

    async def finish(self, frames: Sequence[Frame]) -> list[int]:
        """End attempts; for each: 1 done, 2 done before, 0 refused, 3 the job is unknown.

        Repeats the call until it is answered; a repetition changes nothing.
        """
        script_args = self._script_args(frames)

        async def once(_: bool) -> list[int]:
            return await self._client.script(
                self._scripts["finish"], self._finish_keys, *script_args
            )

        return await retrying(once, seconds=86_400.0, what="outcomes could not be stored")

    def finish_nowait(self, on_reply: ReplyHandler, frames: Sequence[Frame]) -> bool:
        """Send the same call once and return at once; see `Client.send_nowait`."""
        script_args = self._script_args(frames)
        return self._client.send_nowait(
            on_reply, self._scripts["finish"], self._finish_keys, *script_args
        )

    def _script_args(self, frames: Sequence[Frame]) -> list[Any]:
        runs = group_consecutive(map(self._framed, frames))
        return [self._offset.ms, self.worker, self._keep_failed, *runs]

    def _framed(self, frame: Frame) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        (job_id, lane, entry, fence, *_), kind, payload, ttl, delay, count = frame
        if self._signing is not None and kind == "S":
            payload = self._signing.seal(payload, "result", job_id)
        own = (job_id, entry[len(lane) + 1 :], fence, payload)
        # Only some kinds have a delay and a count.
        return (kind, lane, ttl), own if kind in ("S", "C") else (*own, delay, count)

    async def leave_idle(self, queues: Sequence[str], *, fetches: bool = False) -> None:
        """Stop being handed jobs; any job handed over before has arrived when this returns.

        Unless this worker `fetches` again soon, a wake-up on its way is passed to another worker.
        An unreachable server hands over nothing, so that is not an error.
        """
        script_args = self.worker, int(not fetches)
        with contextlib.suppress(ConnectionError):
            for first in range(0, len(queues), QUEUES_AT_ONCE):
                some = queues[first : first + QUEUES_AT_ONCE]
                await self._client.script(
                    self._scripts["leave"], self._leave_keys, *script_args, *some
                )
            self._may_wait = False

    async def begin(self, delivery: Delivery) -> bool:
        """Record that a job that has been in a crash begins; false when it is no longer held."""

        async def once(_: bool) -> int:
            return await self._client.script(
                self._scripts["begin"],
                self._progress_keys[:1],
                self._offset.ms,
                self.worker,
                delivery.id,
                delivery.fence,
            )

        return (
            await retrying(
                once, seconds=CALL_SECONDS, what="the start of a job could not be stored"
            )
            == 1
        )

    async def progress(self, job_id: str, attempt: int, report: bytes) -> bool:
        """Store the progress of an attempt; false when the attempt no longer holds the job."""

        async def once(_: bool) -> list[int]:
            return await self._client.script(
                self._scripts["progress"], self._progress_keys, self.worker, job_id, attempt, report
            )

        return (
            await retrying(once, seconds=CALL_SECONDS, what="progress could not be stored")
        ) == [1]


def handed_over(message: bytes) -> Delivery:
    """A job that `enqueue.lua` pushed to this worker; raises `DecodeError` for anything else."""
    try:
        if len(message) > 4096:
            check_record(message, most_bytes=4 * 1_048_576, most_values=16)
        row = msgpack.unpackb(message, raw=True, max_array_len=16, max_map_len=0)
        return delivery_of(row)
    except Exception as error:
        raise DecodeError(f"not a job that was handed over: {type(error).__name__}") from None


_made = cast("Callable[[type[Delivery], tuple[Any, ...]], Delivery]", tuple.__new__)  # pyright: ignore[reportUnknownMemberType]


def delivery_of(row: list[Any]) -> Delivery:
    """A job as `fetch.lua` and `strays.lua` return it; the last four values may be left out."""
    try:
        return _delivery(row)
    except ValueError:
        # Foreign data in the hash: this job fails alone, and the others run.
        job_id, lane, stream_id, fence, envelope = row[:5]
        name = job_id.decode("utf-8", "backslashreplace")
        return Delivery(
            name, lane.decode(), lane + b" " + stream_id, int(fence), envelope or b"", 0, 0, 0, 0
        )


def _delivery(row: list[Any]) -> Delivery:
    job_id, lane, stream_id, fence, envelope, enqueued = row[:6]
    if len(row) == 6:
        # The named tuple's own constructor takes twice as long.
        name = lane + b" " + stream_id
        fields = (job_id.decode(), lane.decode(), name, int(fence), envelope or b"", 0, 0, 0)
        return _made(Delivery, (*fields, int(enqueued or 0), 0))
    failures, crashes, unknown, unstarted = row[6:]
    return Delivery(
        job_id.decode(),
        lane.decode(),
        # Entry ids are unique within a stream only; the lane makes them unique.
        lane + b" " + stream_id,
        int(fence),
        envelope or b"",
        int(failures or 0),
        int(crashes or 0),
        int(unknown or 0),
        int(enqueued or 0),
        int(unstarted or 0),
    )
