"""From what users pass to what msgpack and our extensions carry, with the path of what cannot.

One walk does it all: it counts depth and values while it goes, so that a structure that contains
itself ends at the limit of depth instead of in the packer, and it leaves containers that hold only
msgpack's own scalars as they are, checked at the speed of C.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from enum import Enum
from typing import Any, cast

from taskq.codec.extensions import (
    AS_IS,
    MAX_INT_BITS,
    SCALAR_EXTENSIONS,
    Record,
    array_extension,
)
from taskq.codec.instances import forms_of, is_model, is_object_class, is_text_kind
from taskq.codec.secret import Secret
from taskq.codec.unencodable import a_type, hint_for
from taskq.core.durations import base_date, base_datetime, base_timedelta
from taskq.core.errors import EncodeError, PayloadError, PayloadTooLarge

__all__ = ["Lowering", "UnencodableValue"]


class UnencodableValue(Exception):
    """A value that cannot travel, on its way up to the argument it lies in."""

    def __init__(self, reason: str, error: type[PayloadError] = EncodeError) -> None:
        super().__init__(reason)
        self._reason = reason
        self._error = error
        # Nothing else that the value might travel as is tried.
        self.final = error is not EncodeError
        # Innermost first: the containers around the value, and the step each one takes into it.
        self._steps: list[tuple[int, str]] = []

    def within(self, container: object, step: str) -> None:
        """Record one container around the refused value."""
        self._steps.append((id(container), step))

    def error(self) -> PayloadError:
        """The error to raise, with the whole path."""
        path, first_seen = "", dict[int, str]()
        for container, step in reversed(self._steps):
            if container in first_seen:
                return EncodeError(
                    f"{path} is {first_seen[container]} again: what contains itself cannot travel; "
                    "pass the ids of the objects instead of the objects"
                )
            if path:
                first_seen[container] = path
            path += step
        if len(path) > 240:
            path = f"{path[:120]}...{path[-100:]}"
        return self._error(f"{path} {self._reason}")


class Lowering:
    """One walk over the values of one payload.

    `max_depth` containers may lie in one another and `max_nodes` values be there in all, keys of
    dictionaries included. With `careful`, scalars are looked at one by one: the packer refused one
    of them, and the walk is there to say which.
    """

    def __init__(self, max_depth: int, max_nodes: int, *, careful: bool = False) -> None:
        self._max_depth = max_depth
        self._max_nodes = max_nodes
        self._left = max_nodes
        self._as_is: frozenset[type] = frozenset() if careful else AS_IS
        # How many sets and keys, and how many objects, lie around the value.
        self._hashed = 0
        self._instances = 0
        # Whether there was anything that its own bytes do not make again.
        self.altered = False

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Lower the arguments of a call."""
        try:
            self._enter(len(args) + 2 * len(kwargs), 0)
        except UnencodableValue as unencodable:
            unencodable.within(args, "the call")
            raise
        positional: list[Any] = []
        named: dict[str, Any] = {}
        name = ""
        try:
            for value in args:
                positional.append(self._lower(value, 1))  # noqa: PERF401, how many tells which
            for name, value in kwargs.items():
                named[str.__str__(name)] = self._lower(value, 1)
        except UnencodableValue as unencodable:
            unencodable.within(args, name or f"args[{len(positional)}]")
            raise
        return [positional, named]

    def result(self, value: Any) -> Any:
        """Lower what a task returned."""
        try:
            self._enter(1, 0)
            return self._lower(value, 1)
        except UnencodableValue as unencodable:
            unencodable.within(None, "result")
            raise

    def _lower(self, value: Any, depth: int) -> Any:
        kind = cast("type[Any]", type(value))
        if kind in self._as_is:
            return value
        container = _CONTAINERS.get(kind)
        if container is not None:
            return container(self, value, depth)
        extension = SCALAR_EXTENSIONS.get(kind)
        if extension is not None:
            return _extended(extension, value)
        if kind in AS_IS:
            _check_scalar(value)
            return value
        return self._open(value, depth)

    def _open(self, value: Any, depth: int) -> Any:
        """Lower what travels as something plainer than itself."""
        if isinstance(value, type):
            raise _refused(value)
        self.altered = True
        if isinstance(value, Enum):
            return self._lower(value.value, depth)
        kind = cast("type[Any]", type(value))
        if hasattr(kind, "__mapper__"):
            raise _refused(value)  # a row of a database, whatever else it is
        if is_object_class(kind):
            return self._instance(value, depth)
        return self._as_ancestor(value, depth)

    def _instance(self, value: Any, depth: int) -> Any:
        if self._hashed:
            raise _unhashable(value)
        first = None
        self._instances += 1
        try:
            for form in _forms_of(value):
                try:
                    return self._lower(form, depth)
                except UnencodableValue as unencodable:
                    unencodable.within(value, "")
                    if unencodable.final:
                        raise
                    first = first or unencodable
        finally:
            self._instances -= 1
        # What the objects around it make of it would hide what this one refused.
        refused = first or UnencodableValue(
            f"is {a_type(value)} that is not made again by its own fields, nor by what it dumps: "
            "its serialisers and validators do not fit each other. Pass the values it is made of"
        )
        refused.final = True
        raise refused

    def _as_ancestor(self, value: Any, depth: int) -> Any:
        kind = cast("type[Any]", type(value))
        for parent in kind.__mro__:
            if parent in _PARENTS:
                try:
                    return self._lower(_PARENTS[parent](value), depth)
                except UnencodableValue as unencodable:
                    # The plain copy is another object each time: the original tells a cycle.
                    unencodable.within(value, "")
                    raise
            if parent in SCALAR_EXTENSIONS:
                return _extended(SCALAR_EXTENSIONS[parent], value)
        if self._instances and is_text_kind(kind):
            return str(value)
        raise _refused(value)

    def _list(self, value: list[Any], depth: int) -> list[Any]:
        if self._hashed:
            raise _unhashable(value)
        return self._items(value, value, depth)

    def _tuple(self, value: tuple[Any, ...], depth: int) -> Any:
        return array_extension(tuple, self._items(value, list(value), depth))

    def _set(self, value: set[Any] | frozenset[Any], depth: int) -> Any:
        if self._hashed and type(value) is set:
            raise _unhashable(value)
        self._hashed += 1
        try:
            items = self._items(value, list(value), depth, step="<member>")
        finally:
            self._hashed -= 1
        if len(set(items)) != len(value):
            raise UnencodableValue(
                "has two members that travel as the same value (an enum travels as its value); "
                "pass a list"
            )
        return array_extension(type(value), items)

    def _items(self, owner: object, items: list[Any], depth: int, step: str = "") -> list[Any]:
        self._enter(len(items), depth)
        as_is = self._as_is
        if as_is.issuperset(map(type, items)):
            return items
        lowered: list[Any] = []
        try:
            for item in items:
                plain = item if type(item) in as_is else self._lower(item, depth + 1)
                lowered.append(plain)
        except UnencodableValue as unencodable:
            unencodable.within(owner, step or f"[{len(lowered)}]")
            raise
        return lowered

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        if self._hashed:
            raise _unhashable(value)
        self._enter(2 * len(value), depth)
        as_is = self._as_is
        plain_keys = as_is.issuperset(map(type, value))
        if plain_keys and as_is.issuperset(map(type, value.values())):
            return value
        keys = value if plain_keys else self._keys(value, depth)
        lowered: dict[Any, Any] = {}
        key = None
        try:
            for plain, (key, item) in zip(keys, value.items(), strict=True):  # noqa: B007, below
                lowered[plain] = item if type(item) in as_is else self._lower(item, depth + 1)
        except UnencodableValue as unencodable:
            unencodable.within(value, _index(key))
            raise
        if len(lowered) != len(value):
            raise UnencodableValue(
                "has two keys that travel as the same value (an enum travels as its value); "
                "give them different values"
            )
        return lowered

    def _keys(self, value: dict[Any, Any], depth: int) -> list[Any]:
        self._hashed += 1
        try:
            return [self._lower(key, depth + 1) for key in value]
        except UnencodableValue as unencodable:
            unencodable.within(value, "<key>")
            raise
        finally:
            self._hashed -= 1

    def _record(self, record: Record, depth: int) -> Any:
        if self._hashed:
            raise _unhashable(record)
        self._enter(2 * len(record) + 2, depth)
        as_is = self._as_is
        lowered: list[Any] = [record.kind, record.unset]
        name = ""
        try:
            for name, item in record.items():
                lowered.append(str.__str__(name))
                lowered.append(item if type(item) in as_is else self._lower(item, depth + 1))
        except UnencodableValue as unencodable:
            unencodable.within(record, f".{name}")
            raise
        return array_extension(Record, lowered)

    def _enter(self, values: int, depth: int) -> None:
        if depth > self._max_depth:
            raise UnencodableValue(
                f"lies {depth} containers deep; up to {self._max_depth} may nest. Flatten it, or "
                "store it elsewhere and pass its key",
                PayloadTooLarge,
            )
        self._left -= values
        if self._left < 0:
            raise UnencodableValue(
                f"brings the payload to {self._max_nodes - self._left:,} values; up to "
                f"{self._max_nodes:,} may travel. Split the work into several jobs, or store the "
                "data elsewhere and pass its key",
                PayloadTooLarge,
            )


