"""How often a model's own validation looks at the same values again.

pydantic tries every member of a union, at every level. In unions of classes with the same fields
the time grows exponentially with the depth, and nothing can interrupt it. So it is counted before.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast, get_args, get_origin

from taskq.core.hints import bare, resolve_hints

__all__ = ["repeats"]


def repeats(kind: Any, value: Any) -> int:
    """How many dictionaries in `value` are validated more often than once for a class, in all."""
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
        tagged, annotation = _is_tagged(annotation), bare(annotation)
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
    """The annotations of a class by the names its values may come under; None for another one."""
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
