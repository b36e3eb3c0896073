"""Resolve annotations, even if some of their names cannot be resolved."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import InitVar
from typing import Annotated, Any, NewType, cast, get_args, get_origin

__all__ = ["annotations_of", "resolve_hints", "substituted", "unwrapped"]

_WRAPPERS = frozenset({Annotated, typing.Required, typing.NotRequired, typing.Final})


def annotations_of(function: Any) -> dict[str, Any]:
    """The unresolved annotations of a callable; empty if it has none."""
    try:
        return inspect.get_annotations(function)
    except Exception:  # proxies and mocks may raise anything
        return {}


def resolve_hints(owner: Any) -> tuple[dict[str, Any], bool]:
    """The annotations of a function or a class, and whether all of them could be resolved.

    Unresolvable ones, such as names imported below `if TYPE_CHECKING:`, are left out.
    """
    closure = _closure_of(owner)
    try:
        return typing.get_type_hints(owner, localns=closure, include_extras=True), True
    except Exception:  # an annotation is any expression, which may raise anything
        hints: dict[str, Any] = {}
    for holder in reversed(inspect.getmro(owner)) if isinstance(owner, type) else [owner]:
        if isinstance(holder, type):
            known, local = vars(sys.modules.get(holder.__module__, types)), dict(vars(holder))
        else:
            known, local = getattr(inspect.unwrap(holder), "__globals__", {}), closure
        for name, annotation in inspect.get_annotations(holder).items():
            hints.pop(name, None)
            one = types.SimpleNamespace(__annotations__={name: annotation})
            try:
                hints |= typing.get_type_hints(one, known, local, include_extras=True)
            except Exception:  # noqa: S112, as above: leave this one out
                continue
    return hints, False


def _closure_of(owner: Any) -> dict[str, Any] | None:
    # Classes local to a function are found only if the task itself mentions them.
    cells = getattr(owner, "__closure__", None)
    if not cells:
        return None
    known: dict[str, Any] = {}
    for name, cell in zip(owner.__code__.co_freevars, cells, strict=True):
        try:
            known[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return known


def unwrapped(annotation: Any) -> Any:
    """The annotation without wrappers that do not change the type of the value."""
    while True:
        if get_origin(annotation) in _WRAPPERS:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, InitVar):
            annotation = cast("Any", annotation.type)
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return type(None) if annotation is None else annotation


def substituted(hint: Any, chosen: Mapping[Any, Any]) -> Any:
    """The hint of a field of a generic class, with the type variables of the class replaced."""
    if not chosen or isinstance(hint, type):
        return hint
    if hint in chosen:
        return chosen[hint]
    free = getattr(hint, "__parameters__", ())
    return hint[tuple(chosen.get(variable, Any) for variable in free)] if free else hint
