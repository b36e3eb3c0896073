"""Options of tasks and jobs, and the retention of ended jobs: frozen and validated.

An unknown option raises an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from taskq.core.durations import Duration, base_datetime, instant_ms, seconds
from taskq.core.errors import ConfigError, UnknownOption
from taskq.core.ids import check_name
from taskq.core.retry import NO_RETRY, Retry
from taskq.core.text import check_texts

__all__ = [
    "DEFERRAL_ONLY",
    "ExecutorName",
    "JobOptions",
    "Order",
    "Retention",
    "TaskOptions",
    "WhenFull",
    "check_known",
    "flag",
    "nearest",
    "task_options",
    "when_full",
]


@dataclass(frozen=True)
class Retention:
    """How long failed, cancelled and expired jobs are kept, and how many.

    Their records are kept for `failure_ttl` (seconds or timedelta, default 7 days; 0 keeps none).
    At most `keep_failed` failed jobs (default 10,000) are kept per queue; the oldest are removed
    first. Results of successful jobs are kept for the `result_ttl` of their task.

    Use the same values for all producers and workers of a namespace.

    Raises `ConfigError` for numbers out of range.

    >>> Retention(failure_ttl=86_400, keep_failed=500).failure_seconds
    86400.0
    """

    failure_ttl: Duration = timedelta(days=7)
    keep_failed: int = 10_000

    def __post_init__(self) -> None:
        seconds("failure_ttl", self.failure_ttl)
        kept = self.keep_failed
        if isinstance(kept, bool) or not isinstance(kept, int) or kept < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"keep_failed={kept!r}: use the number of failed jobs to keep per queue, 0 or more"
            )

    @property
    def failure_seconds(self) -> float:
        """`failure_ttl` in seconds."""
        return seconds("failure_ttl", self.failure_ttl)

    @property
    def failure_ms(self) -> int:
        """`failure_ttl` in milliseconds."""
        return int(self.failure_seconds * 1000)


ExecutorName = Literal["loop", "thread", "process"]
WhenFull = Literal["wait", "reject", "spill"]
Order = Literal["submitted"]

DEFERRAL_ONLY = ("key", "debounce", "order", "durable", "when_full")
"""Job options that only the deferred runner supports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskOptions:
    """How jobs of a task run; `Task.options(...)` overrides some options for single jobs.

    Jobs wait in `queue` with a `priority` (0 to 9, 9 first). `retry` is a `Retry` policy or a
    number of retries. `timeout` and `soft_timeout` are durations (None: no limit). `executor` is
    `loop`, `thread` or `process` (None: `loop` for `async def`, `thread` for `def`). `result_ttl`
    is how long a result is kept; 0 keeps none. `expires` is how long after enqueueing an
    attempt may still start, first or retry (None: for ever).
    """

    queue: str = "default"
    priority: int = 5
    retry: Retry = NO_RETRY
    timeout: float | None = None
    soft_timeout: float | None = None
    executor: ExecutorName = "loop"
    result_ttl: float = 3600.0
    expires: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """The options of one job, from `Task.options(...)`; None keeps the task's own."""

    queue: str | None = None
    priority: int | None = None
    delay: Duration | None = None
    eta: datetime | None = None
    expires: Duration | datetime | None = None
    id: str | None = None
    timeout: float | None = None
    result_ttl: float | None = None
    retry: Retry | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    key: str | None = None
    debounce: float | None = None
    order: Order | None = None
    durable: bool = False
    when_full: WhenFull | None = None

    def for_the_queue(self) -> JobOptions:
        """These options, for an enqueued job.

        Raises `ConfigError` for an option that only `defer` supports.
        """
        for name in DEFERRAL_ONLY:
            if getattr(self, name):
                raise ConfigError(
                    f"{name}= is an option of .defer(): an enqueued job is durable already, and "
                    "waits in its queue; leave it out, or name the job: .options(id=...)"
                )
        return self

    def with_changes(self, **changes: Any) -> JobOptions:
        """A copy with `changes`, each checked.

        Raises `UnknownOption` and `ConfigError`.
        """
        check_known("jobs", changes, [item.name for item in fields(self)])
        given = {name: value for name, value in changes.items() if value is not None}
        values = {name: _CHECKS[name](name, value) for name, value in given.items()}
        checked = replace(self, **values)
        if checked.delay is not None and checked.eta is not None:
            raise ConfigError("delay and eta both set when the job is due; use one of them")
        if checked.debounce is not None and (
            checked.key is None or checked.order is not None or checked.durable
        ):
            raise ConfigError(
                "debounce= needs a key='...' to group calls, and cannot be combined with order= or "
                "durable="
            )
        return checked


