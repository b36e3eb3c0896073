"""Rebuild one value: a function for each kind of annotation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from inspect import Parameter
from itertools import repeat
from typing import Any, NamedTuple, cast

from taskq.codec.extensions import Record
from taskq.codec.instances import TypeMismatch, Walk, error_text, restored, short_repr
from taskq.codec.secret import Secret

__all__ = [
    "Fields",
    "Parameters",
    "Rebuilder",
    "constructed",
    "make_buffer",
    "make_enum",
    "make_items",
    "make_literal",
    "make_mapping",
    "make_named_tuple",
    "make_object",
    "make_positions",
    "make_secret",
    "make_text",
    "make_typed_dict",
    "validated",
]

Rebuilder = Callable[[Walk, Any], Any]
Fields = Callable[[Walk, Iterable[tuple[str, Any]], str], dict[Any, Any]]
"""Rebuilds the fields of a class; the text is the format of one step of a path."""


class Parameters(NamedTuple):
    """The parameters of a constructor, and whether it accepts others too."""

    names: frozenset[str]
    required: frozenset[str]
    others: bool

    @classmethod
    def of(cls, kind: Any) -> Parameters:
        """The parameters of the constructor of `kind`."""
        parameters = inspect.signature(kind).parameters.values()
        by_kind = {parameter.kind for parameter in parameters}
        named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        required = (parameter.name for parameter in named if parameter.default is parameter.empty)
        names = frozenset(parameter.name for parameter in named)
        return cls(names, frozenset(required), Parameter.VAR_KEYWORD in by_kind)


def make_secret(inner: Rebuilder | None, walk: Walk, value: Any) -> Any:
    plain = cast("Secret[Any]", value).reveal() if isinstance(value, Secret) else value
    if inner is None:
        return Secret(plain)
    try:
        return Secret(inner(walk, plain))
    except TypeMismatch:
        # Neither the message nor the chain of causes may show the value.
        raise TypeMismatch("is a secret whose value does not fit its annotation") from None


def make_enum(kind: Any, walk: Walk, value: Any) -> Any:
    walk.step()
    try:
        return kind(value)
    except Exception as error:  # `_missing_` is user code
        raise TypeMismatch(partial(_no_member, kind, value)) from error


def _no_member(kind: Any, value: Any) -> str:
    known = ", ".join(short_repr(member.value) for member in list(kind)[:12])
    return f"is {short_repr(value)}, expected a value of the enum {kind.__qualname__}: {known}"


def make_literal(choices: tuple[Any, ...], wanted: str, _: Walk, value: Any) -> Any:
    """A member of an enum that is one of the choices, or another choice."""
    if any(type(choice) is type(value) and choice == value for choice in choices):
        return value
    for choice in choices:
        if isinstance(choice, Enum) and choice.value == value:
            return choice
    raise _unexpected(value, wanted)


def make_text(kind: Any, _: Walk, value: Any) -> Any:
    """A path or an address, which is sent as text."""
    if type(value) is not str:
        return value
    try:
        return kind(value)
    except Exception as error:
        raise _construction_failed(kind, error) from error


def make_buffer(kind: Any, _: Walk, value: Any) -> Any:
    return kind(value) if type(value) is bytes else value


# ------------------------------------------------------------------------------ objects with fields


def make_object(
    kind: Any, fields: Fields | None, construct: Rebuilder, walk: Walk, value: Any
) -> Any:
    """An instance of a dataclass or a model; `fields` is None for one that does not declare any."""
    if isinstance(value, kind):
        return value
    walk.step()
    if type(value) is not Record or fields is None:
        return construct(walk, value)
    state = fields(walk, value.items(), ".{}")
    try:
        return restored(kind, value, state)
    except TypeMismatch:
        raise
    except Exception as error:
        raise _construction_failed(kind, error) from error


def constructed(kind: Any, takes: Parameters, fields: Fields, walk: Walk, value: Any) -> Any:
    """A dataclass from plain data: only the parameters of its constructor are accepted."""
    if type(value) is not dict:
        raise _unexpected(value, f"the fields of {kind.__qualname__}")
    given = cast("dict[str, Any]", value)
    if not takes.others:
        _compare(kind, given.keys() - takes.names, "has no field")
    _compare(kind, takes.required - given.keys(), "needs")
    state = fields(walk, given.items(), ".{}")
    try:
        return kind(**state)
    except Exception as error:
        raise _construction_failed(kind, error) from error


def validated(
    kind: Any, validate: Callable[[Any], Any], repeats: Callable[[Any], int], walk: Walk, value: Any
) -> Any:
    """A model from plain data, by its own rules. `repeats` counts repeated validations."""
    walk.step(10 * repeats(value))
    try:
        return validate(value)
    except Exception as error:
        raise _construction_failed(kind, error) from error


def _compare(kind: type, names: Iterable[Any], verb: str) -> None:
    listed = sorted(f"`{name}`" for name in names)
    if listed:
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        raise TypeMismatch(
            f"does not fit: {kind.__qualname__} {verb} {', '.join(listed[:5])[:200]}{more}"
        )


def make_named_tuple(kind: Any, fields: Fields, walk: Walk, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, (tuple, list)) or len(cast("Any", value)) != len(kind._fields):
        raise _unexpected(value, f"the {len(kind._fields)} values of {kind.__qualname__}")
    return kind(**fields(walk, zip(kind._fields, cast("Any", value), strict=True), ".{}"))


def make_typed_dict(kind: Any, fields: Fields, walk: Walk, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _unexpected(value, f"the keys of {kind.__qualname__}")
    return fields(walk, cast("dict[Any, Any]", value).items(), "[{!r}]")


# --------------------------------------------------------------------------------------- containers


def _items_of(value: Any, wanted: str) -> tuple[type, Any]:
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return cast("type", kind), cast("Any", value)
    raise _unexpected(value, wanted)


def make_items(inner: Rebuilder, wanted: str, walk: Walk, value: Any) -> Any:
    """The items of a list, tuple or set, each rebuilt by `inner`; the container keeps its type."""
    kind, items = _items_of(value, wanted)
    return _each(kind, zip(repeat(inner), items, strict=False), walk, len(items))


def make_positions(inners: list[Rebuilder | None], wanted: str, walk: Walk, value: Any) -> Any:
    """The items of a tuple with one type per position."""
    kind, items = _items_of(value, wanted)
    if len(items) != len(inners):
        raise TypeMismatch(f"holds {len(items)} values, expected {wanted}")
    return _each(kind, zip(inners, items, strict=True), walk, len(items))


def _each(kind: type, pairs: Iterable[tuple[Rebuilder | None, Any]], walk: Walk, count: int) -> Any:
    walk.step(count)
    rebuilt: list[Any] = []
    try:
        for inner, item in pairs:
            rebuilt.append(item if inner is None else inner(walk, item))
    except TypeMismatch as mismatch:
        mismatch.within(f"[{len(rebuilt)}]")
        raise
    return rebuilt if kind is list else kind(rebuilt)


def make_mapping(
    make: Callable[[Any], Any] | None,
    inners: tuple[Rebuilder | None, Rebuilder | None],
    wanted: str,
    walk: Walk,
    value: Any,
) -> Any:
    """A dictionary with rebuilt items, as the type that `make` creates, such as `OrderedDict`."""
    if not isinstance(value, dict):
        raise _unexpected(value, wanted)
    inner_key, inner_value = inners
    walk.step(len(cast("Any", value)))
    rebuilt: dict[Any, Any] = {}
    key: Any = None
    try:
        for key, item in cast("dict[Any, Any]", value).items():
            made = key if inner_key is None else inner_key(walk, key)
            rebuilt[made] = item if inner_value is None else inner_value(walk, item)
    except TypeMismatch as mismatch:
        mismatch.within(f"[{short_repr(key)}]")
        raise
    return rebuilt if make is None else make(rebuilt)


def _unexpected(value: Any, wanted: str) -> TypeMismatch:
    return TypeMismatch(lambda: f"is {short_repr(value)}, expected {wanted}")


def _construction_failed(kind: Any, error: Exception) -> TypeMismatch:
    return TypeMismatch(lambda: f"is not a valid {kind.__qualname__}: {error_text(error)}")
