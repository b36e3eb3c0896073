"""Preparation: what is awaited before the first attempt of some calls.

The middleware around handing in, and storing durable calls. Most calls need neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from taskq.core.errors import ServerError
from taskq.deferred.call import Call, CrossLoopEvent
from taskq.deferred.durable import Durable
from taskq.deferred.handover import HandOver, job_of
from taskq.execution.handle import Deferred
from taskq.execution.middleware import JobDraft, Middleware, handed_in, through

__all__ = ["Preparation"]

_log = logging.getLogger("taskq.deferred")

Prepared = Callable[[Call, BaseException | None], None]


class Preparation:
    """Prepares calls, each in an asyncio task of its own."""

    def __init__(self, middleware: Middleware, durable: Durable, hand_over: HandOver) -> None:
        self.layers = middleware.enqueues
        self._durable = durable
        self._hand_over = hand_over
        self._sending: set[asyncio.Task[None]] = set()

    def prepare(self, call: Call, prepared: Prepared) -> None:
        """Call it through the middleware around handing in, and store it if it is durable.

        `prepared` is told at the end, unless the call is over then or asks for something else.
        """
        if call.accepted is None:
            call.accepted = CrossLoopEvent()
        self._spawn(self._prepare(call, call.edition, prepared), call)

    async def _prepare(self, call: Call, edition: int, prepared: Prepared) -> None:
        if _outdated(call, edition):
            return
        refusal: Exception | None = None
        try:
            await self._hand_in(call, edition)
            if call.options.durable and not _outdated(call, edition):
                await self._store(call)
        except Exception as error:
            refusal = error
        if _outdated(call, edition):
            return
        if refusal is None:
            call.accept()
        prepared(call, refusal)

    async def _hand_in(self, call: Call, edition: int) -> None:
        async def innermost(draft: JobDraft) -> Deferred[Any]:
            if not _outdated(call, edition):
                call.args, call.kwargs, call.options = draft.args, draft.kwargs, draft.options
            return Deferred(call)

        draft = JobDraft(
            task=call.task.name,
            args=call.args,
            kwargs=call.kwargs,
            options=call.options,
            verb="defer",
        )
        handle = await through(self.layers, draft, innermost)
        handed_in(Deferred[Any], Deferred, handle, draft)

    async def _store(self, call: Call) -> None:
        """Store a durable call; a job of its id that is there already is it from now on."""
        request = job_of(call)
        try:
            created = await self._durable.store(call, request)
        except (ServerError, ConnectionError) as error:
            _log.warning(
                "deferred %s (%s) runs, and is not durable: %s", call.task.name, call.id, error
            )
            call.refusal = error
            return
        if call.over:
            # Cancelled while it was on its way. A job that was there before is none of its own.
            if created:
                self._durable.settle(call, call.state)
        elif not created:
            self._hand_over.replace(call)

    async def settle_down(self, within: float) -> None:
        """Wait `within` seconds for what is being prepared or sent, and give up on the rest."""
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=within)
            for task in late:
                task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], call: Call) -> None:
        task = asyncio.get_running_loop().create_task(work, context=call.context.copy())
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)


def _outdated(call: Call, edition: int) -> bool:
    return call.over or call.edition != edition
