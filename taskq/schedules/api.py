"""`q.schedules`: schedules at run time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import chain, islice
from typing import Any, Unpack, cast

from taskq.broker.pool import BrokerPool
from taskq.broker.schedule_record import StoredSchedule
from taskq.broker.schedules import DueSchedule
from taskq.core.errors import ConfigError, ScheduleExists
from taskq.core.ids import new_id
from taskq.core.text import check_text
from taskq.execution.handle import Job
from taskq.execution.registry import Registry
from taskq.execution.task import Signature, Task
from taskq.schedules.editor import (
    Change,
    Editor,
    check_id,
    first_fire,
    lenient,
    not_found,
    options_for,
    refreshed,
    restless,
    walk,
    with_trigger,
)
from taskq.schedules.info import ScheduleInfo, check_trigger, info_of, make_spec
from taskq.schedules.planner import plan
from taskq.schedules.policy import ScheduleOptionValues
from taskq.schedules.spec import Spec, from_ms, spec_of, to_ms
from taskq.triggers.trigger import Trigger

__all__ = ["Schedules", "next_fires"]

_Infos = list[ScheduleInfo]
_Times = list[datetime]

_PAGE = 500
_TRIES = 20


class Schedules:
    """The schedules of a namespace, in code: `q.schedules`.

    Every change is stored at once, and the leader notices it within a tenth of a second.
    """

    def __init__(self, backend: BrokerPool, registry: Registry) -> None:
        self._editor = Editor(backend, registry)

    async def add(
        self,
        id: str,
        trigger: Trigger,
        what: Signature[Any] | Task[..., Any],
        *,
        replace: bool = False,
        **options: Unpack[ScheduleOptionValues],
    ) -> ScheduleInfo:
        """Add a schedule; it survives restarts of everything.

        `what` is a signature (`cleanup.s(30)`), or a task with `args=` and `kwargs=`.
        Adding the same schedule again changes nothing. `options`: see `ScheduleOptionValues`.

        Raises `ScheduleExists` when another schedule has this id, unless `replace` is true;
        `ConfigError` for options and for a trigger that never fires again; `CallError` for
        arguments that do not fit; `UnknownTask`. Nothing is stored then.

        >>> await q.schedules.add("cleanup", every(minutes=5), cleanup.s())
        """
        check_id(id)
        checked = options_for(what, cast("dict[str, Any]", options))
        spec = make_spec(self._editor.task_spec(what), check_trigger(trigger), checked)
        spec = refreshed(spec)
        paused = "paused when it was added" if checked.paused else None

        def change(stored: StoredSchedule | None, now: int) -> Change | None:
            if stored is not None:
                before = spec_of(stored) if not replace else lenient(stored)
                if before is not None and before.fingerprint == spec.fingerprint:
                    return None
                if not replace:
                    raise ScheduleExists(
                        f"another schedule is called {id!r} "
                        f"({info_of(stored).task}, {info_of(stored).explain()}); give this one "
                        "another id, or use add(..., replace=True)"
                    )
            following, anchored = first_fire(id, spec, now)
            return anchored.pack(), following, paused

        return await self._editor.put(id, change)

    async def get(self, id: str) -> ScheduleInfo | None:
        """The schedule with this id, or None."""
        stored = (await self._editor.store.read([id])).found.get(id)
        return None if stored is None else info_of(stored)

    async def list(self, *, tag: str | None = None, task: str | None = None) -> _Infos:
        """All schedules, or those of a `tag` or `task`, by next fire; those without come last."""
        infos: _Infos = []
        looked = 0
        while True:
            page = await self._editor.store.page(looked, _PAGE)
            infos += [info_of(stored) for stored in page.found.values()]
            looked += page.looked
            if page.looked < _PAGE and not page.more:
                break
        return [
            info
            for info in infos
            if (tag is None or tag in info.tags) and (task is None or task == info.task)
        ]

    async def pause(self, id: str, reason: str = "paused by hand") -> ScheduleInfo:
        """Pause a schedule until `resume`; `reason` is stored and shown.

        Raises `ScheduleNotFound`, and `ConfigError` for a reason that is not text, or too long.
        """
        why = check_text("reason", reason) or "paused by hand"

        def change(stored: StoredSchedule, _: int) -> Change:
            return None, stored.next, why

        return await self._editor.change(id, change)

    async def resume(self, id: str, *, catch_up: bool = False) -> ScheduleInfo:
        """Fire again, from the next fire time after now on.

        With `catch_up`, go on where it was paused: `misfire` and `coalesce` apply to missed fires.

        Raises `ScheduleNotFound`, and `ConfigError` when it has no more fire times.
        """

        def change(stored: StoredSchedule, now: int) -> Change | None:
            if stored.paused is None:
                return None
            spec = spec_of(stored)
            following = stored.next if catch_up else None
            following = spec.following(now) if following is None else following
            if following is None:
                raise ConfigError(
                    f"schedule {id!r} has no fire time after now; remove it, reschedule it, or "
                    "use resume(..., catch_up=True) for a fire it missed"
                )
            return None, following, None

        return await self._editor.change(id, change)

    async def reschedule(self, id: str, trigger: Trigger) -> ScheduleInfo:
        """Give a schedule another trigger; its next fire is computed from now.

        Raises `ScheduleNotFound`, and `ConfigError` for a trigger that never fires again.
        """
        check_trigger(trigger)

        def change(stored: StoredSchedule, now: int) -> Change:
            following, spec = first_fire(id, with_trigger(spec_of(stored), trigger), now)
            return refreshed(spec).pack(), following, stored.paused

        return await self._editor.change(id, change)

    async def modify(self, id: str, **options: Unpack[ScheduleOptionValues]) -> ScheduleInfo:
        """Change options of a schedule: all of them or, if one is invalid, none.

        Its next fire stays, unless `start` or `end` changes. None resets an option to its default.

        Raises `ScheduleNotFound`, `UnknownOption`, `ConfigError`, `CallError` and `UnknownTask`.
        """
        changes = cast("dict[str, Any]", options)
        if "paused" in changes:
            raise ConfigError("paused= is for a new schedule; use pause(id) or resume(id)")

        def change(stored: StoredSchedule, now: int) -> Change:
            spec = self._editor.modified(spec_of(stored), changes)
            following = stored.next
            if {"start", "end"} & changes.keys():
                following, spec = first_fire(id, spec, now)
            return refreshed(spec).pack(), following, stored.paused

        return await self._editor.change(id, change)

    async def remove(self, id: str) -> None:
        """Remove a schedule; its jobs stay.

        A schedule that the code declares comes back when a worker starts: remove it in the code.

        Raises `ScheduleNotFound`.
        """
        if (await self._editor.store.remove((id, "")))[0] != 1:
            raise not_found(id)

    async def run_now(self, id: str) -> Job[Any]:
        """Run a schedule once now, even if it is paused; its next fire stays.

        Raises `ScheduleNotFound`.
        """
        for _ in range(_TRIES):
            look = await self._editor.store.read([id])
            stored = look.found.get(id)
            if stored is None:
                raise not_found(id)
            spec = spec_of(stored)
            job_id = f"{id}:by-hand-{new_id()[-12:]}"
            envelope = spec.envelope(id, look.now, by_hand=True)
            made = await self._editor.store.run(
                id, stored.revision, job_id, envelope, spec.lane, spec.expires_after
            )
            if made:
                return self._editor.handle(job_id, spec)
        raise restless(id)

    async def preview(
        self, what: str | Trigger, n: int = 5, *, after: datetime | None = None
    ) -> _Times:
        """The next `n` fire times of a schedule or of a trigger, from now or after `after`.

        From now on, late fires that will still be made are included. A schedule gives fewer times
        when it ends before, or cannot be computed further.

        Raises `ScheduleNotFound`, and `ConfigError` when the trigger cannot be computed.
        """
        if isinstance(what, Trigger):
            now = from_ms((await self._editor.store.count()).now) if after is None else after
            return what.fires(now, n)
        look = await self._editor.store.read([what])
        stored = look.found.get(what)
        if stored is None:
            raise not_found(what)
        spec = spec_of(stored)
        if after is None:
            slots = _to_come(stored, spec, look.now)
        else:
            slots = walk(spec, spec.following(to_ms(after)))
        return [spec.fire_time(slot) for slot in islice(slots, n)]


async def next_fires(schedules: Schedules, n: int) -> list[tuple[datetime, str]]:
    """The next `n` fire times of all active schedules, each with the id of its schedule."""
    active = [info for info in await schedules.list() if info.state == "active"]
    # Listed by their next fire: only the first n can have one of the first n fires.
    fires = [
        (fire, info.id)
        for info in active[:n]
        if info.trigger is not None
        for fire in await schedules.preview(info.id, n)
    ]
    return sorted(fires)[:n]


def _to_come(stored: StoredSchedule, spec: Spec, now: int) -> Iterator[int]:
    """The fires from now on, as the leader would make them."""
    if stored.next is not None and stored.next > now:
        return walk(spec, stored.next)
    if stored.next is None or stored.paused is not None:
        return walk(spec, spec.following(now))
    due = DueSchedule(stored.id, stored.revision, stored.next, stored.last, stored.waits)
    firing = plan(due, spec, now)
    return chain((job.slot for job in firing.jobs), walk(spec, firing.following))
