"""Arguments that a task's annotations call secret, made so before they travel.

A worker makes a `Secret` of whatever arrives for a parameter annotated so. But what travels
unmarked is shown by all who look at the job before: so a producer that knows the function marks it.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Union, cast, get_args, get_origin

from taskq.core.hints import annotations_of, bare
from taskq.core.parameters import CallPlan, plan_for
from taskq.core.secret import Secret

__all__ = ["Concealer", "revealed"]


class Concealer:
    """Wraps the arguments of one function that its annotations call `Secret`."""

    def __init__(self, function: Callable[..., Any], without: frozenset[str] = frozenset()) -> None:
        self._function = function
        self._without = without
        self._plan: CallPlan | None = None

    @classmethod
    def of(
        cls, function: Callable[..., Any], without: frozenset[str] = frozenset()
    ) -> Concealer | None:
        """The concealer of `function`; None when no annotation mentions a secret.

        `without`: parameters that no call gives an argument for.
        """
        annotations = annotations_of(function)
        told = [text for name, text in annotations.items() if name not in {"return", *without}]
        return cls(function, without) if any("Secret" in str(text) for text in told) else None

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with what is secret wrapped; None stays None."""
        if self._plan is None:
            self._plan = plan_for(self._function, self._without, _concealing)[0]
        given, keywords = self._plan.apply(args, kwargs)
        return tuple(given), keywords


def _concealing(annotation: Any) -> Callable[[Any], Any] | None:
    return _wrapped if _is_secret(annotation) else None


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
