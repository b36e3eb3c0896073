"""Changes of stored schedules: read, compute, and store unless the schedule has changed since."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any

from taskq.broker.pool import BrokerPool
from taskq.broker.schedule_record import StoredSchedule
from taskq.broker.schedules import ChangedSchedule, ScheduleStore
from taskq.codec.payload import decode_call
from taskq.core.errors import (
    ConfigError,
    DecodeError,
    ScheduleNotFound,
    ServerUnavailable,
    TaskqError,
)
from taskq.core.ids import check_name, new_id
from taskq.core.options import ExecutorName, JobOptions, TaskOptions
from taskq.execution.handle import Job
from taskq.execution.registry import Registry
from taskq.execution.request import TaskSpec
from taskq.execution.task import Signature, Task, job_options_of, task_spec_of
from taskq.schedules.info import ScheduleInfo, begun, info_of, make_spec
from taskq.schedules.policy import ScheduleOptions
from taskq.schedules.spec import Spec, from_ms, spec_of
from taskq.triggers.trigger import Trigger

__all__ = [
    "Change",
    "Editor",
    "begins_anew",
    "check_id",
    "first_fire",
    "lenient",
    "not_found",
    "options_for",
    "refreshed",
    "restless",
    "walk",
    "with_trigger",
]

Change = tuple[bytes | None, int | None, str | None]
"""The bytes of a schedule (None: as they are), its next fire (ms), and why it is paused."""

_LONGEST_ID = 100
_TRIES = 20


class Editor:
    """Reads and writes schedules of one namespace, and knows the tasks of this process."""

    def __init__(self, backend: BrokerPool, registry: Registry) -> None:
        self._backend = backend
        self._registry = registry

    @property
    def store(self) -> ScheduleStore:
        """The schedules on the server, by the connection of the running loop."""
        return self._backend.current().schedules

    async def change(
        self, id: str, change: Callable[[StoredSchedule, int], Change | None]
    ) -> ScheduleInfo:
        """Change an existing schedule; `change` receives it and the server's time (ms)."""

        def existing(stored: StoredSchedule | None, now: int) -> Change | None:
            if stored is None:
                raise not_found(id)
            return change(stored, now)

        return await self.put(id, existing)

    async def put(
        self, id: str, change: Callable[[StoredSchedule | None, int], Change | None]
    ) -> ScheduleInfo:
        """Store what `change` returns for a schedule or for None; None changes nothing."""
        for _ in range(_TRIES):
            look = await self.store.read([id])
            stored = look.found.get(id)
            changed = change(stored, look.now)
            if changed is None:
                if stored is None:
                    raise not_found(id)
                return info_of(stored)
            spec, following, paused = changed
            revision = stored.revision if stored else ""
            # A schedule paused by an error stays so until it is resumed or paused by hand.
            broken = stored is not None and stored.broken and paused == stored.paused
            begins = spec is not None and begins_anew(stored, following)
            put = ChangedSchedule(
                id, revision, new_id(), spec, following, paused or "", broken, begins
            )
            if (await self.store.put([put]))[0]:
                found = (await self.store.read([id])).found.get(id)
                return info_of(_as_put(put, look.now) if found is None else found)
        raise restless(id)

    def task_spec(self, what: Signature[Any] | Task[..., Any]) -> TaskSpec:
        """The task to run; raises `UnknownTask` when it is not registered here."""
        if not isinstance(what, (Signature, Task)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"{what!r} is not a task with arguments; use task.s(1, 2), or the task itself"
            )
        task_spec = task_spec_of(what)
        if self._registry.find(task_spec.name) is None:
            raise self._registry.unknown(task_spec.name)
        return task_spec

    def modified(self, spec: Spec, changes: Mapping[str, Any]) -> Spec:
        """The schedule with changed options, all of them checked."""
        task = self._registry.find(spec.task)
        if task is None and {"args", "kwargs"} & changes.keys():
            raise self._registry.unknown(spec.task)
        task_spec = task_spec_of(task) if task is not None else _by_name(spec)
        made = make_spec(task_spec, spec.trigger, _options_of(spec).with_changes(changes))
        return replace(made, since=spec.since, declared=spec.declared, fingerprint=spec.fingerprint)

    def handle(self, job_id: str, spec: Spec) -> Job[Any]:
        """A handle for a job of a schedule."""
        task = self._registry.find(spec.task)
        rebuild = None if task is None else task_spec_of(task).rebuild
        kept = spec.result_ttl
        if kept is None and task is not None:
            kept = task.task_options.result_ttl
        return Job(self._backend, job_id, created=True, keeps_result=kept != 0, rebuild=rebuild)


