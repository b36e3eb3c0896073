"""A scheduler: connects election and leader, and stores the schedules that the code declares.

::

    Election ── looks, takes, renews, resigns ──> record of the leader on the server
        │ in office
        v
    Leader ── looks ahead ──> Agenda (plans) ── ticks ──> server: job made, schedule moved on
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from types import TracebackType

from taskq.broker.broker import Broker, BrokerSettings
from taskq.broker.schedule_record import StoredSchedule
from taskq.broker.schedules import ChangedSchedule, StoredSchedules
from taskq.core.errors import ConfigError, ServerError, ServerRefused
from taskq.core.ids import new_id, process_name
from taskq.redis.connection import ConnectionLost
from taskq.schedules.declared import Declared
from taskq.schedules.editor import begins_anew, lenient
from taskq.schedules.election import Election
from taskq.schedules.info import begun
from taskq.schedules.leader import Leader, Tally
from taskq.schedules.spec import Spec, from_ms

__all__ = ["Scheduler", "declare_again", "reconcile"]

_PAGE = 500
_TRIES = 3


async def reconcile(broker: Broker, declared: Sequence[Declared], modules: frozenset[str]) -> None:
    """Make the stored schedules match the code; unchanged ones keep changes made at run time.

    Removes stored declarations of `modules` that are no longer `declared`. A schedule that cannot
    be computed is paused with the reason, until the code changes it. Raises `ServerError`.
    """
    for _ in range(_TRIES):
        changes = await _changes(broker, declared)
        if all(await broker.schedules.put(changes)):
            # If another process did the same meanwhile, check again what is left to do.
            break
    await broker.schedules.declare(_modules(declared))
    await _remove_undeclared(broker, {item.id for item in declared}, modules)


async def declare_again(broker: Broker, declared: Sequence[Declared]) -> None:
    """Store the schedules of the code if the server lost everything since they were stored.

    Changes nothing while some are listed: then a missing schedule was removed on purpose.
    """
    if not declared or (await broker.schedules.count()).declared:
        return
    await broker.schedules.put(
        [change for change in await _changes(broker, declared) if not change.expected]
    )
    await broker.schedules.declare(_modules(declared))


def _modules(declared: Sequence[Declared]) -> dict[str, str]:
    return {item.id: item.spec.declared for item in declared}


async def _changes(broker: Broker, declared: Sequence[Declared]) -> list[ChangedSchedule]:
    changes: list[ChangedSchedule] = []
    for i in range(0, len(declared), _PAGE):
        some = declared[i : i + _PAGE]
        look = await broker.schedules.read([item.id for item in some])
        for item in some:
            change = _change(item, look)
            if change is not None:
                changes.append(change)
    return changes


def _change(item: Declared, look: StoredSchedules) -> ChangedSchedule | None:
    stored = look.found.get(item.id)
    before = None if stored is None else lenient(stored)
    if before is not None and before.fingerprint == item.spec.fingerprint:
        return None
    following, spec, trouble = _first(item, stored, before, look.now)
    paused = _why_paused(item, stored)
    broken = bool(trouble and not paused)
    word = "is new" if stored is None else "was changed by the code"
    _log.info("schedule %s %s: %s", item.id, word, spec.trigger.explain())
    if trouble:
        _log.error("schedule %s is paused, because it cannot be fired: %s", item.id, trouble)
    return ChangedSchedule(
        item.id,
        stored.revision if stored else "",
        new_id(),
        spec.pack(),
        following,
        paused or trouble[:1000],
        broken,
        begins_anew(stored, following),
    )


def _first(
    item: Declared, stored: StoredSchedule | None, before: Spec | None, now: int
) -> tuple[int | None, Spec, str]:
    """The next fire, the schedule that begins with it, and why it cannot be computed, or "".

    Both are kept where the trigger is the same.
    """
    spec = item.spec
    if before is not None and stored is not None and spec.same_times(before.fingerprint):
        spec = replace(spec, trigger=before.trigger, since=before.since)
        if not stored.broken:
            return stored.next, spec, ""
    try:
        begin, spec = begun(spec, now)
    except ConfigError as error:
        return None, spec, str(error)
    if begin is None:
        _log.warning(
            "schedule %s has no fire time from %s on; it is kept and never fires",
            item.id,
            from_ms(now),
        )
    return begin, spec, ""


def _why_paused(item: Declared, stored: StoredSchedule | None) -> str:
    """Why it is paused on purpose, or ""."""
    if stored is None:
        return "paused by the code" if item.paused else ""
    # A pause because of an error ends when the code changes.
    return "" if stored.broken else stored.paused or ""


async def _remove_undeclared(broker: Broker, ids: set[str], modules: frozenset[str]) -> None:
    listed = await broker.schedules.declared()
    gone = [name for name, module in listed.items() if name not in ids and module in modules]
    others = [f"{name} of {module}" for name, module in listed.items() if module not in modules]
    if gone:
        found = (await broker.schedules.read(gone)).found
        # A schedule that was replaced at run time no longer belongs to the code.
        removed = [name for name, stored in found.items() if _is_declared(stored)]
        await broker.schedules.remove(*((name, found[name].revision) for name in removed))
        await broker.schedules.undeclare(gone)
        if removed:
            _log.info("removed schedules the code no longer declares: %s", _shortened(removed))
    if others:
        _log.info(
            "left alone: schedules declared in modules this process has not loaded: %s",
            _shortened(others),
        )


def _is_declared(stored: StoredSchedule) -> bool:
    spec = lenient(stored)
    return spec is None or bool(spec.declared)


def _shortened(names: Iterable[str], most: int = 10) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


_log = logging.getLogger("taskq.scheduler")

LONGEST_PAUSE = 5.0


class Scheduler:
    """Fires schedules while it leads, and stands by while another scheduler leads.

    `declared` are the schedules of the code, compared with the stored ones once, at the start.
    `modules` are those whose tasks this process knows. Use it as `async with scheduler: ...`; it
    starts without a server and waits for one.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        declared: Sequence[Declared] = (),
        modules: frozenset[str] = frozenset(),
        *,
        name: str | None = None,
    ) -> None:
        self.name = name or process_name()
        self.tally = Tally()
        self._settings = settings
        self._declared = declared
        self._modules = modules
        self._election: Election | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def term(self) -> int | None:
        """The term in which it leads; None while it does not."""
        return None if self._election is None else self._election.term

    async def __aenter__(self) -> Scheduler:
        self._task = asyncio.create_task(self.run(), name="taskq-scheduler")
        self._task.add_done_callback(_tell_if_failed)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def run(self) -> None:
        """Run until cancelled; a leader then resigns at once."""
        broker = Broker(self._settings, name="taskq-scheduler")
        leader = Leader(broker, self.name, self.tally)

        async def lead(term: int) -> None:
            self.tally.terms += 1
            await declare_again(broker, self._declared)
            await leader.lead(term)

        election = self._election = Election(
            broker.leadership, self.name, lead, lambda: leader.has_schedules
        )
        try:
            await self._prepare(broker, election, leader)
            await self._stand(election)
        finally:
            self._election = None
            await broker.aclose()

    async def _stand(self, election: Election) -> None:
        """Run the election again after any error."""
        while True:
            try:
                await election.run()
            except Exception:
                _log.exception("the election failed, which is a bug in taskq; it starts again")
                await asyncio.sleep(1.0)

    async def _prepare(self, broker: Broker, election: Election, leader: Leader) -> None:
        """Subscribe, and store the declared schedules; waits for the server."""
        client, keys = broker.client, broker.keys
        pause = 0.1
        while True:
            try:
                await client.subscribe(keys.lead_channel, lambda _: election.freed())
                await client.subscribe(keys.schedule_channel, lambda _: leader.changed())
                await reconcile(broker, self._declared, self._modules)
                break
            except (ServerError, ConnectionLost) as error:
                level = logging.ERROR if isinstance(error, ServerRefused) else logging.WARNING
                _log.log(level, "cannot store the code's schedules: %s; trying again", error)
            except Exception:
                _log.exception(
                    "storing the code's schedules failed, which is a bug in taskq; trying again"
                )
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)
        client.on_reconnect(election.freed)
        client.on_reconnect(leader.changed)


def _tell_if_failed(task: asyncio.Task[None]) -> None:
    """Log a failure: nothing awaits the task of a scheduler."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the scheduler has ended: %r", error, exc_info=error)
