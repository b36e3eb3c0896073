"""Objects with fields, such as dataclasses and models: read their state, and restore it.

An object arrives in the state it was sent in. No code of its class runs then, so no validator and
no `__post_init__` transforms a value twice. An object whose state cannot be encoded is sent as the
arguments of its constructor, if these create an equal object. A value that does not fit raises
`TypeMismatch`; `Walk` bounds the number of attempts.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from pathlib import PurePath
from typing import Any, Final, cast

from taskq.codec.extensions import Record
from taskq.core.errors import CallError

__all__ = [
    "TypeMismatch",
    "Walk",
    "error_text",
    "fields_of",
    "forms_of",
    "is_model",
    "is_object_class",
    "is_text_kind",
    "restored",
    "short_repr",
]

_MOST_STEPS: Final = 400_000
"""Four per value that a payload may hold; all of them take about half a second."""


class TypeMismatch(CallError):
    """A value that does not fit its annotation; the path to it grows as this propagates.

    `reason` may be a function: most are never read, because another member of a union fits.
    """

    def __init__(self, reason: str | Callable[[], str]) -> None:
        super().__init__()
        self._reason = reason
        self.path = ""

    @property
    def reason(self) -> str:
        """Why, without the path."""
        return self._reason if isinstance(self._reason, str) else self._reason()

    def within(self, step: str) -> None:
        """Add an enclosing container to the path."""
        self.path = step + self.path

    def again(self) -> TypeMismatch:
        """A copy, to be raised on another path."""
        copy = TypeMismatch(self._reason)
        copy.path = self.path
        return copy

    def named(self, name: str) -> CallError:
        """The error to raise for the value of `name`."""
        return CallError(f"{name}{self.path} {self.reason}")

    def __str__(self) -> str:
        return f"value{self.path} {self.reason}"


class Walk:
    """The state of rebuilding one payload: the attempts left, and the objects made so far.

    A union of classes with the same fields tries each member at each level. Results are kept per
    value, so the time is linear in the size of the payload instead of exponential in its depth.
    """

    __slots__ = ("_left", "_made", "trying")

    def __init__(self) -> None:
        self._left = _MOST_STEPS
        self._made: dict[tuple[int, int], Any] = {}
        self.trying = 0

    def step(self, count: int = 1) -> None:
        """Count values made or tried; raises `CallError` above the limit."""
        self._left -= count
        if self._left < 0:
            raise CallError(
                f"rebuilding the values takes more than {_MOST_STEPS:,} attempts; give the classes "
                "of a union different fields, or a discriminator, or pass objects of these classes "
                "instead of dictionaries"
            )

    def once(self, make: Callable[[Walk, Any], Any], value: Any) -> Any:
        """The result of `make` for a value, which must outlive this walk."""
        key = (id(make), id(value))
        known = self._made.get(key)
        if known is None:
            try:
                known = (make(self, value),)
            except TypeMismatch as mismatch:
                known = mismatch.again()
                self._made[key] = known
                raise
            self._made[key] = known
        if isinstance(known, TypeMismatch):
            raise known.again()
        return known[0]


def short_repr(value: Any) -> str:
    """A short `repr` of a value."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 60
    return short.repr(value)


def error_text(error: Exception) -> str:
    """The message of a constructor in one line; that of a model, field by field."""
    listed = getattr(error, "errors", None)
    if not callable(listed):
        return f"{type(error).__name__}: {error}"[:300]
    faults = cast("list[dict[str, Any]]", listed())
    texts = [
        f"{'.'.join(map(str, fault.get('loc', ())))}: {fault.get('msg', '')}".removeprefix(": ")
        for fault in faults[:3]
    ]
    return "; ".join(texts) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")


_MISSING = dataclasses.MISSING


def is_model(kind: type[Any]) -> bool:
    """Whether values of this class are models, such as pydantic's."""
    # On the type, because an instance of a proxy or a mock has every attribute.
    return callable(getattr(kind, "model_dump", None))


@lru_cache(maxsize=1024)
def is_object_class(kind: type[Any]) -> bool:
    """Whether values of this class are objects with fields."""
    return dataclasses.is_dataclass(kind) or is_model(kind)


def is_text_kind(kind: type[Any]) -> bool:
    """Whether values of this class are sent as text inside an object, and rebuilt from it."""
    if issubclass(kind, PurePath) or kind.__module__ == "ipaddress":
        return True
    return kind.__module__.startswith("pydantic") and kind.__name__.endswith(("Url", "Dsn"))


@lru_cache(maxsize=1024)
def _names_of(kind: Any) -> tuple[dict[str, None] | None, bool]:
    """The names of the fields, None if it does not declare any, and whether it is a dataclass."""
    if dataclasses.is_dataclass(kind):
        return dict.fromkeys(field.name for field in dataclasses.fields(kind)), True
    declared = getattr(kind, "model_fields", None)
    return dict.fromkeys(cast("Any", declared)) if isinstance(declared, dict) else None, False


