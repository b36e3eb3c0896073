"""Compile annotations to functions that rebuild what arrived: plain data or an object's state."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections import Counter, OrderedDict, abc, defaultdict
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any, Literal, cast, get_args, get_origin

from taskq.codec import rebuilders
from taskq.codec.instances import TypeMismatch, Walk, is_text_kind
from taskq.codec.rebuilders import Rebuilder
from taskq.codec.secret import Secret
from taskq.codec.type_hints import resolve_hints, substituted, unwrapped
from taskq.codec.unions import Member, Union, repeats

__all__ = ["Compiler"]

_LISTS = frozenset(
    {list, set, frozenset}
    | {abc.Sequence, abc.MutableSequence, abc.Set, abc.MutableSet, abc.Collection, abc.Iterable}
)
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, Counter, abc.Mapping, abc.MutableMapping})
_FACTORIES = frozenset({list, dict, set, tuple, str, bytes, int, float, bool})


class Compiler:
    """Compiles the annotations of one signature; classes may refer to themselves."""

    def __init__(self) -> None:
        self._records: dict[Any, Rebuilder] = {}

    def compile(self, annotation: Any) -> Rebuilder | None:
        """What rebuilds a value of `annotation`; None if values stay as they arrive."""
        annotation = unwrapped(annotation)
        origin = get_origin(annotation)
        if origin is None:
            return self._class(annotation, annotation) if isinstance(annotation, type) else None
        if origin in (typing.Union, types.UnionType):
            return self._union(annotation)
        if origin is Literal:
            return self._literal(annotation)
        if origin is tuple:
            return self._tuple(annotation)
        if origin in _LISTS:
            return self._list(annotation)
        if origin in _MAPPINGS:
            return self._mapping(origin, annotation)
        return self._class(origin, annotation) if isinstance(origin, type) else None

    def _class(self, kind: Any, annotation: Any) -> Rebuilder | None:
        if kind is Secret:
            chosen = get_args(annotation)
            return partial(rebuilders.make_secret, self.compile(chosen[0]) if chosen else None)
        if kind in (OrderedDict, defaultdict, Counter):
            return self._mapping(kind, annotation)
        for test, make_leaf in _LEAVES:
            if test(kind):
                return partial(make_leaf, kind)
        for test, make in _RECORDS:
            if test(kind):
                # Stored before its fields are compiled, because they may refer back to it.
                if annotation not in self._records:
                    self._records[annotation] = make(kind, _Fields(kind, annotation, self))
                return self._records[annotation]
        return None

    def _literal(self, annotation: Any) -> Rebuilder | None:
        choices = get_args(annotation)
        if not any(isinstance(choice, Enum) for choice in choices):
            return None
        return partial(rebuilders.make_literal, choices, _display(annotation))

    def _list(self, annotation: Any) -> Rebuilder | None:
        inner = self.compile(get_args(annotation)[0])
        return (
            None if inner is None else partial(rebuilders.make_items, inner, _display(annotation))
        )

    def _tuple(self, annotation: Any) -> Rebuilder | None:
        arguments = get_args(annotation)
        wanted = _display(annotation)
        if len(arguments) == 2 and arguments[1] is ...:
            inner = self.compile(arguments[0])
            return None if inner is None else partial(rebuilders.make_items, inner, wanted)
        if any(map(_is_unpacked, arguments)):
            return None
        inners = [self.compile(argument) for argument in arguments]
        return partial(rebuilders.make_positions, inners, wanted) if any(inners) else None

    def _mapping(self, kind: Any, annotation: Any) -> Rebuilder | None:
        arguments = get_args(annotation) or (Any, Any)
        key = self.compile(arguments[0])
        value = self.compile(arguments[1]) if len(arguments) == 2 else None
        make: Any = kind if kind in (OrderedDict, Counter) else None
        if kind is defaultdict:
            factory = get_origin(arguments[1]) or arguments[1]
            chosen: Any = factory if factory in _FACTORIES else None
            make = partial(cast("Any", defaultdict), chosen)
        if key is None and value is None and make is None:
            return None
        return partial(rebuilders.make_mapping, make, (key, value), _display(annotation))

    def _union(self, annotation: Any) -> Rebuilder | None:
        plain: set[Any] = set()
        made: set[Any] = set()
        members: list[Member] = []
        for member in map(unwrapped, get_args(annotation)):
            rebuild = self.compile(member)
            if rebuild is None:
                plain.add(get_origin(member) or member)
            else:
                made.add(get_origin(member))
                members.append(Member.of(member, rebuild))
        if not members:
            return None
        # In `list[str] | list[Color]`, being a list does not decide.
        exact = frozenset(plain - made)
        return Union(frozenset(plain), exact, members, _display(annotation)).rebuild


def _is_unpacked(argument: Any) -> bool:
    # `*tuple[int, ...]` and `Unpack[tuple[int, ...]]` are objects of two types.
    return get_origin(argument) is typing.Unpack or getattr(argument, "__unpacked__", False)


class _Fields:
    """The fields of a class, compiled on first use: their types may be defined later."""

    def __init__(self, kind: Any, annotation: Any, compiler: Compiler) -> None:
        self._kind = kind
        self._annotation = annotation
        self._compiler = compiler
        self._rebuilders: dict[str, Rebuilder] | None = None

    def __call__(self, walk: Walk, values: Iterable[tuple[str, Any]], step: str) -> dict[Any, Any]:
        if self._rebuilders is None:
            self._rebuilders = self._compile()
        compiled = self._rebuilders
        rebuilt: dict[Any, Any] = {}
        name = ""
        try:
            for name, value in values:
                rebuild = compiled.get(name)
                rebuilt[name] = value if rebuild is None else rebuild(walk, value)
        except TypeMismatch as mismatch:
            mismatch.within(step.format(name))
            raise
        return rebuilt

    def _compile(self) -> dict[str, Rebuilder]:
        hints = resolve_hints(self._kind)[0]
        parameters: Any = getattr(self._kind, "__parameters__", ())
        chosen = dict(zip(parameters, get_args(self._annotation), strict=False))
        # A model has already substituted its own type variables.
        for name, field in _declared(self._kind).items():
            hints[name] = field.annotation
        compiled: dict[str, Rebuilder] = {}
        for name, hint in hints.items():
            rebuild = self._compiler.compile(substituted(hint, chosen))
            if rebuild is not None:
                compiled[name] = rebuild
        return compiled


def _declared(kind: Any) -> dict[str, Any]:
    fields: Any = getattr(kind, "model_fields", None)
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def _object(kind: Any, fields: _Fields) -> Rebuilder:
    cost = partial(repeats, kind)
    if not dataclasses.is_dataclass(kind):
        construct = partial(rebuilders.validated, kind, kind.model_validate, cost)
    elif hasattr(kind, "__pydantic_validator__"):
        construct = partial(
            rebuilders.validated, kind, lambda given: cast("Any", kind)(**given), cost
        )
    else:
        construct = partial(rebuilders.constructed, kind, rebuilders.Parameters.of(kind), fields)
    has_fields = dataclasses.is_dataclass(kind) or _declared(kind)
    make = partial(rebuilders.make_object, kind, fields if has_fields else None, construct)
    return lambda walk, value: walk.once(make, value) if walk.trying else make(walk, value)


def _is_object(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) or callable(getattr(kind, "model_validate", None))


def _is_named_tuple(kind: Any) -> bool:
    return hasattr(kind, "_fields") and issubclass(kind, tuple)


_LEAVES: tuple[tuple[Callable[[Any], bool], Callable[[Any, Walk, Any], Any]], ...] = (
    (lambda kind: issubclass(kind, Enum), rebuilders.make_enum),
    (lambda kind: kind is bytearray, rebuilders.make_buffer),
    (is_text_kind, rebuilders.make_text),
)
_RECORDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, _Fields], Rebuilder]], ...] = (
    (_is_object, _object),
    (typing.is_typeddict, lambda kind, fields: partial(rebuilders.make_typed_dict, kind, fields)),
    (_is_named_tuple, lambda kind, fields: partial(rebuilders.make_named_tuple, kind, fields)),
)


def _display(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation).replace("typing.", "")
    )
