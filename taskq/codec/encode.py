"""Convert Python values to what msgpack and our extensions can carry, or say which one cannot.

One walk does all of it. It counts depth and values as it goes, so a structure that contains itself
hits the depth limit instead of overflowing the packer. Containers that hold only msgpack's own
scalars are left as they are, after a check that runs at the speed of C.
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
from taskq.codec.unencodable import UnencodableValue, a_type, hint_for
from taskq.core.durations import base_date, base_datetime, base_timedelta
from taskq.core.errors import PayloadTooLarge

__all__ = ["Encoder"]


class Encoder:
    """One walk over the values of one payload.

    Allows `max_depth` nested containers and `max_nodes` values in all, keys of dictionaries
    included. With `careful`, every scalar is checked: the packer refused one of them, and this walk
    finds out which.
    """

    def __init__(self, max_depth: int, max_nodes: int, *, careful: bool = False) -> None:
        self._max_depth = max_depth
        self._max_nodes = max_nodes
        self._left = max_nodes
        self._as_is: frozenset[type] = frozenset() if careful else AS_IS
        # How many sets and keys, and how many objects, enclose the current value.
        self._hashed = 0
        self._instances = 0
        # Whether decoding alone would give another value somewhere.
        self.altered = False

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """Encode the arguments of a call."""
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
                positional.append(self._encode(value, 1))  # noqa: PERF401, the length gives the index
            for name, value in kwargs.items():
                named[str.__str__(name)] = self._encode(value, 1)
        except UnencodableValue as unencodable:
            unencodable.within(args, name or f"args[{len(positional)}]")
            raise
        return [positional, named]

    def result(self, value: Any) -> Any:
        """Encode what a task returned."""
        try:
            self._enter(1, 0)
            return self._encode(value, 1)
        except UnencodableValue as unencodable:
            unencodable.within(None, "result")
            raise

    def _encode(self, value: Any, depth: int) -> Any:
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
        """Encode a value that travels as a simpler type."""
        if isinstance(value, type):
            raise _refused(value)
        self.altered = True
        if isinstance(value, Enum):
            return self._encode(value.value, depth)
        kind = cast("type[Any]", type(value))
        if hasattr(kind, "__mapper__"):
            raise _refused(value)  # a database row, whatever else it is
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
                    return self._encode(form, depth)
                except UnencodableValue as unencodable:
                    unencodable.within(value, "")
                    if unencodable.final:
                        raise
                    first = first or unencodable
        finally:
            self._instances -= 1
        # Trying other forms of the enclosing objects would hide this reason.
        refused = first or UnencodableValue(
            f"is {a_type(value)} that neither its fields nor its dump can recreate: its "
            "serialisers and validators do not match. Pass the values it is made of"
        )
        refused.final = True
        raise refused

    def _as_ancestor(self, value: Any, depth: int) -> Any:
        kind = cast("type[Any]", type(value))
        for parent in kind.__mro__:
            if parent in _PARENTS:
                try:
                    return self._encode(_PARENTS[parent](value), depth)
                except UnencodableValue as unencodable:
                    # The plain copy is a new object each time; only the original reveals a cycle.
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
                "has two members that are encoded as the same value (an enum as its value); "
                "pass a list"
            )
        return array_extension(type(value), items)

    def _items(self, owner: object, items: list[Any], depth: int, step: str = "") -> list[Any]:
        self._enter(len(items), depth)
        as_is = self._as_is
        if as_is.issuperset(map(type, items)):
            return items
        encoded: list[Any] = []
        try:
            for item in items:
                plain = item if type(item) in as_is else self._encode(item, depth + 1)
                encoded.append(plain)
        except UnencodableValue as unencodable:
            unencodable.within(owner, step or f"[{len(encoded)}]")
            raise
        return encoded

    def _dict(self, value: dict[Any, Any], depth: int) -> dict[Any, Any]:
        if self._hashed:
            raise _unhashable(value)
        self._enter(2 * len(value), depth)
        as_is = self._as_is
        plain_keys = as_is.issuperset(map(type, value))
        if plain_keys and as_is.issuperset(map(type, value.values())):
            return value
        keys = value if plain_keys else self._keys(value, depth)
        encoded: dict[Any, Any] = {}
        key = None
        try:
            for plain, (key, item) in zip(keys, value.items(), strict=True):  # noqa: B007, below
                encoded[plain] = item if type(item) in as_is else self._encode(item, depth + 1)
        except UnencodableValue as unencodable:
            unencodable.within(value, _index(key))
            raise
        if len(encoded) != len(value):
            raise UnencodableValue(
                "has two keys that are encoded as the same value (an enum as its value); "
                "give them different values"
            )
        return encoded

    def _keys(self, value: dict[Any, Any], depth: int) -> list[Any]:
        self._hashed += 1
        try:
            return [self._encode(key, depth + 1) for key in value]
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
        encoded: list[Any] = [record.kind, record.unset]
        name = ""
        try:
            for name, item in record.items():
                encoded.append(str.__str__(name))
                encoded.append(item if type(item) in as_is else self._encode(item, depth + 1))
        except UnencodableValue as unencodable:
            unencodable.within(record, f".{name}")
            raise
        return array_extension(Record, encoded)

    def _enter(self, values: int, depth: int) -> None:
        if depth > self._max_depth:
            raise UnencodableValue(
                f"is nested {depth} containers deep; the limit is {self._max_depth}. Flatten it, "
                "or store it elsewhere and pass its key",
                PayloadTooLarge,
            )
        self._left -= values
        if self._left < 0:
            raise UnencodableValue(
                f"brings the payload to {self._max_nodes - self._left:,} values; the limit is "
                f"{self._max_nodes:,}. Split the work into several jobs, or store the data "
                "elsewhere and pass its key",
                PayloadTooLarge,
            )


def _encode_secret(walk: Encoder, value: Secret[Any], depth: int) -> Any:
    items = walk._items(value, [value.reveal()], depth, step=".reveal()")  # pyright: ignore[reportPrivateUsage]
    return array_extension(Secret, items)


_CONTAINERS: dict[type, Callable[[Encoder, Any, int], Any]] = {
    list: Encoder._list,  # pyright: ignore[reportPrivateUsage]
    dict: Encoder._dict,  # pyright: ignore[reportPrivateUsage]
    tuple: Encoder._tuple,  # pyright: ignore[reportPrivateUsage]
    set: Encoder._set,  # pyright: ignore[reportPrivateUsage]
    frozenset: Encoder._set,  # pyright: ignore[reportPrivateUsage]
    Secret: _encode_secret,
    Record: Encoder._record,  # pyright: ignore[reportPrivateUsage]
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
        f"is {a_type(value)}, whose encoded form cannot be a member of a set or a key; pass a list"
    )


def _extended(extension: Callable[[Any], Any], value: Any) -> Any:
    try:
        return extension(value)
    except ValueError as error:
        raise UnencodableValue(str(error)) from error
    except Exception as error:  # from a subclass or a time zone of the user's
        raise UnencodableValue(f"is {a_type(value)} that cannot be encoded: {error!r}") from error


def _forms_of(value: Any) -> Iterator[Any]:
    try:
        for form in forms_of(value):
            if type(form) is type(value):
                raise _refused(value)
            yield form
    except UnencodableValue:
        raise
    except Exception as error:  # an unset slot, or a property of the user's
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
    """Refuse the scalars that the packer refuses, with the reason."""
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
