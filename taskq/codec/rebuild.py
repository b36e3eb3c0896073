"""Rebuild the arguments and the result of a function as its annotations say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

from taskq.codec.annotation import Compiler
from taskq.codec.instances import TypeMismatch, Walk
from taskq.codec.rebuilders import Rebuilder
from taskq.codec.secret import Secret
from taskq.codec.type_hints import resolve_hints
from taskq.core.signatures import call_signature, fits, shown_signature

__all__ = [
    "CallPlan",
    "CallRebuilder",
    "compile_rebuilder",
    "if_it_fits",
    "is_wrapper",
    "plan_for",
    "result_rebuilder",
]


def compile_rebuilder(annotation: Any) -> Callable[[Any], Any] | None:
    """The function that rebuilds a value of `annotation`; None if values stay as they arrive.

    Supported, and nested in any way: enums (by value), dataclasses, pydantic models, named tuples,
    typed dictionaries, `list`, `tuple`, `set`, `dict` and their abstract classes, unions,
    `Annotated`, `NewType`. The function returned raises `CallError` for a value that does not fit::

        compile_rebuilder(list[Color])(["red", "blue"])
    """
    rebuild = Compiler().compile(annotation)
    return None if rebuild is None else lambda value: rebuild(Walk(), value)


def result_rebuilder(function: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """The same for the result of `function`.

    Call it when the first result has arrived: names not yet defined leave the result unchanged.
    """
    compiled = Compiler().compile(resolve_hints(function)[0].get("return", Any))
    if compiled is None:
        return None
    rebuild = if_it_fits(compiled) if is_wrapper(function) else compiled

    def rebuild_result(value: Any) -> Any:
        try:
            return rebuild(Walk(), value)
        except TypeMismatch as mismatch:
            raise mismatch.named("result") from mismatch

    return rebuild_result


class CallRebuilder:
    """Rebuilds the arguments of one function as its annotations say.

    Names in the annotations that cannot be resolved are looked up again at the first call, since
    they may be defined below the function. Names imported below `if TYPE_CHECKING:` never resolve,
    and their parameters stay as they arrive.
    """

    def __init__(self, function: Callable[..., Any], without: frozenset[str] = frozenset()) -> None:
        self._function = function
        self._without = without
        self._plan, self._complete = self._made()

    @classmethod
    def of(
        cls, function: Callable[..., Any], without: frozenset[str] = frozenset()
    ) -> CallRebuilder | None:
        """The rebuilder of `function`; None if its arguments stay as they arrive.

        `without`: parameters that calls never pass.
        """
        rebuilder = cls(function, without)
        if rebuilder._complete and rebuilder._plan.is_empty:
            return None
        return rebuilder

    def apply(
        self, args: list[Any] | tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """Rebuild the arguments of one call; raises `CallError` with the parameter's name.

        This does not check the call against the signature: arguments without a parameter stay as
        they arrive.
        """
        if not self._complete:
            self._plan, self._complete = self._made()[0], True
        return self._plan.apply(args, kwargs)

    def _made(self) -> tuple[CallPlan, bool]:
        return plan_for(self._function, self._without, Compiler().compile)


_POSITIONAL = frozenset({Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD})


@dataclass(frozen=True, slots=True)
class Plan:
    """Which arguments to convert: by position and by name, then those of `*args` and `**kwargs`."""

    positional: list[tuple[int, str, Rebuilder]]
    named: list[tuple[str, Rebuilder]]
    extra: tuple[int, str, Rebuilder] | None
    extra_named: tuple[frozenset[str], Rebuilder] | None

    @property
    def is_empty(self) -> bool:
        """Whether every argument stays as it is."""
        return not (self.positional or self.named or self.extra or self.extra_named)

    def apply(
        self, args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """The converted arguments of one call; raises `CallError` with the parameter's name.

        This does not check the call against the signature: arguments without a parameter stay
        unchanged.
        """
        given, keywords, walk = list(args), dict(kwargs), Walk()
        name = ""
        try:
            for position, name, rebuild in self._positions(len(given)):  # noqa: B007, used by `except`
                given[position] = rebuild(walk, given[position])
            for name, rebuild in self._names(keywords):
                keywords[name] = rebuild(walk, keywords[name])
        except TypeMismatch as mismatch:
            raise mismatch.named(name) from mismatch
        return given, keywords

    def _positions(self, count: int) -> list[tuple[int, str, Rebuilder]]:
        positions = [entry for entry in self.positional if entry[0] < count]
        if self.extra is not None:
            first, name, rebuild = self.extra
            positions += [(at, f"{name}[{at - first}]", rebuild) for at in range(first, count)]
        return positions

    def _names(self, kwargs: Mapping[str, Any]) -> list[tuple[str, Rebuilder]]:
        names = [entry for entry in self.named if entry[0] in kwargs]
        if self.extra_named is not None:
            taken, rebuild = self.extra_named
            names += [(name, rebuild) for name in kwargs if name not in taken]
        return names


@dataclass(frozen=True, slots=True)
class WrapperPlan:
    """The plan of a wrapper, which shows the parameters of the function it wraps.

    A call that fits these is assumed to be passed on unchanged. In any other call, only a name
    tells for certain which parameter an argument is for.
    """

    shown: Signature
    passed_on: Plan
    otherwise: Plan

    @property
    def is_empty(self) -> bool:
        """Whether every argument stays as it is."""
        return self.passed_on.is_empty and self.otherwise.is_empty

    def apply(
        self, args: Iterable[Any], kwargs: Mapping[str, Any]
    ) -> tuple[list[Any], dict[str, Any]]:
        """As `Plan.apply`."""
        given = list(args)
        plan = self.passed_on if fits(self.shown, given, kwargs) else self.otherwise
        return plan.apply(given, kwargs)


CallPlan = Plan | WrapperPlan


def plan_for(
    function: Callable[..., Any],
    without: frozenset[str],
    choose: Callable[[Any], Rebuilder | None],
) -> tuple[CallPlan, bool]:
    """The plan of `function`, and whether every annotation could be resolved.

    `without`: parameters that calls never pass. `choose` returns the converter for an annotation,
    or None to leave its values unchanged.
    """
    hints, complete = resolve_hints(function)
    hints.pop("return", None)
    made = {name: rebuild for name, hint in hints.items() if (rebuild := choose(hint)) is not None}
    called = _parameters(call_signature(function), without)
    if not is_wrapper(function):
        return _plan(called, made), complete
    shown = _parameters(shown_signature(function), without)
    made = {name: if_it_fits(rebuild) for name, rebuild in made.items()}
    own = any(item.kind in _POSITIONAL for item in called.values())
    guessed = {name: _unless_secret(rebuild) for name, rebuild in made.items()}
    by_position = _plan(called if own else shown, guessed).positional
    otherwise = Plan(by_position, _plan({**shown, **called}, made).named, None, None)
    return WrapperPlan(Signature(list(shown.values())), _plan(shown, made), otherwise), complete


def is_wrapper(function: Callable[..., Any]) -> bool:
    """Whether the annotations of `function` may be those of a function it wraps."""
    return hasattr(function, "__wrapped__")


def if_it_fits(rebuild: Rebuilder) -> Rebuilder:
    """The same, leaving values that do not fit: a wrapper may accept other values."""

    def attempt(walk: Walk, value: Any) -> Any:
        try:
            return rebuild(walk, value)
        except TypeMismatch:
            return value

    return attempt


def _unless_secret(rebuild: Rebuilder) -> Rebuilder:
    """The same for a guessed parameter, where wrapping any value as a secret would be wrong."""

    def attempt(walk: Walk, value: Any) -> Any:
        made = rebuild(walk, value)
        return value if isinstance(made, Secret) else made

    return attempt


def _parameters(signature: Signature | None, without: frozenset[str]) -> dict[str, Parameter]:
    if signature is None:
        return {}
    return {name: item for name, item in signature.parameters.items() if name not in without}


def _plan(parameters: Mapping[str, Parameter], made: Mapping[str, Rebuilder]) -> Plan:
    by_name = frozenset(
        name
        for name, parameter in parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    )
    positional: list[tuple[int, str, Rebuilder]] = []
    named: list[tuple[str, Rebuilder]] = []
    extra, extra_named = None, None
    for position, (name, parameter) in enumerate(parameters.items()):
        rebuild = made.get(name)
        if rebuild is None:
            continue
        if parameter.kind is Parameter.VAR_POSITIONAL:
            extra = (position, name, rebuild)
        elif parameter.kind is Parameter.VAR_KEYWORD:
            extra_named = (by_name, rebuild)
        elif parameter.kind in _POSITIONAL:
            positional.append((position, name, rebuild))
        if name in by_name:
            named.append((name, rebuild))
    return Plan(positional, named, extra, extra_named)
