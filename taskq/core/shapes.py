"""Which class of a union a dictionary was made of: the fields tell, for no class is named in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Set
from typing import Any, NamedTuple, TypeVar, cast, get_origin, is_typeddict

__all__ = ["Shape", "best_first", "shape_of"]

T = TypeVar("T")


class Shape(NamedTuple):
    """The fields of a class, and whether it takes others too."""

    names: frozenset[str]
    is_open: bool = False


def shape_of(annotation: Any) -> Shape | None:
    """The shape of what `annotation` promises; None for what is no class with fields."""
    kind = get_origin(annotation) or annotation
    if dataclasses.is_dataclass(kind):
        return Shape(frozenset(field.name for field in dataclasses.fields(kind)))
    if is_typeddict(kind):
        return Shape(frozenset(kind.__annotations__))
    fields: Any = getattr(kind, "model_fields", None)
    if not isinstance(fields, dict):
        return None
    chosen: Any = getattr(kind, "model_config", {})
    return Shape(frozenset(cast("dict[str, Any]", fields)), chosen.get("extra") == "allow")


def best_first(members: Iterable[tuple[Shape | None, T]], value: Any) -> list[T]:
    """The members of a union, those first whose fields are those of `value`.

    Those that would drop some of it come last; among equals the order of the union decides.
    """
    listed = list(members)
    if type(value) is dict:
        names = cast("dict[Any, Any]", value).keys()
        listed.sort(key=lambda member: _distance(member[0], names))
    return [member for _, member in listed]


def _distance(shape: Shape | None, names: Set[Any]) -> int:
    if shape is None:
        return 1
    if shape.names == names:
        return 0
    return 1 if shape.is_open or shape.names.issuperset(names) else 2
