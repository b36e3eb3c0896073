"""Plans a tick of one schedule: the fires it makes, those it skips, and the next one.

Pure: times are milliseconds of the server's clock, passed in by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from taskq.broker.schedules import DueSchedule, Firing, FiringJob, Overlap
from taskq.core.errors import ConfigError
from taskq.redis.connection import MESSAGE_BYTES
from taskq.schedules.spec import Spec, from_ms

__all__ = ["job_id", "plan"]

_DAY: Final = 86_400_000
_AUTO_FROM: Final = 60_000
_IN_TIME: Final = 1_000
"""Fires are not late up to this: a leader takes a moment to make them."""

_COUNTED: Final = 50
"""Skipped fires that are counted one by one: each takes 50 us to compute, or more."""

_BACK: Final = 1_000
_SPARE: Final = 5
_UNLIMITED: Final = 1_000_000


@dataclass(slots=True)
class _Missed:
    """Fire times from the first that is due, how many in all, and what follows.

    If not `exact`, these are only the latest. `broken` says why the next fire is unknown.
    """

    slots: list[int]
    count: int
    following: int | None
    exact: bool = True
    broken: str = ""


def plan(due: DueSchedule, spec: Spec, now: int) -> Firing:
    """Plan a schedule that is due, or will be soon; a plan made early is made as of its fire time.

    A schedule that `waits` for its last run has no limit of lateness. An error of the trigger after
    the first fire becomes part of the plan, so that the first fire is made.
    """
    if due.next is None:
        raise ConfigError("it is due, and has no next fire time")
    now = max(now, due.next)
    missed = _missed(spec, due.next, now)
    grace = None if due.waits else _grace(spec, missed)
    slots = _chosen(spec, due.next, now, missed, grace)
    jobs = _jobs(due.id, spec, slots, missed.following)
    # Fires too large for one call are made by the next one, which begins where this one ends.
    rest = slots[len(jobs) :]
    overlap, limit = _overlap(spec)
    return Firing(
        id=due.id,
        revision=due.revision,
        slot=due.next,
        following=rest[0] if rest else missed.following,
        until=_until(slots, missed.following, grace),
        jobs=jobs,
        lane=spec.lane,
        overlap=overlap,
        limit=limit,
        left_out=missed.count - len(slots),
        why=_why(missed, slots),
        expires=spec.expires_after,
        keep=bool(spec.declared),
        broken="" if rest else missed.broken,
    )


def job_id(schedule: str, slot: int) -> str:
    """The id of the job of one fire: readable, and the same from every scheduler.

    Ids that callers choose have no `@`, so none of them can be that of a fire.

    >>> job_id("nightly", 1_800_000_000_000)
    'nightly@2027-01-15T08:00:00Z'
    """
    instant = from_ms(slot)
    fraction = f".{slot % 1000:03d}" if slot % 1000 else ""
    return f"{schedule}@{instant:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _jobs(
    schedule: str, spec: Spec, slots: tuple[int, ...], following: int | None
) -> tuple[FiringJob, ...]:
    """The jobs of as many of these fires as fit into a call, but at least one."""
    jobs: list[FiringJob] = []
    size = 0
    for slot in slots:
        job = _job(schedule, spec, slot, following)
        size += len(job.envelope)
        if jobs and size > MESSAGE_BYTES:
            break
        jobs.append(job)
    return tuple(jobs)


def _job(schedule: str, spec: Spec, slot: int, following: int | None) -> FiringJob:
    due = slot + _jitter(schedule, spec, slot, following)
    return FiringJob(slot, due, job_id(schedule, slot), spec.envelope(schedule, slot))


def _missed(spec: Spec, first: int, now: int) -> _Missed:
    """The fires from `first` to `now`; with many, the latest are searched backwards from `now`."""
    wanted = _wanted(spec)
    slots = [first]
    try:
        following = _walk(spec, slots, spec.following(first), now, wanted + _COUNTED)
        if following is None or following > now:
            return _Missed(slots, len(slots), following)
        latest, following = _latest(spec, first, now, wanted)
        return _Missed(latest, len(slots), following, exact=False)
    except Exception as error:  # a trigger may raise anything: due fires are made all the same
        broken = f"{type(error).__name__}: {error}"[:1000]
        return _Missed(slots, len(slots), None, broken=broken)


def _wanted(spec: Spec) -> int:
    return spec.policy.max_catchup if spec.policy.coalesce == "all" else 1


def _walk(spec: Spec, slots: list[int], slot: int | None, now: int, most: int) -> int | None:
    """Add the fires from `slot` to `now` to `slots`, up to `most`; returns the following one."""
    while slot is not None and slot <= now and len(slots) < most:
        slots.append(slot)
        slot = spec.following(slot)
    return slot


def _latest(spec: Spec, first: int, now: int, wanted: int) -> tuple[list[int], int | None]:
    """The latest fires up to `now`, at least `wanted`, and the one after them.

    From `first` on there are more. Searches for a moment since when there are enough and not many
    more: ever farther back from `now`, then between the last moment with too few fires and the last
    with too many.
    """
    many, few, back = first - 1, now, _BACK
    while many + 1 < few:
        since = max(now - back, (many + few) // 2)
        slots: list[int] = []
        following = _walk(spec, slots, spec.following(since), now, 2 * wanted + _SPARE)
        if following is not None and following <= now:
            many = since
        elif len(slots) >= wanted:
            return slots, following
        else:
            few, back = since, back * 2
    raise ConfigError(
        f"the trigger gives other fire times from another moment on: {spec.trigger.explain()}"
    )


def _grace(spec: Spec, missed: _Missed) -> int | None:
    """How late a fire may be, in milliseconds; None: without limit."""
    given = spec.policy.misfire
    if given is None:
        return None
    if given != "auto":
        return max(int(given * 1000), _IN_TIME)
    if missed.following is None:
        return None
    period = missed.following - missed.slots[-1]
    return None if period >= _AUTO_FROM else period


def _chosen(
    spec: Spec, first: int, now: int, missed: _Missed, grace: int | None
) -> tuple[int, ...]:
    """The missed fires that are made."""
    oldest = first if grace is None else now - grace
    if spec.policy.coalesce == "earliest":
        slot = _first_from(spec, oldest, missed)
        return () if slot is None or slot > now else (slot,)
    if spec.policy.coalesce == "all":
        oldest = max(oldest, now - _DAY)
    return tuple(slot for slot in missed.slots[-_wanted(spec) :] if slot >= oldest)


def _first_from(spec: Spec, oldest: int, missed: _Missed) -> int | None:
    if missed.exact:
        return next((slot for slot in missed.slots if slot >= oldest), None)
    return spec.following(oldest - 1)


def _until(slots: tuple[int, ...], following: int | None, grace: int | None) -> int | None:
    """The time from which the plan would be different."""
    ends = [following] if following is not None else []
    if grace is not None and slots:
        ends.append(slots[0] + grace + 1)
    return min(ends, default=None)


def _overlap(spec: Spec) -> tuple[Overlap, int]:
    match spec.policy.overlapping:
        case "skip":
            return "skip", 1
        case "queue_one":
            return "wait", 1
        case "allow":
            return "allow", 1
        case "cancel_previous":
            return "cancel", _UNLIMITED
        case number:
            return "skip", number


def _jitter(schedule: str, spec: Spec, slot: int, following: int | None) -> int:
    """The random delay of this fire: the same for the same fire, and before the next one."""
    most = spec.jitter_ms
    if following is not None:
        most = min(most, following - slot - 1)
    if most <= 0:
        return 0
    digest = blake2b(f"{schedule}:{slot}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % (most + 1)


def _why(missed: _Missed, slots: tuple[int, ...]) -> str:
    reason = "coalesced" if slots else "misfire"
    return reason if missed.exact else f"{reason}, and more that were not counted"
