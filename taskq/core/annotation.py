"""What an annotation makes of a value that arrived as plain data."""

from __future__ import annotations

import dataclasses
import reprlib
import types
import typing
from collections import OrderedDict, abc, defaultdict
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any, Union, cast, get_args, get_origin

from taskq.core.errors import CallError
from taskq.core.hints import bare, resolve_hints, substituted
from taskq.core.models import validator_of
from taskq.core.secret import Secret
from taskq.core.shapes import Shape, best_first, shape_of

__all__ = ["Compiler", "Misfit", "Rebuilder"]

Rebuilder = Callable[[Any], Any]

_LISTS = frozenset(
    {list, set, frozenset}
    | {abc.Sequence, abc.MutableSequence, abc.Set, abc.MutableSet, abc.Collection, abc.Iterable}
)
_MAPPINGS = frozenset({dict, OrderedDict, defaultdict, abc.Mapping, abc.MutableMapping})


class Misfit(CallError):
    """A value nothing can be made of, on its way up to its parameter."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def within(self, step: str) -> None:
        """Record one container around the value."""
        self.path = step + self.path

    def named(self, name: str) -> CallError:
        """The error to raise for the value of `name`."""
        return CallError(f"{name}{self.path} {self.reason}")

    def __str__(self) -> str:
        return f"value{self.path} {self.reason}"


class Compiler:
    """Compiles annotations; one for each signature, so that classes may refer to themselves."""

    def __init__(self) -> None:
        self._records: dict[Any, Rebuilder] = {}

    def compile(self, annotation: Any) -> Rebuilder | None:
        """What rebuilds a value of `annotation`; None when it is fine as it came."""
        annotation = bare(annotation)
        origin = get_origin(annotation)
        if origin is None:
            return self._class(annotation, annotation) if isinstance(annotation, type) else None
        if origin in (Union, types.UnionType):
            return self._union(annotation)
        if origin is tuple:
            return self._tuple(annotation)
        if origin in _LISTS:
            return self._list(annotation)
        if origin in _MAPPINGS:
            return self._mapping(annotation)
        return self._class(origin, annotation) if isinstance(origin, type) else None

    def _class(self, kind: Any, annotation: Any) -> Rebuilder | None:
        if kind is Secret:
            chosen = get_args(annotation)
            return partial(_rebuild_secret, self.compile(chosen[0]) if chosen else None)
        if issubclass(kind, Enum):
            return partial(_rebuild_enum, kind)
        if not dataclasses.is_dataclass(kind) and callable(getattr(kind, "model_validate", None)):
            return partial(_rebuild_model, kind, validator_of(kind))
        for test, make in _RECORDS:
            if test(kind):
                # Known before its fields are compiled: they may lead back to it.
                if annotation not in self._records:
                    self._records[annotation] = make(kind, _Fields(kind, annotation, self))
                return self._records[annotation]
        return None

    def _list(self, annotation: Any) -> Rebuilder | None:
        inner = self.compile(get_args(annotation)[0])
        return None if inner is None else partial(_rebuild_items, inner, _shown(annotation))

    def _tuple(self, annotation: Any) -> Rebuilder | None:
        arguments = get_args(annotation)
        wanted = _shown(annotation)
        if len(arguments) == 2 and arguments[1] is ...:
            inner = self.compile(arguments[0])
            return None if inner is None else partial(_rebuild_items, inner, wanted)
        if any(map(_is_unpacked, arguments)):
            return None
        inners = [self.compile(argument) for argument in arguments]
        return partial(_rebuild_places, inners, wanted) if any(inners) else None

    def _mapping(self, annotation: Any) -> Rebuilder | None:
        key, value = (self.compile(argument) for argument in get_args(annotation))
        if key is None and value is None:
            return None
        return partial(_rebuild_mapping, key, value, _shown(annotation))

    def _union(self, annotation: Any) -> Rebuilder | None:
        plain: set[Any] = set()
        made: set[Any] = set()
        rebuilders: list[tuple[Shape | None, Rebuilder]] = []
        for member in map(bare, get_args(annotation)):
            rebuild = self.compile(member)
            if rebuild is None:
                plain.add(get_origin(member) or member)
            else:
                made.add(get_origin(member))
                rebuilders.append((shape_of(member), rebuild))
        if not rebuilders:
            return None
        # In `list[str] | list[Color]` being a list says nothing.
        exact = frozenset(plain - made)
        lenient = bool(plain - {type(None)})
        return partial(_rebuild_union, exact, lenient, rebuilders, _shown(annotation))


def _is_unpacked(argument: Any) -> bool:
    # `*tuple[int, ...]` and `Unpack[tuple[int, ...]]` are two kinds of object.
    return get_origin(argument) is typing.Unpack or getattr(argument, "__unpacked__", False)


class _Fields:
    """The annotated fields of a class, compiled when first needed: they may be defined later."""

    def __init__(self, kind: Any, annotation: Any, compiler: Compiler) -> None:
        self._kind = kind
        self._annotation = annotation
        self._compiler = compiler
        self._rebuilders: dict[str, Rebuilder] | None = None

    def rebuild(self, values: Iterable[tuple[str, Any]], step: str) -> dict[Any, Any]:
        """The values rebuilt; `step` shows a field in a path."""
        if self._rebuilders is None:
            self._rebuilders = self._compile()
        rebuilders = self._rebuilders
        rebuilt: dict[Any, Any] = {}
        name = ""
        try:
            for name, value in values:
                rebuild = rebuilders.get(name)
                rebuilt[name] = value if rebuild is None else rebuild(value)
        except Misfit as misfit:
            misfit.within(step.format(name))
            raise
        return rebuilt

    def _compile(self) -> dict[str, Rebuilder]:
        chosen = dict(
            zip(
                getattr(self._kind, "__parameters__", ()),
                get_args(self._annotation),
                strict=False,
            )
        )
        compiled: dict[str, Rebuilder] = {}
        for name, hint in resolve_hints(self._kind)[0].items():
            rebuild = self._compiler.compile(substituted(hint, chosen))
            if rebuild is not None:
                compiled[name] = rebuild
        return compiled


def _shown(annotation: Any) -> str:
    return (
        annotation.__name__
        if isinstance(annotation, type) and not get_args(annotation)
        else str(annotation).replace("typing.", "")
    )


def _shortly(value: Any) -> str:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


def _cause(error: Exception) -> str:
    """What a constructor said, in one line; what a model says, field by field."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return f"{type(error).__name__}: {error}"[:300]
    faults = cast("list[dict[str, Any]]", listed())
    texts = [
        f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg', '')}".removeprefix(": ")
        for fault in faults[:3]
    ]
    return "; ".join(texts) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


