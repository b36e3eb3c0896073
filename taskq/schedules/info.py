"""Schedules as users define and see them: checked arguments in, `ScheduleInfo` out."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

from taskq.broker.schedule_record import StoredSchedule
from taskq.codec.payload import decode_call
from taskq.core.errors import ConfigError, DecodeError, PayloadError
from taskq.execution.request import TaskSpec
from taskq.schedules.policy import Policy, ScheduleOptions
from taskq.schedules.spec import Spec, from_ms, spec_of
from taskq.triggers.packing import pack_trigger
from taskq.triggers.trigger import Trigger

__all__ = [
    "ScheduleInfo",
    "ScheduleState",
    "begun",
    "check_trigger",
    "info_of",
    "make_spec",
    "schedule_json",
]


def check_trigger(trigger: Any) -> Trigger:
    """Return `trigger` if it can be stored; raises `ConfigError`."""
    if not isinstance(trigger, Trigger):
        raise ConfigError(
            f"{trigger!r} is not a trigger; use cron('0 8 * * *'), every(minutes=5) or at(instant)"
        )
    pack_trigger(trigger)
    return trigger


def make_spec(task_spec: TaskSpec, trigger: Trigger, options: ScheduleOptions) -> Spec:
    """Make the schedule of a task with these options.

    Raises `CallError` for arguments that do not fit, `EncodeError` for arguments that cannot
    travel, and `ConfigError`.
    """
    payload = task_spec.payload(options.args or (), options.kwargs or {})
    job, defaults = options.job, task_spec.options
    for name in ("delay", "eta", "id"):
        if getattr(job, name) is not None:
            raise ConfigError(
                f"{name}= is for single jobs; a schedule sets the times and ids of its jobs"
            )
    spec = Spec(
        task=task_spec.name,
        payload=payload,
        trigger=trigger,
        policy=options.policy,
        queue=defaults.queue if job.queue is None else job.queue,
        priority=defaults.priority if job.priority is None else job.priority,
        executor="" if defaults.executor == "loop" else defaults.executor,
        timeout=job.timeout,
        result_ttl=job.result_ttl,
        retry=job.retry,
        headers=dict(job.headers),
        expires=_seconds(job.expires) if job.expires is not None else defaults.expires,
        tags=options.tags,
        metadata=options.metadata,
    )
    # Refuses what cannot be stored.
    spec.pack()
    return spec


def begun(spec: Spec, now: int) -> tuple[int | None, Spec]:
    """The first fire time of a schedule added at `now`, and the schedule that begins with it.

    Raises `ConfigError` when it cannot be computed.
    """
    try:
        anchored = replace(spec, trigger=spec.trigger.anchored(from_ms(now)))
        begin = anchored.begin(now)
        return begin, replace(anchored, since=begin)
    except ConfigError:
        raise
    except Exception as error:  # a trigger may raise anything
        raise ConfigError(f"the first fire time cannot be computed: {error!r}") from error


def _seconds(expires: Any) -> float:
    if isinstance(expires, (int, float)):
        return float(expires)
    raise ConfigError(
        "expires= of a schedule is a duration from each fire; for an instant use end=, after "
        "which it no longer fires"
    )


ScheduleState = Literal["active", "paused", "finished"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleInfo:
    """Everything the server knows about a schedule.

    `next_fire` is None for a `finished` schedule; a paused one shows the fire before which it was
    paused. `next_fire` and `last_fire` are in the time zone of the trigger, other instants in UTC.
    `last_fire` is the last fire time that was made or skipped. `fired` counts fires that made a
    job, `skipped` those that did not, the last of them at `last_skip` because of `skip_reason`.
    `running` are ids of its jobs that had not ended when it last fired; with `waiting`, a fire
    waits for them. `declared` is the module that declares it, None for a schedule added at run
    time. `trigger` is None and `task` "" when they cannot be read here; `pause_reason` says why.
    """

    id: str
    state: ScheduleState
    task: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    trigger: Trigger | None = None
    next_fire: datetime | None = None
    last_fire: datetime | None = None
    pause_reason: str | None = None
    fired: int = 0
    skipped: int = 0
    last_skip: datetime | None = None
    skip_reason: str | None = None
    waiting: bool = False
    running: tuple[str, ...] = ()
    queue: str = ""
    priority: int = 5
    policy: Policy = field(default_factory=Policy)
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    declared: str | None = None
    added_at: datetime | None = None
    changed_at: datetime | None = None

    @property
    def paused(self) -> bool:
        """Whether it does not fire until `resume`."""
        return self.pause_reason is not None

    def explain(self) -> str:
        """When it fires, in plain words."""
        return "it cannot be read here" if self.trigger is None else self.trigger.explain()


def schedule_json(info: ScheduleInfo) -> dict[str, Any]:
    """A schedule without its trigger, which `explained` describes; `json_of` writes it."""
    shown = {item.name: getattr(info, item.name) for item in fields(info)}
    del shown["trigger"]
    return {"explained": info.explain(), **shown}


def info_of(stored: StoredSchedule) -> ScheduleInfo:
    """Read a stored schedule, as far as it can be read."""
    state: ScheduleState = "active"
    if stored.paused is not None:
        state = "paused"
    elif stored.next is None:
        state = "finished"
    spec = _readable(stored)
    fire_time = from_ms if spec is None else spec.fire_time
    return ScheduleInfo(
        id=stored.id,
        state=state,
        next_fire=fire_time(stored.next) if stored.next else None,
        last_fire=fire_time(stored.last) if stored.last else None,
        pause_reason=stored.paused,
        fired=stored.fired,
        skipped=stored.skipped,
        last_skip=_instant(stored.last_skip.at) if stored.last_skip else None,
        skip_reason=stored.last_skip.why if stored.last_skip else None,
        waiting=stored.waits,
        running=stored.running,
        added_at=_instant(stored.added),
        changed_at=_instant(stored.changed),
        **(_content(spec) if spec is not None else {}),
    )


def _readable(stored: StoredSchedule) -> Spec | None:
    try:
        return spec_of(stored)
    except DecodeError:
        return None


def _content(spec: Spec) -> dict[str, Any]:
    try:
        args, kwargs = decode_call(spec.payload)
    except PayloadError:
        args, kwargs = [], {}
    return {
        "task": spec.task,
        "args": tuple(args),
        "kwargs": kwargs,
        "trigger": spec.trigger,
        "queue": spec.queue,
        "priority": spec.priority,
        "policy": spec.policy,
        "tags": spec.tags,
        "metadata": spec.metadata,
        "declared": spec.declared or None,
    }


def _instant(milliseconds: int | None) -> datetime | None:
    return from_ms(milliseconds) if milliseconds else None
