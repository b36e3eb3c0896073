"""From what arrives to what a task's annotations promise: enums, dataclasses, models.

Only the signature of the task that runs decides which classes are made; a payload names none that
would be looked up. Everything else stays as it came: annotations are no validation, except where an
object cannot be made of what came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskq.core.annotation import Compiler
from taskq.core.hints import resolve_hints
from taskq.core.misfit import Misfit, Walk
from taskq.core.parameters import CallPlan, is_wrapper, plan_for, where_it_fits

__all__ = ["CallRebuilder", "compile_rebuilder", "result_rebuilder"]


def compile_rebuilder(annotation: Any) -> Callable[[Any], Any] | None:
    """What makes a value of `annotation` from what arrived; None when it is fine as it came.

    Supported, and nested in any way: enums (by value), dataclasses, pydantic models, named tuples,
    typed dictionaries, `list`, `tuple`, `set`, `dict` and their abstract classes, unions,
    `Annotated`, `NewType`. The function returned raises `CallError` for a value that does not fit::

        compile_rebuilder(list[Color])(["red", "blue"])
    """
    rebuild = Compiler().compile(annotation)
    return None if rebuild is None else lambda value: rebuild(Walk(), value)


def result_rebuilder(function: Callable[..., Any]) -> Callable[[Any], Any] | None:
    """The same for what `function` returns.

    Ask when the first result is there: names that are not defined yet are left as they come.
    """
    compiled = Compiler().compile(resolve_hints(function)[0].get("return", Any))
    if compiled is None:
        return None
    rebuild = where_it_fits(compiled) if is_wrapper(function) else compiled

    def rebuild_result(value: Any) -> Any:
        try:
            return rebuild(Walk(), value)
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
        self._plan, self._complete = self._made()

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
            self._plan, self._complete = self._made()[0], True
        return self._plan.apply(args, kwargs)

    def _made(self) -> tuple[CallPlan, bool]:
        return plan_for(self._function, self._without, Compiler().compile)
