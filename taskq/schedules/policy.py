"""Options of a schedule: frozen, checked, and helpful about misspellings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, cast

from taskq.core.durations import Duration, instant_ms, seconds
from taskq.core.errors import ConfigError
from taskq.core.options import JobOptions, check_known
from taskq.core.retry import Retry
from taskq.core.text import check_text, check_texts

__all__ = [
    "Coalesce",
    "OverlapName",
    "Policy",
    "ScheduleOptionValues",
    "ScheduleOptions",
]

OverlapName = Literal["skip", "queue_one", "allow", "cancel_previous"]
Coalesce = Literal["latest", "earliest", "all"]

_OVERLAPS: Final = ("skip", "queue_one", "allow", "cancel_previous")
_COALESCE: Final = ("latest", "earliest", "all")
_MOST_CATCHUP: Final = 10_000
_MOST_TAGS: Final = 100
_JOB_OPTIONS: Final = (
    *("queue", "priority", "timeout", "result_ttl", "retry", "headers", "expires"),
)


class ScheduleOptionValues(TypedDict, total=False):
    """The keywords of `@q.schedule(...)`, `q.schedules.add(...)` and `modify(...)`.

    `queue`, `priority`, `timeout`, `result_ttl`, `retry`, `headers` and `expires` (a duration from
    each fire) are those of single jobs.
    `args`, `kwargs`: the arguments of the task.
    `misfire`: how late a fire may still be made, as a duration of at least a second; None: without
    limit; "auto", the default: without limit for a period of a minute or more, up to one period for
    shorter ones.
    `coalesce`: of several missed fires make the `latest` (default), the `earliest`, or `all`, but
    at most `max_catchup` (100) and none older than a day.
    `overlap`: while the previous run has not ended `skip` (default), `queue_one`, `allow`,
    `cancel_previous`, or the number of runs allowed at once.
    `jitter`: a duration; each fire is delayed on purpose by up to that.
    `start`, `end`: aware datetimes, the first and the last moment of a fire.
    `paused`: start paused. `tags`: a few words; `metadata`: a dict of strings; both only stored.
    """

    args: Iterable[Any]
    kwargs: Mapping[str, Any]
    queue: str | None
    priority: int | None
    timeout: Duration | None
    result_ttl: Duration | None
    retry: Retry | int | None
    headers: dict[str, str]
    expires: Duration | None
    misfire: Duration | Literal["auto"] | None
    coalesce: Coalesce
    max_catchup: int
    overlap: OverlapName | int | None
    jitter: Duration | None
    start: datetime | None
    end: datetime | None
    paused: bool
    tags: Iterable[str]
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a schedule fires besides its trigger; instants are in ms, durations in seconds."""

    misfire: float | Literal["auto"] | None = "auto"
    coalesce: Coalesce = "latest"
    max_catchup: int = 100
    overlap: OverlapName | int | None = None
    jitter: float | None = None
    start: int | None = None
    end: int | None = None

    def __post_init__(self) -> None:
        if self.coalesce == "all" and self.overlap in ("skip", "cancel_previous", 1):
            raise ConfigError(
                f"coalesce='all' with overlap={self.overlap!r} would make one run of many; use "
                "overlap='queue_one' to run them one after another, or 'allow'"
            )
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ConfigError("end= is before start=: it would never fire; swap them")

    @property
    def overlapping(self) -> OverlapName | int:
        """`overlap`, or its default: with `coalesce="all"` runs follow one another."""
        if self.overlap is not None:
            return self.overlap
        return "queue_one" if self.coalesce == "all" else "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """All options of a schedule, checked; `args` and `kwargs` are None when not given."""

    policy: Policy = field(default_factory=Policy)
    job: JobOptions = field(default_factory=JobOptions)
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] | None = None
    paused: bool | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    def with_changes(self, changes: Mapping[str, Any]) -> ScheduleOptions:
        """A copy with `changes`, each checked; raises `UnknownOption` and `ConfigError`."""
        check_known("schedules", changes, _KNOWN)
        policy = {name: _CHECKS[name](name, changes[name]) for name in _POLICY & changes.keys()}
        own = {name: _CHECKS[name](name, changes[name]) for name in _OWN & changes.keys()}
        return replace(
            self,
            policy=replace(self.policy, **policy),
            job=_job_options(self.job, changes),
            **own,
        )


def _job_options(job: JobOptions, changes: Mapping[str, Any]) -> JobOptions:
    given = {name: changes[name] for name in _JOB_OPTIONS if name in changes}
    if isinstance(given.get("expires"), datetime):
        raise ConfigError(
            "expires= of a schedule is a duration from each fire; for an instant use end=, after "
            "which it no longer fires"
        )
    # None resets an option: with_changes alone would keep it.
    cleared = {name: None for name, value in given.items() if value is None and name != "headers"}
    return replace(job, **cleared).with_changes(**given)


def _misfire(name: str, value: Any) -> float | Literal["auto"] | None:
    return value if value in (None, "auto") else seconds(name, value)


def _choice(choices: tuple[str, ...]) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value not in choices:
            raise ConfigError(f"{name}={value!r}: use one of {', '.join(map(repr, choices))}")
        return value

    return check


def _overlap(name: str, value: Any) -> Any:
    if value is None or (isinstance(value, str) and value in _OVERLAPS):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
        raise ConfigError(
            f"{name}={value!r}: use {', '.join(map(repr, _OVERLAPS))}, or the number of runs "
            "allowed at once, from 1 to 1000"
        )
    return value


def _catchup(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_CATCHUP:
        raise ConfigError(f"{name}={value!r}: use a whole number from 1 to {_MOST_CATCHUP:,}")
    return value


def _jitter(name: str, value: Any) -> float | None:
    return None if value is None else seconds(name, value)


def _instant(name: str, value: Any) -> int | None:
    if value is None:
        return None
    # Rounded up like fire times, so that a fire exactly at the end is not after it.
    return instant_ms(name, value) + (value.microsecond % 1000 > 0)


def _args(name: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}={value!r}: use a tuple or a list, such as ({value!r},)")
    return tuple(cast("Iterable[Any]", value))


def _kwargs(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}={value!r}: use a dict of keyword arguments")
    return dict(cast("Mapping[str, Any]", value))


def _paused(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: use True or False")
    return value


def _tags(name: str, value: Any) -> tuple[str, ...]:
    given = _args(name, value)
    if len(given) > _MOST_TAGS:
        raise ConfigError(f"{name} has {len(given):,} entries; use at most {_MOST_TAGS}: ['mail']")
    return tuple(check_text(f"{name}[{place}]", tag, 200) for place, tag in enumerate(given))


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "misfire": _misfire,
    "coalesce": _choice(_COALESCE),
    "max_catchup": _catchup,
    "overlap": _overlap,
    "jitter": _jitter,
    "start": _instant,
    "end": _instant,
    "args": _args,
    "kwargs": _kwargs,
    "paused": _paused,
    "tags": _tags,
    "metadata": lambda name, value: check_texts(name, _kwargs(name, value)),
}
_POLICY: Final = frozenset(item.name for item in fields(Policy))
_OWN: Final = frozenset(("args", "kwargs", "paused", "tags", "metadata"))
_KNOWN: Final = sorted({*_CHECKS, *_JOB_OPTIONS})
