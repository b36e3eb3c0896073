"""Arguments that a task's annotations call secret, made so before they travel.

A worker makes a `Secret` of whatever arrives for a parameter annotated so. But what travels
unmarked is shown by all who look at the job before: so a producer that knows the function marks it.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, cast, get_args, get_origin

from taskq.core.hints import bare, resolve_hints
from taskq.core.secret import Secret

__all__ = ["Concealer", "revealed"]


class Concealer:
    """Wraps the arguments of one function that its annotations call `Secret`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._places: dict[int, str] | None = None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Concealer | None:
        """The concealer of `function`; None when no annotation mentions a secret."""
        annotations = getattr(function, "__annotations__", {})
        told = [text for name, text in annotations.items() if name != "return"]
        return cls(function) if any("Secret" in str(text) for text in told) else None

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with what is secret wrapped; None stays None."""
        if self._places is None:
            self._places = _secret_places(self._function)
        places, names = self._places, set(self._places.values())
        return (
            tuple(_wrapped(value) if at in places else value for at, value in enumerate(args)),
            {name: _wrapped(value) if name in names else value for name, value in kwargs.items()},
        )


def _secret_places(function: Callable[..., Any]) -> dict[int, str]:
    hints = resolve_hints(function)[0]
    return {
        at: name
        for at, name in enumerate(inspect.signature(function).parameters)
        if _is_secret(hints.get(name))
    }


def _is_secret(annotation: Any) -> bool:
    annotation = bare(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        members = [bare(member) for member in get_args(annotation)]
        return all(member is type(None) or _is_secret(member) for member in members)
    return (origin or annotation) is Secret


def _wrapped(value: Any) -> Any:
    plain: Any = value
    return plain if value is None or isinstance(value, Secret) else Secret[Any](plain)


def revealed(value: Any, *, secret: bool = False) -> list[str]:
    """All texts that lie in secrets in `value`, which was decoded from a payload."""
    kind = cast("type[Any]", type(value))
    if kind is Secret:
        return revealed(value.reveal(), secret=True)
    if kind is dict:
        return revealed([*value.keys(), *value.values()], secret=secret)
    if kind in (list, tuple, set, frozenset):
        return [text for item in value for text in revealed(item, secret=secret)]
    if not secret or value is None or kind is bool:
        return []
    return [value.decode("utf-8", "replace") if kind is bytes else str(value)]
