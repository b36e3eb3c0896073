"""Choose the member of a union for a value, by the fields of a dictionary or the name of a record.

A model validates its own unions, member by member; this module bounds how often.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Set
from functools import lru_cache
from types import NoneType
from typing import Any, Literal, NamedTuple, cast, get_args, get_origin, is_typeddict

from taskq.codec.extensions import Record
from taskq.codec.instances import TypeMismatch, Walk, short_repr
from taskq.codec.rebuilders import Rebuilder
from taskq.codec.type_hints import resolve_hints, unwrapped

__all__ = ["Member", "Union", "repeats"]


def repeats(kind: Any, value: Any) -> int:
    """How many validations of dictionaries in `value` for a class would be repetitions."""
    count = _Count()
    return count.tries(kind, value) - len(count.seen)


class _Count:
    def __init__(self) -> None:
        self.seen: set[int] = set()
        self._known: dict[tuple[int, int], int] = {}

    def tries(self, annotation: Any, value: Any) -> int:
        if not isinstance(value, (dict, list, tuple)):
            return 0
        key = (id(annotation), id(cast("Any", value)))
        if key not in self._known:
            self._known[key] = self._tries(annotation, value)
        return self._known[key]

    def _tries(self, annotation: Any, value: Any) -> int:
        tagged, annotation = _is_tagged(annotation), unwrapped(annotation)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            tries = [self.tries(member, value) for member in arguments]
            return max(tries) if tagged else sum(tries)
        if getattr(annotation, "__pydantic_root_model__", False):
            return self.tries(annotation.model_fields["root"].annotation, value)
        if isinstance(value, dict):
            return self._of_dictionary(annotation, arguments, cast("dict[Any, Any]", value))
        return sum(self.tries(inner, item) for inner in arguments for item in value)

    def _of_dictionary(self, annotation: Any, arguments: Any, value: dict[Any, Any]) -> int:
        fields = _fields_of(get_origin(annotation) or annotation)
        if fields is None:
            return sum(self.tries(inner, item) for inner in arguments for item in value.values())
        self.seen.add(id(value))
        return 1 + sum(
            self.tries(inner, value[name])
            for names, inner in fields
            for name in names & value.keys()
        )


def _is_tagged(annotation: Any) -> bool:
    marks: Iterable[Any] = getattr(annotation, "__metadata__", ())
    return any(
        getattr(mark, "discriminator", None) or type(mark).__name__ == "Discriminator"
        for mark in marks
    )


@lru_cache(maxsize=1024)
def _fields_of(kind: Any) -> list[tuple[frozenset[str], Any]] | None:
    """The annotations of a class by the names that its input may use; None without fields."""
    declared = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", None)
    if isinstance(declared, dict):
        return [
            (_names_of(name, field), typing.Annotated[field.annotation, field])
            for name, field in cast("dict[str, Any]", declared).items()
        ]
    if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
        return [(frozenset({name}), hint) for name, hint in resolve_hints(kind)[0].items()]
    return None


def _names_of(name: str, field: Any) -> frozenset[str]:
    other = getattr(field, "validation_alias", None)
    chosen = [name, getattr(field, "alias", None), other, *getattr(other, "choices", ())]
    return frozenset(text for text in chosen if isinstance(text, str))


_ITEMS = (list, tuple, set, frozenset)


class Member(NamedTuple):
    """A member that needs rebuilding, with the name and fields of its class, if any."""

    rebuild: Rebuilder
    name: str = ""
    fields: frozenset[str] | None = None
    is_open: bool = False

    @classmethod
    def of(cls, annotation: Any, rebuild: Rebuilder) -> Member:
        """The member of this annotation."""
        kind: Any = get_origin(annotation) or annotation
        if dataclasses.is_dataclass(kind):
            names = frozenset(field.name for field in dataclasses.fields(kind))
            return cls(rebuild, cast("type", kind).__name__, names)
        if is_typeddict(kind):
            return cls(rebuild, "", frozenset(kind.__annotations__))
        fields: Any = getattr(kind, "model_fields", None)
        if not isinstance(fields, dict):
            return cls(rebuild)
        is_open = getattr(kind, "model_config", {}).get("extra") == "allow"
        return cls(rebuild, kind.__name__, frozenset(cast("dict[str, Any]", fields)), is_open)

    def distance(self, names: Set[Any]) -> int:
        """How far its fields are from these names: 2 if it would drop some of them."""
        if self.fields is None:
            return 1
        if self.fields == names:
            return 0
        return 1 if self.is_open or self.fields.issuperset(names) else 2


class Union(NamedTuple):
    """A union: the origins of its plain members, and the members that need rebuilding.

    A value of one of the types in `exact` stays as it is.
    """

    plain: frozenset[Any]
    exact: frozenset[Any]
    members: list[Member]
    wanted: str

    def rebuild(self, walk: Walk, value: Any) -> Any:
        """The value as one of the members; raises `TypeMismatch` if none fits."""
        if type(value) in self.exact:
            return value
        mismatches: list[TypeMismatch] = []
        walk.trying += 1
        try:
            for member in self._best_first(value):
                walk.step()
                try:
                    return member.rebuild(walk, value)
                except TypeMismatch as mismatch:
                    mismatches.append(mismatch)
        finally:
            walk.trying -= 1
        if self._may_be_plain(value):
            return value
        if len(mismatches) == 1:
            raise mismatches[0]
        raise TypeMismatch(lambda: f"is {short_repr(value)}, expected {self.wanted}")

    def _best_first(self, value: Any) -> list[Member]:
        """Members with the same fields as `value` first; the union's order breaks ties."""
        if type(value) is Record:
            named = [member for member in self.members if member.name == value.kind]
            if named:
                return named
        if not isinstance(value, dict):
            return self.members
        names = cast("dict[Any, Any]", value).keys()
        return sorted(self.members, key=lambda member: member.distance(names))

    def _may_be_plain(self, value: Any) -> bool:
        """Plain members accept scalars, an int for a float too, and containers of their type."""
        if not isinstance(value, (dict, *_ITEMS)):
            return bool(self.plain - {NoneType})
        return any(_takes(origin, value) for origin in self.plain)


def _takes(origin: Any, value: Any) -> bool:
    if origin is Literal:
        return False
    try:
        return isinstance(value, origin) or (
            isinstance(value, _ITEMS) and any(issubclass(kind, origin) for kind in _ITEMS)
        )
    except TypeError:  # `Any`, a type variable or a protocol accepts everything
        return True
