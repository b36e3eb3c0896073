"""Durable calls: in the queue before they run here, and settled there when they have.

A durable call is an ordinary job that is due when its process has been silent for the length of a
lease. While the process lives it puts that off, under a token that makes the call its own. Once a
worker has taken the job over, the token is worth nothing: the worker says how it ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from taskq.codec.envelope import pack_failure
from taskq.codec.payload import encode_value
from taskq.core.errors import PayloadError, ServerError
from taskq.core.ids import new_id
from taskq.core.job import JobState
from taskq.core.liveness import DURABLE_LOOKS_PER_LEASE
from taskq.core.outcome import Failed
from taskq.deferred.call import Call
from taskq.deferred.ports import Backing
from taskq.execution.request import Request

__all__ = ["Durable"]

_log = logging.getLogger("taskq.deferred")


class Durable:
    """Stores durable calls, holds them, and settles them. `on_lost` takes one the queue has now."""

    def __init__(self, backing: Backing, lease: float) -> None:
        self._backing = backing
        self._lease = lease
        self.on_lost: Callable[[Call], None] | None = None
        self._name = new_id()
        self._held: dict[str, Call] = {}
        self._holding: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def store(self, call: Call, request: Request) -> bool:
        """Put a call into the queue, due after its wait and a lease; false when its id is taken.

        Raises `ServerError` and `ConnectionError`.
        """
        # No other call has an id made by taskq; of one chosen by the caller the origin is unique.
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
        """Tell the queue how a call ended here."""
        own, kept = call.options.result_ttl, call.task.task_options.result_ttl
        self._spawn(self._settle(call, state, _payload(call, state), kept if own is None else own))

    async def let_go(self, call: Call, request: Request) -> bool:
        """Give a call to the queue now; false when that has it already.

        Raises `ServerError` and `ConnectionError`.
        """
        self._held.pop(call.id, None)
        return await self._backing.deferrals().let_go(request.job._replace(owner=call.owner))

    async def drain(self) -> None:
        """Wait until the queue has been told of everything."""
        while self._settling:
            await asyncio.wait(self._settling)
        if self._holding is not None:
            self._holding.cancel()
            await asyncio.wait((self._holding,))
            self._holding = None

    async def _settle(self, call: Call, state: JobState, payload: bytes, ttl: float) -> None:
        try:
            held = await self._backing.deferrals().settle(call.id, call.owner, state, payload, ttl)
        except (ServerError, ConnectionError) as error:
            _log.error("durable call %s has ended here and will run again: %s", call.id, error)
            return
        finally:
            self._held.pop(call.id, None)
        if not held:
            _log.warning(
                "durable call %s has ended here, but the queue took it over before: it may have "
                "run twice",
                call.id,
            )

    async def _hold(self) -> None:
        while True:
            await asyncio.sleep(self._lease / DURABLE_LOOKS_PER_LEASE)
            if not self._held:
                continue
            calls = list(self._held.values())
            for at in range(0, len(calls), 1000):
                await self._hold_some(calls[at : at + 1000])

    async def _hold_some(self, calls: list[Call]) -> None:
        leases = [(call.id, call.owner, self._due_in(call)) for call in calls]
        try:
            held = await self._backing.deferrals().hold(leases)
        except (ServerError, ConnectionError) as error:
            _log.warning("%d durable calls could not be held: %s", len(calls), error)
            return
        self._lose(call for call, still in zip(calls, held, strict=True) if not still)

    def _lose(self, calls: Iterable[Call]) -> None:
        for call in calls:
            # One that has ended meanwhile was settled, and is no longer held for that reason.
            held = self._held.pop(call.id, None)
            if held is not None and not call.over and self.on_lost is not None:
                self.on_lost(call)

    def _due_in(self, call: Call) -> int:
        wait = 0.0
        if call.timer is not None:
            wait = max(0.0, call.timer.when() - asyncio.get_running_loop().time())
        return int((wait + self._lease) * 1000)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)


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
