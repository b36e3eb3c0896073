"""From what users type to a `Spec`: checked against the task before anything is stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taskq.core.errors import ConfigError
from taskq.execution.request import Callee
from taskq.scheduler.policy import ScheduleOptions
from taskq.scheduler.spec import Spec, from_ms
from taskq.triggers.packing import pack_trigger
from taskq.triggers.trigger import Trigger

__all__ = ["begun", "check_trigger", "make_spec"]


def check_trigger(trigger: Any) -> Trigger:
    """`trigger` if it is one that can be stored, else `ConfigError`."""
    if not isinstance(trigger, Trigger):
        raise ConfigError(
            f"{trigger!r} is no trigger; type cron('0 8 * * *'), every(minutes=5) or at(instant)"
        )
    pack_trigger(trigger)
    return trigger


def make_spec(callee: Callee, trigger: Trigger, options: ScheduleOptions) -> Spec:
    """The schedule of a task under these options.

    Raises `CallError` for arguments that do not fit, `EncodeError` for ones that cannot travel, and
    `ConfigError`.
    """
    payload = callee.payload(options.args or (), options.kwargs or {})
    job, defaults = options.job, callee.options
    for name in ("delay", "eta", "id"):
        if getattr(job, name) is not None:
            raise ConfigError(
                f"{name}= is for single jobs; a schedule gives its jobs their time and their ids"
            )
    spec = Spec(
        task=callee.name,
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
    # What cannot be stored is refused here and now.
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
    except Exception as error:  # a trigger that raises what it likes
        raise ConfigError(f"the first fire time cannot be computed: {error!r}") from error


def _seconds(expires: Any) -> float:
    if isinstance(expires, (int, float)):
        return float(expires)
    raise ConfigError(
        "expires= of a schedule is a duration from each fire; an instant is end=, after which it "
        "fires no more"
    )