def fields_of(value: Any) -> dict[str, Any] | None:
    """The declared and extra fields of an object; None if its class does not declare any."""
    names, is_dataclass = _names_of(cast("type[Any]", type(value)))
    if names is None:
        return None
    if is_dataclass:
        return {name: getattr(value, name) for name in names}
    # A model created without validation may lack some.
    held = cast("dict[str, Any]", vars(value))
    fields = {name: held[name] for name in names if name in held}
    return fields | (getattr(value, "model_extra", None) or {})


def forms_of(value: Any) -> Iterator[Any]:
    """The forms in which an object can be sent, best first; raises what its own code raises."""
    fields = fields_of(value)
    if fields is None:
        yield _dumped(value)
        return
    others, unset = _others_of(value, fields)
    if not others.keys() & fields.keys():
        yield Record.of(type(value).__name__, unset, fields | others)
    given = _given(value)
    if _makes_again(value, given, fields):
        yield given


def restored(kind: Any, record: Record, state: dict[str, Any]) -> Any:
    """An object of a class in this state; raises `TypeMismatch` if it cannot have this state."""
    made = kind.__new__(kind)
    names, is_dataclass = _names_of(kind)
    if not is_dataclass:
        _restore_model(made, kind, record.unset.split(), state)
        return made
    missing = len(cast("Any", names))
    for name, value in state.items():
        if name in cast("Any", names):
            missing -= 1
        elif hasattr(kind, name):
            raise _has_none(kind, name)
        object.__setattr__(made, name, value)
    if missing:
        _fill_up(made, kind, state)
    return made


def _fill_up(made: Any, kind: Any, state: dict[str, Any]) -> None:
    """Set the defaults of fields that the class gained after the object was sent."""
    for field in dataclasses.fields(kind):
        if field.name not in state:
            made_by = field.default_factory
            value = field.default if made_by is _MISSING else made_by()
            if value is _MISSING:
                raise _lacks(kind, field.name)
            object.__setattr__(made, field.name, value)


def _lacks(kind: Any, name: str) -> TypeMismatch:
    return TypeMismatch(f"does not fit: {kind.__qualname__} needs `{name}`")


def _has_none(kind: Any, name: str) -> TypeMismatch:
    return TypeMismatch(f"does not fit: {kind.__qualname__} has no field `{name}`")


def _restore_model(made: Any, kind: Any, unset: list[str], state: dict[str, Any]) -> None:
    declared, private = kind.model_fields, kind.__private_attributes__
    fields = {name: state[name] for name in declared if name in state}
    missing = [name for name in declared if name not in state]
    for name in missing:
        if declared[name].is_required():
            raise _lacks(kind, name)
        fields[name] = declared[name].get_default(call_default_factory=True)
    others = {name: state[name] for name in state if name not in declared and name not in private}
    extra = kind.model_config.get("extra")
    if others and extra == "forbid":
        raise _has_none(kind, next(iter(others)))
    kept = others if extra == "allow" else {}
    for name, value in {
        "__dict__": fields,
        "__pydantic_fields_set__": {*fields, *kept}.difference(unset, missing),
        "__pydantic_extra__": kept if extra == "allow" else None,
        "__pydantic_private__": {n: state[n] for n in private if n in state} if private else None,
    }.items():
        object.__setattr__(made, name, value)


def _others_of(value: Any, fields: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The attributes of an object beside its fields, and the names of its unset fields."""
    kind = cast("type[Any]", type(value))
    if not dataclasses.is_dataclass(kind):
        unset = " ".join(name for name in fields if name not in value.model_fields_set)
        return getattr(value, "__pydantic_private__", None) or {}, unset
    held = cast("dict[str, Any]", getattr(value, "__dict__", {}))
    if held.keys() <= fields.keys():
        return {}, ""
    others = {
        name: item
        for name, item in held.items()
        if name not in fields and not isinstance(getattr(kind, name, None), cached_property)
    }
    return others, ""


def _given(value: Any) -> Any:
    if not dataclasses.is_dataclass(value):
        return _dumped(value)
    return {
        field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init
    }


def _dumped(model: Any) -> Any:
    try:
        # Without computed fields, which are not input for a model.
        return model.model_dump(mode="python", by_alias=True, round_trip=True)
    except TypeError:
        return model.model_dump(mode="python")


def _makes_again(value: Any, given: Any, before: dict[str, Any]) -> bool:
    kind = cast("Any", type(value))
    try:
        made = kind.model_validate(given) if is_model(kind) else kind(**given)
    except Exception:  # a validator is user code
        return False
    after = fields_of(made)
    if after is None or before.keys() != after.keys():
        return False
    return all(_alike(before[name], after[name]) for name in before)


def _alike(before: Any, after: Any) -> bool:
    try:
        return before is after or bool(before == after) or before != before  # NaN
    except Exception:  # arrays and others that do not compare to a bool: undecidable
        return True