def _rebuild_secret(inner: Rebuilder | None, value: Any) -> Any:
    plain = cast("Secret[Any]", value).reveal() if isinstance(value, Secret) else value
    if inner is None:
        return Secret(plain)
    try:
        return Secret(inner(plain))
    except Misfit:
        # Without what it says of the value, in the message and in the chain of causes.
        raise Misfit("is a secret whose value does not fit its annotation") from None


def _rebuild_enum(kind: Any, value: Any) -> Any:
    try:
        return kind(value)
    except Exception as error:  # `_missing_` is the user's own
        known = ", ".join(_shortly(member.value) for member in list(kind)[:12])
        raise Misfit(
            f"is {_shortly(value)}, wanted a value of the enum {kind.__qualname__}: {known}"
        ) from error


def _rebuild_model(kind: type, validate: Rebuilder, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    try:
        return validate(value)
    except Exception as error:
        raise Misfit(f"is no {kind.__qualname__}: {_cause(error)}") from error


def _dataclass(kind: Any, fields: _Fields) -> Rebuilder:
    known = {field.name: field for field in dataclasses.fields(kind)}
    required = {
        name
        for name, field in known.items()
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }

    def rebuild_dataclass(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if type(value) is not dict:
            raise Misfit(f"is {_shortly(value)}, wanted the fields of {kind.__qualname__}")
        came = cast("dict[str, Any]", value)
        _compare(kind, came.keys() - known.keys(), "has no field")
        _compare(kind, required - came.keys(), "needs")
        rebuilt = fields.rebuild(came.items(), ".{}")
        late = {name: rebuilt.pop(name) for name in list(rebuilt) if not known[name].init}
        try:
            made = kind(**rebuilt)
            for name, field_value in late.items():
                object.__setattr__(made, name, field_value)
        except Exception as error:
            raise Misfit(f"is no {kind.__qualname__}: {_cause(error)}") from error
        return made

    return rebuild_dataclass


def _compare(kind: type, names: Iterable[Any], verb: str) -> None:
    listed = ", ".join(sorted(f"`{name}`" for name in names))
    if listed:
        raise Misfit(f"does not fit: {kind.__qualname__} {verb} {listed}")


def _named_tuple(kind: Any, fields: _Fields) -> Rebuilder:
    def rebuild_named_tuple(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, (tuple, list)) or len(cast("Any", value)) != len(kind._fields):
            wanted = f"the {len(kind._fields)} values of {kind.__qualname__}"
            raise Misfit(f"is {_shortly(value)}, wanted {wanted}")
        return kind(**fields.rebuild(zip(kind._fields, cast("Any", value), strict=True), ".{}"))

    return rebuild_named_tuple


def _typed_dict(kind: Any, fields: _Fields) -> Rebuilder:
    def rebuild_typed_dict(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Misfit(f"is {_shortly(value)}, wanted the keys of {kind.__qualname__}")
        return fields.rebuild(cast("dict[Any, Any]", value).items(), "[{!r}]")

    return rebuild_typed_dict


def _is_named_tuple(kind: Any) -> bool:
    return hasattr(kind, "_fields") and issubclass(kind, tuple)


_RECORDS: tuple[tuple[Callable[[Any], bool], Callable[[Any, _Fields], Rebuilder]], ...] = (
    (dataclasses.is_dataclass, _dataclass),
    (typing.is_typeddict, _typed_dict),
    (_is_named_tuple, _named_tuple),
)


def _items_of(value: Any, wanted: str) -> tuple[type, Any]:
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return cast("type", kind), cast("Any", value)
    raise Misfit(f"is {_shortly(value)}, wanted {wanted}")


def _rebuild_items(inner: Rebuilder, wanted: str, value: Any) -> Any:
    kind, items = _items_of(value, wanted)
    rebuilt: list[Any] = []
    try:
        for item in items:
            rebuilt.append(inner(item))  # noqa: PERF401, how many tells which
    except Misfit as misfit:
        misfit.within(f"[{len(rebuilt)}]")
        raise
    return rebuilt if kind is list else kind(rebuilt)


def _rebuild_places(inners: list[Rebuilder | None], wanted: str, value: Any) -> Any:
    kind, items = _items_of(value, wanted)
    if len(items) != len(inners):
        raise Misfit(f"holds {len(items)} values, wanted {wanted}")
    rebuilt: list[Any] = []
    try:
        for inner, item in zip(inners, items, strict=True):
            rebuilt.append(item if inner is None else inner(item))
    except Misfit as misfit:
        misfit.within(f"[{len(rebuilt)}]")
        raise
    return rebuilt if kind is list else kind(rebuilt)


def _rebuild_mapping(
    inner_key: Rebuilder | None, inner_value: Rebuilder | None, wanted: str, value: Any
) -> Any:
    if not isinstance(value, dict):
        raise Misfit(f"is {_shortly(value)}, wanted {wanted}")
    rebuilt: dict[Any, Any] = {}
    key: Any = None
    try:
        for key, item in cast("dict[Any, Any]", value).items():
            made = key if inner_key is None else inner_key(key)
            rebuilt[made] = item if inner_value is None else inner_value(item)
    except Misfit as misfit:
        misfit.within(f"[{_shortly(key)}]")
        raise
    return rebuilt


def _rebuild_union(
    exact: frozenset[Any],
    lenient: bool,
    rebuilders: list[tuple[Shape | None, Rebuilder]],
    wanted: str,
    value: Any,
) -> Any:
    if type(value) in exact:
        return value
    misfits: list[Misfit] = []
    for rebuild in best_first(rebuilders, value):
        try:
            return rebuild(value)
        except Misfit as misfit:
            misfits.append(misfit)
    # An int for a float, or `Any`: a plain member takes what nothing can be made of.
    if lenient:
        return value
    if len(misfits) == 1:
        raise misfits[0]
    raise Misfit(f"is {_shortly(value)}, wanted {wanted}")
