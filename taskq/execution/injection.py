"""Which parameters of a task a dependency fills, told without importing the framework."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from taskq.codec.type_hints import resolve_hints
from taskq.core.errors import TaskDefinitionError
from taskq.core.signatures import call_signature, shown_signature, takes

__all__ = ["dependencies_of"]

_HOME = "fastapi.params"
"""Where `Depends` is defined. Who has one of them has loaded this module."""


def dependencies_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that FastAPI's `Depends` fills, with their annotations resolved.

    Those of what a wrapper wraps count as far as the wrapper takes them.

    Raises `TaskDefinitionError` when it cannot tell.
    """
    marker = getattr(sys.modules.get(_HOME), "Depends", None)
    if marker is None:
        return {}
    called, shown = call_signature(function), shown_signature(function)
    if called is None or shown is None:
        return {}
    hints, _ = resolve_hints(function)
    found: dict[str, inspect.Parameter] = {}
    for name, parameter in shown.parameters.items():
        annotation = _meant(hints.get(name, parameter.annotation))
        if isinstance(annotation, str) and "Depends(" in annotation:
            raise TaskDefinitionError(
                f"{function.__qualname__}: {name}: {annotation!r} names what cannot be found from "
                "here; define it in the module, above the task"
            )
        marked = isinstance(parameter.default, marker) or _is_marked(annotation, marker)
        if marked and takes(called, name):
            found[name] = parameter.replace(annotation=annotation)
    return found


def _meant(annotation: Any) -> Any:
    while type(annotation).__name__ == "TypeAliasType":
        annotation = annotation.__value__
    return annotation


def _is_marked(annotation: Any, marker: type) -> bool:
    return get_origin(annotation) is Annotated and any(
        isinstance(note, marker) for note in get_args(annotation)[1:]
    )
