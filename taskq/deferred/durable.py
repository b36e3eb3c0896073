"""Durable calls: stored in the queue before they run here, and settled there when they end.

A durable call is an ordinary job, due once its process has been silent for the length of a lease.
While the process lives, it keeps moving that due time, under a token that marks the call as its
own. Once a worker has taken the job over, the token is void, and the worker reports the outcome.

`Backing` is all that the deferred runner uses of the queue.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from taskq.broker.durable_calls import DurableCalls
from taskq.codec.envelope import pack_failure
from taskq.codec.payload import encode_value
from taskq.core.errors import PayloadError, ServerError
from taskq.core.ids import new_id
from taskq.core.job import JobState
from taskq.core.liveness import DURABLE_RENEWALS_PER_LEASE
from taskq.core.outcome import Failed
from taskq.deferred.call import Call
from taskq.execution.ports import JobBackend
from taskq.execution.request import Request

__all__ = ["Backing", "Durable"]

_log = logging.getLogger("taskq.deferred")

HOLD_BATCH = 1000
"""How many leases are extended in one call to the server."""


class Backing(JobBackend, Protocol):
    """The queue behind the deferred runner, for the running event loop."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the server now."""
        ...

    @property
    def configured(self) -> bool:
        """Whether the server's address is configured, or a connection exists."""
        ...

    def durable_calls(self) -> DurableCalls:
        """The server's side of durable calls."""
        ...


class Durable:
    """Stores durable calls, extends their leases and settles them.

    Calls `on_lost` with each call that the queue has taken over.
    """

    def __init__(self, backing: Backing, lease: float) -> None:
        self._backing = backing
        self._lease = lease
        self.on_lost: Callable[[Call], None] | None = None
        self._name = new_id()
        self._held: dict[str, Call] = {}
        self._holding: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def store(self, call: Call, request: Request) -> bool:
        """Put a call into the queue, due after its delay plus a lease; false if its id is taken.

        Raises `ServerError` and `ConnectionError`.
        """
        # Ids made by taskq are unique; for one chosen by the caller, the origin is.
        owner = request.job.origin or self._name
        job = request.job._replace(when=f"+{self._due_in(call)}", expires="", owner=owner)
        [created] = await self._backing.submit((job,))
        if created:
            call.owner = owner
            self._held[call.id] = call
            if self._holding is None:
                self._holding = asyncio.get_running_loop().create_task(
                    self._hold(), name="taskq-deferred-hold"
                )
        return created

    def settle(self, call: Call, state: JobState) -> None:
        """Report to the queue how a call ended here."""
        own, default = call.options.result_ttl, call.task.task_options.result_ttl
        ttl = default if own is None else own
        task = asyncio.get_running_loop().create_task(
            self._settle(call, state, _payload(call, state), ttl)
        )
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def release(self, call: Call, request: Request) -> bool:
        """Release a call to the queue now; false when the queue has taken it over already.

        Raises `ServerError` and `ConnectionError`.
        """
        self._held.pop(call.id, None)
        return await self._backing.durable_calls().release(request.job._replace(owner=call.owner))

    async def drain(self) -> None:
        """Wait until every outcome is reported, and stop extending leases."""
        while self._settling:
            await asyncio.wait(self._settling)
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.wait((self._holding,))
            self._holding = None

    async def _settle(self, call: Call, state: JobState, payload: bytes, ttl: float) -> None:
        try:
            held = await self._backing.durable_calls().settle(
                call.id, call.owner, state, payload, ttl
            )
        except (ServerError, ConnectionError) as error:
            _log.error("durable call %s ended here but will run again: %s", call.id, error)
            return
        finally:
            self._held.pop(call.id, None)
        if not held:
            _log.warning(
                "durable call %s ended here, but the queue had taken it over: it may have run "
                "twice",
                call.id,
            )

    async def _hold(self) -> None:
        while True:
            await asyncio.sleep(self._lease / DURABLE_RENEWALS_PER_LEASE)
            calls = list(self._held.values())
            for start in range(0, len(calls), HOLD_BATCH):
                await self._hold_batch(calls[start : start + HOLD_BATCH])

    async def _hold_batch(self, calls: list[Call]) -> None:
        leases = [(call.id, call.owner, self._due_in(call)) for call in calls]
        try:
            held = await self._backing.durable_calls().hold(leases)
        except (ServerError, ConnectionError) as error:
            _log.warning("the leases of %d durable calls were not extended: %s", len(calls), error)
            return
        self._lose(call for call, still in zip(calls, held, strict=True) if not still)

    def _lose(self, calls: Iterable[Call]) -> None:
        for call in calls:
            # A call that ended meanwhile was settled: that is why it is no longer held.
            held = self._held.pop(call.id, None)
            if held is not None and not call.over and self.on_lost is not None:
                self.on_lost(call)

    def _due_in(self, call: Call) -> int:
        """Milliseconds until the queue may take the call over."""
        wait = 0.0
        if call.timer is not None:
            wait = max(0.0, call.timer.when() - asyncio.get_running_loop().time())
        return int((wait + self._lease) * 1000)


def _payload(call: Call, state: JobState) -> bytes:
    if state is JobState.FAILED:
        return pack_failure(call.failed or Failed("Lost", "", ""))
    if state is not JobState.SUCCEEDED:
        return b""
    try:
        return encode_value(call.returned)
    except PayloadError as error:
        _log.warning("the result of durable call %s stays in this process: %s", call.id, error)
        return encode_value(None)
