"""The signatures of callables, and definitions that replace an earlier one (in a notebook)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import Parameter, Signature
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    WrapperDescriptorType,
)
from typing import Any, Final, TypeVar, cast

__all__ = ["call_signature", "fits", "is_typed", "register", "shown_signature", "takes"]

F = TypeVar("F")


def is_typed(function: Any) -> bool:
    """Whether `function` was defined at a prompt or in a notebook, where it may be redefined."""
    return hasattr(sys, "ps1") and getattr(function, "__module__", None) == "__main__"


def register(registered: list[F], function: F) -> None:
    """Add a function to a list, replacing an earlier definition from the same prompt."""
    name = getattr(function, "__qualname__", "")
    if is_typed(function) and "<lambda>" not in name:
        for place, known in enumerate(registered):
            if is_typed(known) and getattr(known, "__qualname__", None) == name:
                registered[place] = function
                return
    registered.append(function)


_WRITTEN_IN_C: Final = frozenset(
    {
        BuiltinFunctionType,
        ClassMethodDescriptorType,
        MethodDescriptorType,
        MethodWrapperType,
        WrapperDescriptorType,
    }
)


def call_signature(function: Callable[..., Any]) -> Signature | None:
    """The signature that calls of `function` must fit; None if it cannot be determined.

    It is the signature of the code that is called: a function that this wraps (`functools.wraps`)
    may take other arguments, and `__signature__` may be anything.

    >>> @functools.wraps(send)
    ... async def in_session(*args): return await send(open_session(), *args)
    >>> str(call_signature(in_session))
    '(*args)'
    """
    try:
        return inspect.signature(_called(function), follow_wrapped=False)
    except Exception:  # proxies and mocks may raise anything
        return None


def shown_signature(function: Callable[..., Any]) -> Signature | None:
    """The signature that `function` shows: that of the function it wraps, if any."""
    try:
        return inspect.signature(function)
    except Exception:  # as above
        return call_signature(function)


def fits(signature: Signature, args: Iterable[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call fits `signature`."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def takes(signature: Signature, name: str) -> bool:
    """Whether a call may pass an argument named `name`."""
    return name in signature.parameters or any(
        item.kind is Parameter.VAR_KEYWORD for item in signature.parameters.values()
    )


def _called(function: Any) -> Any:
    # By type: `isinstance` is deceived by a proxy that claims to be a function.
    kind = cast("type[Any]", type(function))
    if kind is FunctionType:
        return _undeclared(function)
    if kind is partial:
        return partial(_called(function.func), *function.args, **function.keywords)
    if kind is MethodType:
        return MethodType(_called(function.__func__), function.__self__)
    if kind in _WRITTEN_IN_C or issubclass(kind, type):
        return function
    return MethodType(_called(kind.__call__), function)


def _undeclared(function: FunctionType) -> FunctionType:
    """The function without its `__signature__`."""
    if "__signature__" not in vars(function):
        return function
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy
