"""The drain: calls get a grace to end; what is left goes to the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from taskq.deferred.admission import Admission
from taskq.deferred.shift import Shift
from taskq.execution.attempt import Interruption

__all__ = ["drain"]

_log = logging.getLogger("taskq.deferred")

INTERRUPTED_SECONDS = 1.0
"""What calls get to clean up once they are interrupted."""


async def drain(
    shift: Shift, admission: Admission, grace: float, on_closed: Callable[[], None]
) -> None:
    """End a shift within `grace` seconds and a little more.

    Calls that run or could run go on, and what they defer is taken too. Those that are due only
    after the grace are not waited for. At its end what runs is interrupted, and `on_closed` is
    called: from then on calls are somebody else's.
    """
    loop = shift.loop
    deadline = shift.deadline = loop.time() + grace
    _bring_forward(shift, deadline)
    changed = asyncio.Event()
    shift.on_change = changed.set
    try:
        await _until_empty(shift, admission, changed, deadline)
        on_closed()
        shift.floor.close()
        await shift.preparation.settle_down(INTERRUPTED_SECONDS)
        await _interrupt(shift, changed)
    finally:
        shift.on_change = None
    left = [*shift.calls, *admission.outside]
    for call in left:
        call.step_out()
    await shift.hand_over.leftovers(sorted(left, key=lambda call: call.asked_at))
    for call in left:
        shift.forget(call)
    await shift.hand_over.drain()
    await shift.floor.executors.aclose()


async def _interrupt(shift: Shift, changed: asyncio.Event) -> None:
    running = list(shift.floor.running)
    if not running:
        return
    _log.warning("%d deferred calls did not end in time", len(running))
    for call in running:
        shift.floor.interrupt(call, Interruption.RELEASE)
    await _until_idle(shift, changed, shift.loop.time() + INTERRUPTED_SECONDS)
    for call in list(shift.floor.running):
        shift.floor.abandon(call)


def _bring_forward(shift: Shift, deadline: float) -> None:
    for call in list(shift.calls):
        if call.timer is None:
            continue
        if call.options.debounce is not None and not call.attempts:
            # Nobody will call again: what the calls so far asked for is known.
            shift.due(call)
        elif call.timer.when() > deadline:
            shift.beyond.add(call)


async def _until_empty(
    shift: Shift, admission: Admission, changed: asyncio.Event, deadline: float
) -> None:
    while len(shift.calls) > len(shift.beyond) or admission.outside:
        admission.let_in()
        if not await _wait(changed, deadline):
            return


async def _until_idle(shift: Shift, changed: asyncio.Event, deadline: float) -> None:
    while shift.floor.running:
        if not await _wait(changed, deadline):
            return


async def _wait(changed: asyncio.Event, deadline: float) -> bool:
    """Wait for a change; false when it is too late."""
    try:
        async with asyncio.timeout_at(deadline):
            await changed.wait()
    except TimeoutError:
        return False
    changed.clear()
    return True