def _lower_secret(walk: Lowering, value: Secret[Any], depth: int) -> Any:
    items = walk._items(value, [value.reveal()], depth, step=".reveal()")  # pyright: ignore[reportPrivateUsage]
    return array_extension(Secret, items)


_CONTAINERS: dict[type, Callable[[Lowering, Any, int], Any]] = {
    list: Lowering._list,  # pyright: ignore[reportPrivateUsage]
    dict: Lowering._dict,  # pyright: ignore[reportPrivateUsage]
    tuple: Lowering._tuple,  # pyright: ignore[reportPrivateUsage]
    set: Lowering._set,  # pyright: ignore[reportPrivateUsage]
    frozenset: Lowering._set,  # pyright: ignore[reportPrivateUsage]
    Secret: _lower_secret,
    Record: Lowering._record,  # pyright: ignore[reportPrivateUsage]
}


def _join_bytes(value: bytes) -> bytes:
    return b"".join((value,))


# The unbound methods of the base, because a subclass may redefine `__str__` or `__int__`.
_PARENTS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: _join_bytes,
    bytearray: bytes,
    memoryview: memoryview.tobytes,
    list: list[Any],
    tuple: tuple[Any, ...],
    dict: dict[Any, Any],
    set: set[Any],
    frozenset: frozenset[Any],
    datetime: base_datetime,
    date: base_date,
    timedelta: base_timedelta,
}


