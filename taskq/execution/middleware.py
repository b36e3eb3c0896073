"""Middleware: functions of an application around attempts and around enqueueing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol, TypeVar

from taskq.core.errors import ConfigError, TaskqError
from taskq.core.options import JobOptions
from taskq.core.signatures import register
from taskq.execution.context import JobContext

__all__ = [
    "NO_MIDDLEWARE",
    "AttemptMiddleware",
    "CallNext",
    "EnqueueMiddleware",
    "JobDraft",
    "Middleware",
    "MiddlewareKind",
    "call_through",
    "checked_handle",
]

J = TypeVar("J")
Verb = Literal["enqueue", "defer"]
MiddlewareKind = Literal["attempt", "enqueue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDraft:
    """A job that is about to be enqueued, as enqueue middleware sees it.

    `verb` is how it was requested: `enqueue` or `defer`. If middleware passes another draft to
    `call_next`, that one is enqueued instead.

    >>> JobDraft(task="resize", args=("a.png",)).with_headers(trace="7f").headers
    {'trace': '7f'}
    """

    task: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict[str, Any])
    options: JobOptions = field(default_factory=JobOptions)
    verb: Verb = "enqueue"

    @property
    def headers(self) -> dict[str, str]:
        """What is sent with the job besides its arguments."""
        return dict(self.options.headers)

    def with_headers(self, **headers: str) -> JobDraft:
        """The same with more headers."""
        return self.with_options(headers={**self.options.headers, **headers})

    def with_options(self, **changes: Any) -> JobDraft:
        """The same with other options; see `JobOptionValues`. Raises as `Task.options`."""
        return replace(self, options=self.options.with_changes(**changes))


class CallNext(Protocol):
    """Calls the next layer; returns what the function returned, or the handle of the job."""

    def __call__(self, job: Any = None, /) -> Awaitable[Any]: ...


AttemptMiddleware = Callable[[JobContext, CallNext], Awaitable[Any]]
EnqueueMiddleware = Callable[[JobDraft, CallNext], Awaitable[Any]]


class Middleware:
    """The middleware of one TaskQ, outermost first."""

    __slots__ = ("attempts", "enqueues")

    def __init__(self) -> None:
        self.attempts: list[AttemptMiddleware] = []
        self.enqueues: list[EnqueueMiddleware] = []

    def add(self, kind: str, function: Callable[..., Awaitable[Any]]) -> None:
        """Register `function` inside the functions registered before it.

        Raises `ConfigError` for an unknown kind.
        """
        if kind not in ("attempt", "enqueue"):
            raise ConfigError(
                f"there is no middleware around {kind!r}; use @q.middleware for attempts, or "
                "@q.middleware('enqueue')"
            )
        layers: list[Any] = self.attempts if kind == "attempt" else self.enqueues
        register(layers, function)

    def decorator(self, around: Callable[..., Any] | str) -> Any:
        """What `@q.middleware` and `@q.middleware("enqueue")` do; returns the function."""
        if not isinstance(around, str):
            self.add("attempt", around)
            return around

        def decorate(function: Callable[..., Any], /) -> Callable[..., Any]:
            self.add(around, function)
            return function

        return decorate


NO_MIDDLEWARE: Final = Middleware()
"""The middleware of tasks without a TaskQ; nothing is ever added to it."""


async def call_through(
    layers: Sequence[Callable[[J, CallNext], Awaitable[Any]]],
    job: J,
    innermost: Callable[[J], Awaitable[Any]],
) -> Any:
    """Call `innermost` through all `layers`, the outermost first."""
    if not layers:
        return await innermost(job)
    layer, *inner = layers

    def call_next(changed: J | None = None, /) -> Awaitable[Any]:
        return call_through(inner, job if changed is None else changed, innermost)

    return await layer(job, call_next)


def checked_handle(_: type[J], kind: type[Any], handle: Any, draft: JobDraft) -> J:
    """The handle that enqueue middleware returned.

    Raises `TaskqError` if a middleware dropped the job or its handle.
    """
    if not isinstance(handle, kind):
        raise TaskqError(
            f"an enqueue middleware returned {handle!r} for a job of {draft.task}: use "
            "`return await call_next(job)`; to refuse a job, raise"
        )
    return handle
