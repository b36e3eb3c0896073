"""Values that cannot be encoded: where they are, why, and what to pass instead."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import types
from collections.abc import Callable, Coroutine, Iterable
from pathlib import PurePath

from taskq.core.errors import EncodeError, PayloadError

__all__ = ["UnencodableValue", "a_type", "hint_for"]


class UnencodableValue(Exception):
    """A value that cannot be encoded; containers add the path to it as it propagates."""

    def __init__(self, reason: str, error: type[PayloadError] = EncodeError) -> None:
        super().__init__(reason)
        self._reason = reason
        self._error = error
        # Whether no other form of the value is worth trying.
        self.final = error is not EncodeError
        # Innermost first: each container around the value, and the step from it towards the value.
        self._steps: list[tuple[int, str]] = []

    def within(self, container: object, step: str) -> None:
        """Add an enclosing container to the path."""
        self._steps.append((id(container), step))

    def error(self) -> PayloadError:
        """The error to raise, with the full path."""
        path, first_seen = "", dict[int, str]()
        for container, step in reversed(self._steps):
            if container in first_seen:
                return EncodeError(
                    f"{path} is {first_seen[container]} again: a structure that contains itself "
                    "cannot travel; pass the ids of the objects instead"
                )
            if path:
                first_seen[container] = path
            path += step
        if len(path) > 240:
            path = f"{path[:120]}...{path[-100:]}"
        return self._error(f"{path} {self._reason}")


def a_type(value: object) -> str:
    """The value's type as a sentence needs it: `a Lock`, `an Image`, `the class User`."""
    if isinstance(value, type):
        return f"the class {_name(value)}"
    if isinstance(value, types.FunctionType) and value.__name__ == "<lambda>":
        return "a lambda"
    name = _name(type(value))
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _name(kind: type) -> str:
    return kind.__qualname__.rpartition("<locals>.")[2]


def hint_for(value: object) -> str:
    """What to pass instead of `value`; reads nothing of it but its type and names."""
    for test, hint in _HINTS:
        # A proxy may raise for any attribute.
        with contextlib.suppress(Exception):
            if test(value):
                return hint
    return (
        "pass plain values (numbers, text, bytes, datetimes, lists, dicts, dataclasses, pydantic "
        "models), or a key to look it up by inside the task"
    )


def _has(*names: str) -> Callable[[object], bool]:
    # On the type: reading attributes of an instance may load rows or open connections.
    return lambda value: all(hasattr(type(value), name) for name in names)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


def _named(*names: str) -> Callable[[object], bool]:
    return lambda value: any(kind.__name__ in names for kind in type(value).__mro__)


def _is_record(value: object) -> bool:
    # SQLAlchemy, Django, Tortoise and peewee mark the classes they map.
    marks = ("__mapper__", "__table__", "_meta", "_sa_instance_state")
    return any(hasattr(type(value), mark) for mark in marks)


_HINTS: tuple[tuple[Callable[[object], bool], str], ...] = (
    (_is(Coroutine), "did you forget `await`?"),
    (_is(asyncio.Future), "await it first and pass its result"),
    (inspect.isasyncgen, "collect it first: `[item async for item in value]`"),
    (_is(type), "pass its name"),
    (_is(PurePath), "pass `str(path)`"),
    (
        inspect.isroutine,
        "pass the name of the function, or make it a task and enqueue that",
    ),
    (_is(types.ModuleType), "pass its name"),
    (_is(BaseException), "pass `str(error)`, or the traceback as text"),
    (_is_record, "pass its primary key and load it inside the task"),
    (
        _has("get_secret_value"),
        "read the secret inside the task, or pass `taskq.Secret(value.get_secret_value())`, which "
        "is masked wherever it is shown but readable for anyone with access to the server",
    ),
    (_has("__attrs_attrs__"), "pass `attrs.asdict(value)`"),
    (_has("__struct_fields__"), "pass `msgspec.to_builtins(value)`"),
    (_has("tolist", "dtype"), "pass `value.tolist()`, or store it elsewhere and pass its key"),
    (_named("UploadFile"), "store it and pass its key, or pass `await file.read()`"),
    (_named("Request", "Response", "WebSocket"), "pass the fields that the task needs"),
    (
        _named("Connection", "AsyncConnection", "Session", "AsyncSession", "Redis", "AsyncClient"),
        "open it inside the task",
    ),
    (_is(io.IOBase), "pass its path, or its content"),
    (
        _named("Lock", "RLock", "lock", "Event", "Condition", "Semaphore", "Queue", "SimpleQueue"),
        "pass plain values; locks and queues belong to one process: create them inside the task",
    ),
    (_is(types.MappingProxyType), "pass `dict(value)`"),
    (_is(complex), "pass `(value.real, value.imag)`"),
    (_is(Iterable), "pass `list(value)`"),
)
