"""Values that cannot travel, and what to pass instead."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import types
from collections.abc import Callable, Coroutine, Iterable
from pathlib import PurePath

__all__ = ["a_type", "hint_for"]


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
    """What to type instead of `value`; never reads anything of it but its type and its names."""
    for test, hint in _HINTS:
        # The value may be a proxy that raises for any attribute.
        with contextlib.suppress(Exception):
            if test(value):
                return hint
    return (
        "pass plain values (numbers, text, bytes, datetimes, lists, dicts, dataclasses, pydantic "
        "models), or a key to look it up by inside the task"
    )


def _has(*names: str) -> Callable[[object], bool]:
    # Looked up on the type: attributes of an instance may load rows or open connections.
    return lambda value: all(hasattr(type(value), name) for name in names)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


def _named(*names: str) -> Callable[[object], bool]:
    return lambda value: any(kind.__name__ in names for kind in type(value).__mro__)


def _is_record(value: object) -> bool:
    # SQLAlchemy, Django, Tortoise, peewee: all mark the classes they map.
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
        "pass the name of what shall be called, or make it a task and enqueue that",
    ),
    (_is(types.ModuleType), "pass its name"),
    (_is(BaseException), "pass `str(error)`, or the traceback as text"),
    (_is_record, "pass its primary key and load it inside the task"),
    (
        _has("get_secret_value"),
        "read the secret inside the task, or pass `taskq.Secret(value.get_secret_value())`, which "
        "is masked where it is shown: whoever can read the server can read what is enqueued",
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
        "pass plain values; what synchronises belongs to one process: make it inside the task",
    ),
    (_is(types.MappingProxyType), "pass `dict(value)`"),
    (_is(complex), "pass `(value.real, value.imag)`"),
    (_is(Iterable), "pass `list(value)`"),
)