def _refused(value: object) -> UnencodableValue:
    return UnencodableValue(f"is {a_type(value)}, which cannot travel; {hint_for(value)}")


def _unhashable(value: object) -> UnencodableValue:
    # A frozen dataclass may be a member of a set here, but would arrive as a dictionary.
    return UnencodableValue(
        f"is {a_type(value)}, which travels as something that cannot be a member of a set or a "
        "key; pass a list"
    )


def _extended(extension: Callable[[Any], Any], value: Any) -> Any:
    try:
        return extension(value)
    except ValueError as error:
        raise UnencodableValue(str(error)) from error
    except Exception as error:  # a subclass, or a time zone, of the user's own
        raise UnencodableValue(f"is {a_type(value)} that fails when written: {error!r}") from error


def _forms_of(value: Any) -> Iterator[Any]:
    try:
        for form in forms_of(value):
            if type(form) is type(value):
                raise _refused(value)
            yield form
    except UnencodableValue:
        raise
    except Exception as error:  # a slot never set, or a property of the user's own
        what = (
            "that cannot be dumped"
            if is_model(cast("Any", type(value)))
            else "whose fields cannot be read"
        )
        raise UnencodableValue(f"is {a_type(value)} {what}: {error!r}") from error


def _index(key: object) -> str:
    if type(key) in AS_IS:
        text = repr(key)
        return f"[{text if len(text) <= 40 else text[:37] + '...'}]"
    return f"[<{type(key).__qualname__}>]"


def _check_scalar(value: Any) -> None:
    """Refuse the scalars that the packer refuses."""
    if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        raise UnencodableValue(
            f"is an integer of {value.bit_length():,} bits; up to {MAX_INT_BITS:,} can travel. "
            "Pass it as text, such as `hex(value)`"
        )
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise UnencodableValue(
                f"is text that is not valid Unicode (half a surrogate pair at index "
                f"{error.start}); pass bytes, such as `value.encode('utf-8', 'surrogateescape')`"
            ) from None
