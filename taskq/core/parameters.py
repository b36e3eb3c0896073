"""Which argument of a call belongs to which parameter, and what is made of it there."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from taskq.core.annotation import Misfit, Rebuilder
from taskq.core.hints import resolve_hints

__all__ = ["Plan", "plan_for"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which arguments are made anew: by place and by name, then the surplus of both."""

    positional: list[tuple[int, str, Rebuilder]]
    named: list[tuple[str, Rebuilder]]
    surplus: tuple[int, str, Rebuilder] | None
    surplus_named: tuple[frozenset[str], Rebuilder] | None

    @property
    def is_empty(self) -> bool:
        """Whether every argument stays as it is."""
        return not (self.positional or self.named or self.surplus or self.surplus_named)

    def apply(
        self, args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of one call, made anew; raises `CallError` with the parameter's name.

        Whether the call fits the signature is not judged here: what it has no parameter for is
        left as it is.
        """
        given, keywords = list(args), dict(kwargs)
        name = ""
        try:
            for place, name, rebuild in self._places(len(given)):  # noqa: B007, see below
                given[place] = rebuild(given[place])
            for name, rebuild in self._names(keywords):
                keywords[name] = rebuild(keywords[name])
        except Misfit as misfit:
            raise misfit.named(name) from misfit
        return given, keywords

    def _places(self, count: int) -> list[tuple[int, str, Rebuilder]]:
        places = [entry for entry in self.positional if entry[0] < count]
        if self.surplus is not None:
            first, name, rebuild = self.surplus
            places += [(at, f"{name}[{at - first}]", rebuild) for at in range(first, count)]
        return places

    def _names(self, kwargs: Mapping[str, Any]) -> list[tuple[str, Rebuilder]]:
        names = [entry for entry in self.named if entry[0] in kwargs]
        if self.surplus_named is not None:
            taken, rebuild = self.surplus_named
            names += [(name, rebuild) for name in kwargs if name not in taken]
        return names


def plan_for(
    function: Callable[..., Any],
    without: frozenset[str],
    choose: Callable[[Any], Rebuilder | None],
) -> tuple[Plan, bool]:
    """The plan of `function`, and whether every annotation could be resolved.

    `without`: parameters that no call gives an argument for. `choose`: what makes a value of an
    annotation anew; None leaves it.
    """
    hints, complete = resolve_hints(function)
    declared = inspect.signature(function).parameters
    parameters = {name: declared[name] for name in declared if name not in without}
    by_name = frozenset(
        name
        for name, parameter in parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    )
    positional: list[tuple[int, str, Rebuilder]] = []
    named: list[tuple[str, Rebuilder]] = []
    surplus, surplus_named = None, None
    for place, (name, parameter) in enumerate(parameters.items()):
        rebuild = choose(hints.get(name, Any))
        if rebuild is None:
            continue
        if parameter.kind is Parameter.VAR_POSITIONAL:
            surplus = (place, name, rebuild)
        elif parameter.kind is Parameter.VAR_KEYWORD:
            surplus_named = (by_name, rebuild)
        elif parameter.kind is not Parameter.KEYWORD_ONLY:
            positional.append((place, name, rebuild))
        if name in by_name:
            named.append((name, rebuild))
    return Plan(positional, named, surplus, surplus_named), complete
