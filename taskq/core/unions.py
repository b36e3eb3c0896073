"""Which member of a union a value is: the fields of a dictionary tell, and the name of a record."""

from __future__ import annotations

import dataclasses
from collections.abc import Set
from types import NoneType
from typing import Any, Literal, NamedTuple, cast, get_origin, is_typeddict

from taskq.core.extensions import Record
from taskq.core.making import Rebuilder
from taskq.core.misfit import Misfit, Walk, shortly

__all__ = ["Member", "Union"]

_ITEMS = (list, tuple, set, frozenset)


class Member(NamedTuple):
    """A member that objects are made of: its class's name and fields, if it has any."""

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
        """How far its fields are from these: 2 where it would drop some of them."""
        if self.fields is None:
            return 1
        if self.fields == names:
            return 0
        return 1 if self.is_open or self.fields.issuperset(names) else 2


class Union(NamedTuple):
    """A union: the origins of its plain members, and what makes its others.

    A value of one of the types `exact` is what it says.
    """

    plain: frozenset[Any]
    exact: frozenset[Any]
    members: list[Member]
    wanted: str

    def rebuild(self, walk: Walk, value: Any) -> Any:
        """The value as one of the members; raises `Misfit` when it is none."""
        if type(value) in self.exact:
            return value
        misfits: list[Misfit] = []
        walk.trying += 1
        try:
            for member in self._best_first(value):
                walk.step()
                try:
                    return member.rebuild(walk, value)
                except Misfit as misfit:
                    misfits.append(misfit)
        finally:
            walk.trying -= 1
        if self._may_be_plain(value):
            return value
        if len(misfits) == 1:
            raise misfits[0]
        raise Misfit(lambda: f"is {shortly(value)}, wanted {self.wanted}")

    def _best_first(self, value: Any) -> list[Member]:
        """Those first whose fields are those of `value`; among equals the union's order decides."""
        if type(value) is Record:
            named = [member for member in self.members if member.name == value.kind]
            if named:
                return named
        if not isinstance(value, dict):
            return self.members
        names = cast("dict[Any, Any]", value).keys()
        return sorted(self.members, key=lambda member: member.distance(names))

    def _may_be_plain(self, value: Any) -> bool:
        """Plain members take any scalar, an int for a float too, and containers of their kind."""
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
    except TypeError:  # `Any`, a type variable, a protocol: everything
        return True
