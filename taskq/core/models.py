"""Models, such as pydantic's: as what they travel, and how they are made again.

A model is made again from the values of its fields. Its serialisers, and `exclude`, say how it is
shown to others, which need not be what it is made from; they count where its fields cannot travel.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, cast, get_args

__all__ = ["forms_of", "is_model", "validator_of"]

_RESHAPING = frozenset({"Json", "PlainSerializer", "WrapSerializer"})
"""Annotations by which a field is shown as something that is not its value."""


def is_model(kind: type[Any]) -> bool:
    """Whether values of this class are models."""
    # On the type: a proxy or a mock has every attribute one asks it for.
    return callable(getattr(kind, "model_dump", None))


def forms_of(model: Any) -> Iterator[Any]:
    """What `model` may travel as, best first: its fields, then what it dumps.

    Only what makes an equal model again; none where its serialisers and validators are at odds.
    Raises what the model's own code raises.
    """
    kind = cast("type[Any]", type(model))
    fields = _fields_of(kind, model)
    if fields is None:
        yield _dump_of(model)
        return
    if not _reshapes(kind) or _makes_again(kind, fields, model):
        yield _content(kind, fields)
    dumped = _dump_of(model)
    if _makes_again(kind, dumped, model):
        yield dumped


def validator_of(kind: Any) -> Callable[[Any], Any]:
    """What makes a model of this class of what arrived."""
    validate: Callable[..., Any] = kind.model_validate
    known = inspect.signature(validate).parameters
    # A model travels by the names of its fields, which its aliases would otherwise hide, and with
    # its enums and paths as plain values, which strictness would refuse.
    wanted = {"by_name": True, "by_alias": True, "strict": False}
    return partial(validate, **{name: value for name, value in wanted.items() if name in known})


def _fields_of(kind: type[Any], model: Any) -> dict[str, Any] | None:
    """The values of the fields; None where nobody says which ones there are."""
    declared = getattr(kind, "model_fields", None)
    if not isinstance(declared, dict):
        return None
    # One that was made without validation may lack some.
    held = cast("dict[str, Any]", vars(model))
    fields = {name: held[name] for name in cast("dict[str, Any]", declared) if name in held}
    others = cast("dict[str, Any] | None", getattr(model, "model_extra", None))
    return fields | (others or {})


def _content(kind: type[Any], fields: dict[str, Any]) -> Any:
    return fields["root"] if getattr(kind, "__pydantic_root_model__", False) else fields


def _dump_of(model: Any) -> Any:
    try:
        # Computed fields stay behind: they are no input for a model.
        return model.model_dump(mode="python", round_trip=True)
    except TypeError:
        return model.model_dump(mode="python")


@lru_cache(maxsize=1024)
def _reshapes(kind: type[Any]) -> bool:
    """Whether a class says itself how its fields are written."""
    own = getattr(kind, "__pydantic_decorators__", None)
    if getattr(own, "field_serializers", None) or getattr(own, "model_serializers", None):
        return True
    fields = cast("dict[str, Any]", getattr(kind, "model_fields", {})).values()
    return any(_is_reshaped(field.annotation, *field.metadata) for field in fields)


def _is_reshaped(*marks: Any) -> bool:
    return any(
        getattr(mark, "__name__", type(mark).__name__) in _RESHAPING
        or _is_reshaped(*get_args(mark))
        for mark in marks
        if not isinstance(mark, (str, bytes))
    )


def _makes_again(kind: type[Any], form: Any, model: Any) -> bool:
    try:
        made = validator_of(kind)(form)
    except Exception:  # a validator is the user's own
        return False
    before, after = _fields_of(kind, model), _fields_of(kind, made)
    if before is None or after is None or before.keys() != after.keys():
        return False
    return all(_alike(before[name], after[name]) for name in before)


def _alike(before: Any, after: Any) -> bool:
    try:
        return before is after or bool(before == after) or before != before  # NaN
    except Exception:  # arrays, and whatever else compares in its own way: nothing is known
        return True
