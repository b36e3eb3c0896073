"""From what arrives to what a task's annotations promise: enums, dataclasses, models.

A payload carries values, never the names of classes, so only the signature of the task that runs
decides which classes are made. Everything else stays as it came: annotations are no validation,
except where an object cannot be made of what came.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter
from typing import Any

from taskq.core.annotation import Compiler, Misfit, Rebuilder
from taskq.core.hints import resolve_hints

__all__ = ["CallRebuilder", "Rebuilder", "compile_rebuilder", "result_rebuilder"]


def compile_rebuilder(annotation: Any) -> Rebuilder | None:
    """What makes a value of `annotation` from what arrived; None when it is fine as it came.

    Supported, and nested in any way: enums (by value), dataclasses, pydantic models, named tuples,
    typed dictionaries, `list`, `tuple`, `set`, `dict` and their abstract classes, unions,
    `Annotated`, `NewType`. The function returned raises `CallError` for a value that does not fit::

        compile_rebuilder(list[Color])(["red", "blue"])
    """
    return Compiler().compile(annotation)


def result_rebuilder(function: Callable[..., Any]) -> Rebuilder | None:
    """The same for what `function` returns.

    Ask when the first result is there: names that are not defined yet are left as they come.
    """
    rebuild = compile_rebuilder(resolve_hints(function)[0].get("return", Any))
    if rebuild is None:
        return None

    def rebuild_result(value: Any) -> Any:
        try:
            return rebuild(value)
        except Misfit as misfit:
            raise misfit.named("result") from misfit

    return rebuild_result


class CallRebuilder:
    """Makes the arguments of one function what its annotations promise.

    Names in the annotations that cannot be found are looked up once more at the first call, since
    they may be defined below the function. Those of `if TYPE_CHECKING:` never are, and their
    parameters are left as they come.
    """

    def __init__(self, function: Callable[..., Any], without: frozenset[str] = frozenset()) -> None:
        self._function = function
        self._without = without
        self._plan, self._complete = _plan_for(function, without)

    @classmethod
    def of(
        cls, function: Callable[..., Any], without: frozenset[str] = frozenset()
    ) -> CallRebuilder | None:
        """The rebuilder of `function`; None when its arguments are fine as they come.

        `without`: parameters that no call gives an argument for.
        """
        rebuilder = cls(function, without)
        if rebuilder._complete and rebuilder._plan.is_empty:
            return None
        return rebuilder

    def apply(
        self, args: list[Any] | tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Rebuild the arguments of one call; raises `CallError` with the parameter's name.

        Whether the call fits the signature is not judged here: what it has no parameter for is
        left as it came.
        """
        if not self._complete:
            self._plan, self._complete = _plan_for(self._function, self._without)[0], True
        return self._plan.apply(list(args), dict(kwargs))


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which arguments are rebuilt: by place and by name, then the surplus of both."""

    positional: list[tuple[int, str, Rebuilder]]
    named: list[tuple[str, Rebuilder]]
    surplus: tuple[int, str, Rebuilder] | None
    surplus_named: tuple[frozenset[str], Rebuilder] | None

    @property
    def is_empty(self) -> bool:
        return not (self.positional or self.named or self.surplus or self.surplus_named)

    def apply(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        name = ""
        try:
            for place, name, rebuild in self._places(len(args)):  # noqa: B007, see below
                args[place] = rebuild(args[place])
            for name, rebuild in self._names(kwargs):
                kwargs[name] = rebuild(kwargs[name])
        except Misfit as misfit:
            raise misfit.named(name) from misfit
        return args, kwargs

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


def _plan_for(function: Callable[..., Any], without: frozenset[str]) -> tuple[_Plan, bool]:
    """The plan of `function`, and whether every annotation could be resolved."""
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
    compiler = Compiler()
    for place, (name, parameter) in enumerate(parameters.items()):
        rebuild = compiler.compile(hints.get(name, Any))
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
    return _Plan(positional, named, surplus, surplus_named), complete
