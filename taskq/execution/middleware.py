"""Middleware: what an application wraps around attempts and around enqueueing."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeVar, cast

from taskq.core.errors import ConfigError, TaskqError
from taskq.core.options import JobOptions
from taskq.core.signatures import register
from taskq.execution.context import JobContext

__all__ = [
    "CHILD_MAIN",
    "MAIN",
    "NO_MIDDLEWARE",
    "AttemptMiddleware",
    "CallNext",
    "EnqueueMiddleware",
    "JobDraft",
    "Middleware",
    "MiddlewareKind",
    "handed_in",
    "main_file",
    "main_module",
    "module_name",
    "through",
]

MAIN: Final = "__main__"

CHILD_MAIN: Final = "__mp_main__"
"""The name multiprocessing gives to a main module that is imported by a child: scripts that guard
their entry point for it are guarded for taskq as well."""


def module_name(function: Any) -> str:
    """The module of a function; of what was run, the name by which others import it.

    So `python tasks.py` enqueues what `taskq worker tasks:q` knows, and `python -m pkg` what
    `taskq worker pkg.__main__:q` knows: both call that module `pkg`.

    >>> module_name(os.path.join)
    'posixpath'
    """
    module = getattr(function, "__module__", None)
    if not isinstance(module, str):
        return "builtins"
    if module not in (MAIN, CHILD_MAIN):
        return module.removesuffix(f".{MAIN}")
    if (name := main_module(function)) is not None:
        return name.removesuffix(f".{MAIN}")
    if (file := main_file(function)) is None:
        return MAIN  # typed at a prompt, or read from stdin
    path = Path(os.path.abspath(file))
    # That of a folder or an archive is known by it.
    return path.parent.stem if path.stem == MAIN else path.stem


def main_module(function: Any) -> str | None:
    """The module that was run with `python -m`, and of which the function is."""
    name = getattr(_globals_of(function).get("__spec__"), "name", None)
    return name if isinstance(name, str) and name not in (MAIN, CHILD_MAIN) else None


def main_file(function: Any) -> str | None:
    """The file that was run, and of which the function is."""
    file = _globals_of(function).get("__file__")
    return file if isinstance(file, str) and not file.startswith("<") else None


def _globals_of(function: Any) -> Mapping[str, Any]:
    """The globals of the module that the function says it is of."""
    module = getattr(function, "__module__", None)
    try:
        own: Any = getattr(inspect.unwrap(function), "__globals__", None)
    except Exception:  # it wraps itself, or is a proxy that answers what it likes
        own = None
    # A decorator without functools.wraps is of another module than what it wraps.
    if isinstance(own, dict) and own.get("__name__") == module:  # pyright: ignore[reportUnknownMemberType]
        return cast("dict[str, Any]", own)
    return vars(sys.modules[module]) if module in sys.modules else {}


J = TypeVar("J")
Verb = Literal["enqueue", "defer"]
MiddlewareKind = Literal["attempt", "enqueue"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDraft:
    """A job that is about to be handed in, as enqueue middleware sees it.

    `verb` says how it was asked for: `enqueue` or `defer`. What middleware gives to `call_next`
    instead of it is handed in instead.

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
        """What travels with the job beside its arguments."""
        return dict(self.options.headers)

    def with_headers(self, **headers: str) -> JobDraft:
        """The same with more headers."""
        return self.with_options(headers={**self.options.headers, **headers})

    def with_options(self, **changes: Any) -> JobDraft:
        """The same with other options; see `JobOptionValues`. Raises as `Task.options`."""
        return replace(self, options=self.options.with_changes(**changes))


class CallNext(Protocol):
    """Goes on inwards; gives what the function returned, or the handle of the job."""

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
        """Register `function` inside of those registered before it.

        Raises `ConfigError` for a kind there is none of.
        """
        if kind not in ("attempt", "enqueue"):
            raise ConfigError(
                f"there is no middleware around {kind!r}; type @q.middleware for attempts, or "
                "@q.middleware('enqueue')"
            )
        layers: list[Any] = self.attempts if kind == "attempt" else self.enqueues
        register(layers, function)

    def decorator(self, around: Callable[..., Any] | str) -> Any:
        """What `@q.middleware` and `@q.middleware("enqueue")` do; gives the function back."""
        if not isinstance(around, str):
            self.add("attempt", around)
            return around

        def decorate(function: Callable[..., Any], /) -> Callable[..., Any]:
            self.add(around, function)
            return function

        return decorate


NO_MIDDLEWARE: Final = Middleware()
"""Of tasks that belong to no TaskQ; nothing is ever added to it."""


async def through(
    layers: Sequence[Callable[[J, CallNext], Awaitable[Any]]],
    job: J,
    innermost: Callable[[J], Awaitable[Any]],
) -> Any:
    """Call `innermost` through all `layers`, the first of which is the outermost."""
    if not layers:
        return await innermost(job)
    layer, *inner = layers

    def call_next(changed: J | None = None, /) -> Awaitable[Any]:
        return through(inner, job if changed is None else changed, innermost)

    return await layer(job, call_next)


def handed_in(_: type[J], kind: type[Any], handle: Any, draft: JobDraft) -> J:
    """What enqueue middleware returned, if it is a handle.

    Raises `TaskqError` when some middleware swallowed the job or its handle.
    """
    if not isinstance(handle, kind):
        raise TaskqError(
            f"an enqueue middleware returned {handle!r} for a job of {draft.task}: type "
            "`return await call_next(job)`; to refuse a job, raise"
        )
    return handle