def check_id(id: str) -> str:
    """Return `id` if it leaves room for a fire time in the ids of the jobs of the schedule."""
    check_name("schedule", id)
    if len(id) > _LONGEST_ID:
        raise ConfigError(
            f"schedule {id!r} has {len(id)} characters; use up to {_LONGEST_ID}, so that the ids "
            "of its jobs can hold the fire time too"
        )
    return id


def options_for(
    what: Signature[Any] | Task[..., Any], options: Mapping[str, Any]
) -> ScheduleOptions:
    """The options of a schedule of a task, or of a signature with its own arguments and options."""
    if not isinstance(what, Signature):
        return ScheduleOptions().with_changes(options)
    if {"args", "kwargs"} & options.keys():
        raise ConfigError(
            "the signature already has arguments; put them there, task.s(1), or pass the task "
            "and args=, kwargs="
        )
    signed = ScheduleOptions(job=job_options_of(what), args=what.args, kwargs=what.kwargs)
    return signed.with_changes(options)


def first_fire(id: str, spec: Spec, now: int) -> tuple[int, Spec]:
    """The next fire from now on, and the schedule that begins with it; it must have a fire."""
    following, anchored = begun(spec, now)
    if following is None:
        raise ConfigError(
            f"schedule {id!r} would never fire: its trigger has no fire time after "
            f"{from_ms(now):%Y-%m-%d %H:%M:%S} UTC ({spec.trigger.explain()}); use one that has, "
            "and check end="
        )
    return following, anchored


def refreshed(spec: Spec) -> Spec:
    """The schedule with a fingerprint of its content; a declared one keeps that of the code."""
    return spec if spec.declared else replace(spec, fingerprint=spec.content)


def with_trigger(spec: Spec, trigger: Trigger) -> Spec:
    """The schedule with another trigger."""
    return replace(spec, trigger=trigger)


def lenient(stored: StoredSchedule) -> Spec | None:
    """Read a stored schedule; None when it cannot be read."""
    try:
        return spec_of(stored)
    except DecodeError:
        return None


def begins_anew(stored: StoredSchedule | None, following: int | None) -> bool:
    """Whether a new trigger begins with this next fire, which the stored trigger does not have.

    Such a fire is made even if it lies before the last fire of the stored trigger. A fire that both
    triggers have is not made twice.
    """
    if stored is None or following is None or following == stored.next:
        return False
    before = lenient(stored)
    try:
        return before is None or before.following(following - 1) != following
    except Exception:  # it cannot be computed, which may be why it is changed
        return True


def walk(spec: Spec, slot: int | None) -> Generator[int, None, None]:
    """A fire time and the following ones, as far as they can be computed."""
    while slot is not None:
        yield slot
        try:
            slot = spec.following(slot)
        except ConfigError:
            return


def not_found(id: str) -> ScheduleNotFound:
    """The error for an unknown id."""
    return ScheduleNotFound(f"there is no schedule {id!r}; `taskq schedule ls` lists them all")


def restless(id: str) -> TaskqError:
    """The error for a schedule that other processes keep changing."""
    return ServerUnavailable(f"schedule {id!r} keeps being changed by other processes; try again")


def _as_put(put: ChangedSchedule, now: int) -> StoredSchedule:
    """The schedule as it was stored; it has fired and ended before it could be read."""
    return StoredSchedule(
        id=put.id,
        revision=put.revision,
        spec=put.spec or b"",
        next=put.next,
        added=now,
        changed=now,
    )


def _options_of(spec: Spec) -> ScheduleOptions:
    args, kwargs = decode_call(spec.payload)
    job = JobOptions(
        queue=spec.queue,
        priority=spec.priority,
        timeout=spec.timeout,
        result_ttl=spec.result_ttl,
        retry=spec.retry,
        expires=spec.expires,
        headers=spec.headers,
    )
    return ScheduleOptions(
        policy=spec.policy,
        job=job,
        args=tuple(args),
        kwargs=kwargs,
        tags=spec.tags,
        metadata=spec.metadata,
    )


_EXECUTORS: dict[str, ExecutorName] = {"thread": "thread", "process": "process"}


def _by_name(spec: Spec) -> TaskSpec:
    """A task known by name only, with the options of the schedule."""
    options = TaskOptions(
        queue=spec.queue, priority=spec.priority, executor=_EXECUTORS.get(spec.executor, "loop")
    )
    return TaskSpec(spec.task, options, check=None, rebuild=None)
