"""Waits for jobs to end, without polling: any number of waits on one connection.

A waiting client stores the name of its channel in the job, and the script that ends the job
publishes there. The reply to that request already says whether the job has ended, so no end is
missed in between. An enqueue may store the name as well, for a job that will be waited for.
Messages can be lost with a connection: each wait asks again after a reconnection, and every few
seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from taskq.broker.keys import Keys
from taskq.broker.scripts import ClockOffset, script
from taskq.core.errors import ServerError, ServerRefused, ServerUnavailable
from taskq.core.ids import new_id
from taskq.core.job import Ending, JobState
from taskq.core.liveness import CALL_SECONDS, RECHECK_RETRY_SECONDS, RECHECK_SECONDS
from taskq.redis.client import Client, retrying

__all__ = ["STATES", "Waiting"]

STATES = {
    b"d": JobState.SCHEDULED,
    b"w": JobState.WAITING,
    b"q": JobState.QUEUED,
    b"r": JobState.RUNNING,
    b"s": JobState.SUCCEEDED,
    b"f": JobState.FAILED,
    b"c": JobState.CANCELLED,
    b"x": JobState.EXPIRED,
}
_BATCH = 500
_EARLY = 100
_NOT_LISTENED: Final = object()


class Waiting:
    """The waits of one event loop, on one channel of one connection."""

    def __init__(self, client: Client, keys: Keys, offset: ClockOffset) -> None:
        self._client = client
        self._offset = offset
        self._script = script("wait")
        self._keys = (keys.jobs,)
        self._channel = new_id()
        self._topic = keys.done_channel + self._channel
        self._waits: dict[str, list[asyncio.Future[Ending]]] = {}
        self._early: dict[str, Ending | None] = {}
        self._asked: list[str] = []
        self._asker: asyncio.Task[None] | None = None
        self._recheck: asyncio.TimerHandle | None = None
        self._subscribed = False
        self._loop = asyncio.get_running_loop()
        client.on_reconnect(self._ask_again)

    async def look(self, job_ids: Iterable[str]) -> list[Ending]:
        """The state of jobs now, without waiting."""
        ids = list(job_ids)
        endings: list[Ending] = []

        async def once(_: bool) -> list[list[bytes]]:
            return await self._client.script(
                self._script, self._keys, self._offset.ms, "", *ids[:_BATCH]
            )

        while ids:
            rows = await retrying(
                once, seconds=CALL_SECONDS, what="the state of a job could not be read"
            )
            endings += [_ending(state, payload) for state, payload in rows]
            del ids[: len(rows)]
        return endings

    def listen(self, job_id: str) -> str:
        """The channel to store with a job that will be waited for; '' when there is none.

        An end that is announced before the wait begins is kept, for the last hundred jobs.
        """
        if not self._subscribed or not self._client.connected:
            return ""
        if len(self._early) >= _EARLY:
            del self._early[next(iter(self._early))]
        self._early[job_id] = None
        return self._channel

    async def until_over(self, job_id: str, within: float | None = None) -> Ending:
        """Wait until the job has ended or is known not to exist.

        Raises `TimeoutError` when that takes longer than `within` seconds.
        """
        heard = self._early.pop(job_id, _NOT_LISTENED)
        if isinstance(heard, Ending):
            return heard
        future: asyncio.Future[Ending] = self._loop.create_future()
        waits = self._waits.setdefault(job_id, [])
        waits.append(future)
        if heard is None:
            # It was enqueued with this channel.
            self._check_some_time()
        elif len(waits) == 1:
            self._ask([job_id])
        # A plain timer costs a quarter of asyncio.timeout().
        timer = None if within is None else self._loop.call_later(within, _late, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            waits.remove(future)
            if not waits and self._waits.get(job_id) is waits:
                del self._waits[job_id]

    def close(self) -> None:
        """Stop the background work; remaining waits fail with `ServerUnavailable`."""
        self._fail_all(ServerUnavailable("the TaskQ was closed while a result was waited for"))
        for timer in (self._recheck, self._asker):
            if timer is not None:
                timer.cancel()

    def _ask(self, job_ids: Iterable[str]) -> None:
        self._asked.extend(job_ids)
        if self._asker is None and self._asked:
            self._asker = self._loop.create_task(self._ask_in_batches())
        self._check_some_time()

    def _ask_all(self) -> None:
        self._ask(list(self._waits))

    def _ask_again(self) -> None:
        # Messages may have been lost with the connection.
        self._early.clear()
        self._ask_all()

    def _check_some_time(self) -> None:
        if self._recheck is None:
            self._check_within(RECHECK_SECONDS)

    def _check_within(self, seconds: float) -> None:
        if self._recheck is not None:
            self._recheck.cancel()
        self._recheck = self._loop.call_later(seconds, self._check_again)

    def _check_again(self) -> None:
        self._recheck = None
        if self._waits:
            self._ask_all()

    async def _ask_in_batches(self) -> None:
        try:
            if not self._subscribed:
                await self._client.subscribe(self._topic, self._on_message)
                self._subscribed = True
            while self._asked:
                batch, self._asked = self._asked[:_BATCH], self._asked[_BATCH:]
                rows = await self._client.script(
                    self._script, self._keys, self._offset.ms, self._channel, *batch
                )
                for job_id, (state, payload) in zip(batch, rows, strict=False):
                    self._resolve(job_id, _ending(state, payload))
                # Jobs that did not fit into the reply.
                self._asked[:0] = batch[len(rows) :]
        except ServerRefused as error:
            self._fail_all(error)
        except ConnectionError:
            # Asked again soon and by the next connection; each wait has its own timeout.
            self._asked.clear()
            self._check_within(RECHECK_RETRY_SECONDS)
        finally:
            self._asker = None

    def _fail_all(self, error: ServerError) -> None:
        self._asked.clear()
        for waits in self._waits.values():
            for future in waits:
                if not future.done():
                    future.set_exception(error)

    def _on_message(self, message: bytes) -> None:
        name, state, *payload = message.split(b"\n", 2)
        job_id = name.decode()
        if job_id in self._early:
            if payload:
                self._early[job_id] = Ending(STATES[state], payload[0])
            else:
                del self._early[job_id]
        elif payload:
            self._resolve(job_id, Ending(STATES[state], payload[0]))
        else:
            self._ask([job_id])

    def _resolve(self, job_id: str, ending: Ending) -> None:
        if not ending.final:
            return
        for future in self._waits.get(job_id, ()):
            if not future.done():
                future.set_result(ending)


def _late(future: asyncio.Future[Ending]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())


def _ending(state: bytes, payload: bytes) -> Ending:
    known = STATES.get(state)
    return Ending(None, gone=state == b"g") if known is None else Ending(known, payload)