def task_options(*, is_async: bool, given: dict[str, Any]) -> TaskOptions:
    """The options of `@q.task(...)`, checked.

    Raises `UnknownOption` with the nearest known one, and `ConfigError`.
    """
    known = [item.name for item in fields(TaskOptions)]
    # `name` is not one of them, but may be what the user meant.
    check_known("tasks", given, known, also=["name"])
    if isinstance(given.get("expires"), datetime):
        raise ConfigError(
            "expires= of a task is a duration, counted from the enqueueing of each job; set an "
            "instant for single jobs: .options(expires=...)"
        )
    values = {
        name: _CHECKS[name](name, value) for name, value in given.items() if value is not None
    }
    values.setdefault("executor", "loop" if is_async else "thread")
    options = TaskOptions(**values)
    if options.executor == "thread" and is_async:
        raise ConfigError("executor='thread' runs plain functions; an async def runs in the 'loop'")
    if options.executor == "loop" and not is_async:
        raise ConfigError(
            "executor='loop' would block every other job while this plain function runs; "
            "make it async def, or leave executor= out to run it in a thread"
        )
    if options.soft_timeout is not None and options.executor != "process":
        raise ConfigError(
            "soft_timeout needs executor='process': no other executor can raise it in the task"
        )
    if options.soft_timeout and options.timeout and options.soft_timeout >= options.timeout:
        raise ConfigError("soft_timeout must be shorter than timeout")
    return options


def check_known(
    whose: str, names: Iterable[str], known: Collection[str], also: Collection[str] = ()
) -> None:
    """Raise `UnknownOption` for a name that is not in `known`, with the nearest one.

    `also`: further names that the user may have meant.
    """
    for name in names:
        if name not in known:
            hint = nearest(name, [*also, *known])
            raise UnknownOption(f"{whose} have no option {name!r}{hint}")


def nearest(name: str, known: list[str]) -> str:
    """A clause that names the nearest known word, or lists all of them."""
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(sorted(known))}"


def _priority(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 9:
        raise ConfigError(f"{name}={value!r}: use a whole number from 0 to 9 (9 runs first)")
    return value


def _key(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}={value!r}: use text, such as f'report:{{user_id}}'")
    return value


def flag(name: str, value: Any) -> bool:
    """`value` if it is true or false itself; raises `ConfigError`."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name}={value!r}: use True or False")
    return value


def _order(name: str, value: Any) -> Order:
    if value != "submitted":
        raise ConfigError(
            f"{name}={value!r}: use 'submitted' to run calls one after another, or leave it out"
        )
    return value


def when_full(name: str, value: Any) -> WhenFull:
    """`value` if it is a policy for a full backlog; raises `ConfigError`."""
    if value not in ("wait", "reject", "spill"):
        raise ConfigError(f"{name}={value!r}: use 'wait', 'reject' or 'spill'")
    return value


def _executor(name: str, value: Any) -> ExecutorName:
    if value not in ("loop", "thread", "process"):
        raise ConfigError(f"{name}={value!r}: use 'loop', 'thread' or 'process'")
    return value


def _expires(name: str, value: Any) -> Any:
    return _eta(name, value) if isinstance(value, datetime) else seconds(name, value)


def _eta(name: str, value: Any) -> datetime:
    instant_ms(name, value)
    return base_datetime(value)


def _limit(name: str, value: Any) -> float:
    return seconds(name, value, least=0.001)


def _retry(_: str, value: Any) -> Retry:
    return Retry.of(value)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "queue": check_name,
    "id": check_name,
    "priority": _priority,
    "retry": _retry,
    "timeout": _limit,
    "soft_timeout": _limit,
    "executor": _executor,
    "result_ttl": seconds,
    "expires": _expires,
    "delay": seconds,
    "eta": _eta,
    "headers": check_texts,
    "key": _key,
    "debounce": _limit,
    "order": _order,
    "durable": flag,
    "when_full": when_full,
}
