"""Resolves a task's FastAPI dependencies for each attempt, without a request.

FastAPI's own analysis reads them; those that need a request are refused. Loaded with the first task
that has a dependency.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any

from fastapi import Depends
from fastapi.dependencies.utils import get_dependant
from fastapi.security.base import SecurityBase

from taskq.core.errors import TaskDefinitionError
from taskq.core.signatures import fits, shown_signature
from taskq.execution.ports import Threads
from taskq.execution.resources import Overrides

__all__ = ["Kind", "Node", "Resolver", "read"]


class Kind(Enum):
    """How a dependency is called."""

    PLAIN = "in a thread"
    COROUTINE = "awaited"
    GENERATOR = "entered and exited in threads"
    ASYNC_GENERATOR = "entered and exited"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A dependency: what is called, and with what.

    `name`: the parameter it fills. `exits_first`: it exits before dependencies without this flag,
    as FastAPI's `scope="function"`. `defaults`: parameters that a request could fill, which keep
    their defaults. `limit`: FastAPI's limit of concurrent calls, None without one.
    """

    call: Callable[..., Any]
    name: str
    kind: Kind
    use_cache: bool
    exits_first: bool
    defaults: tuple[tuple[str, Any], ...]
    children: tuple[Node, ...]
    limit: Any

    @property
    def key(self) -> tuple[Any, bool]:
        """What identifies a value that one attempt computes once."""
        return self.call, self.exits_first


def read(owner: str, parameters: Iterable[inspect.Parameter]) -> tuple[Node, ...]:
    """The dependencies that fill `parameters` of `owner`, with their own dependencies.

    Raises `TaskDefinitionError` for those that need a request; the message says what to do instead.
    """

    def stand_in() -> None: ...

    # Only the parameters with dependencies: FastAPI might refuse the types of the others.
    only = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters]
    setattr(stand_in, "__signature__", inspect.Signature(only))  # noqa: B010
    return tuple(_nodes(_analyse(owner, stand_in), (owner,)))


def _analyse(owner: str, call: Callable[..., Any]) -> Any:
    try:
        return get_dependant(path="/", call=call)
    except Exception as error:
        raise TaskDefinitionError(
            f"{owner}: FastAPI cannot read the parameters of its dependencies: {error}"
        ) from error


def _nodes(dependant: Any, parents: tuple[str, ...]) -> Iterator[Node]:
    for item in dependant.dependencies:
        path = (*parents, _name(item.call))
        _refuse_what_needs_a_request(item, path)
        yield Node(
            call=item.call,
            name=item.name or "",
            kind=_kind(item.call),
            use_cache=item.use_cache,
            exits_first=getattr(item, "scope", None) == "function",
            defaults=tuple(_defaults(item, path)),
            children=tuple(_nodes(item, path)),
            limit=getattr(item, "concurrency", None),
        )


_REQUEST = (
    "pass the task what it needs as an argument, and depend on functions that need no request"
)
_NEEDS = (
    ("request_param_name", "the request", _REQUEST),
    ("websocket_param_name", "the websocket", _REQUEST),
    ("http_connection_param_name", "the connection", _REQUEST),
    (
        "response_param_name",
        "the response",
        "a task has no response: what it returns is its result",
    ),
    (
        "background_tasks_param_name",
        "background tasks",
        "there is no response to run them after: call other.enqueue(...) or other.defer(...)",
    ),
    (
        "security_scopes_param_name",
        "the scopes of the client",
        "check them in the endpoint, and pass the task the id of the user",
    ),
    ("path_params", "the request's path", _REQUEST),
    ("header_params", "the request's headers", _REQUEST),
    ("cookie_params", "the request's cookies", _REQUEST),
    ("body_params", "the request's body", _REQUEST),
)


def _refuse_what_needs_a_request(item: Any, path: tuple[str, ...]) -> None:
    if isinstance(inspect.unwrap(_unwrap_partial(item.call)), SecurityBase):
        raise _refusal(
            path,
            "authenticates the request",
            "do that in the endpoint, and pass the task the id of the user",
        )
    for attribute, what, instead in _NEEDS:
        found = getattr(item, attribute, None)
        if found:
            name = found if isinstance(found, str) else found[0].name
            raise _refusal(path, f"needs {what} (its parameter {name!r})", instead)


def _defaults(item: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for field in item.query_params:
        if field.field_info.is_required():
            raise _refusal(
                path,
                f"takes {field.name!r} from the request's query",
                "give it a default, or a dependency that provides it",
            )
        yield field.name, field.field_info


def _refusal(path: tuple[str, ...], reason: str, instead: str) -> TaskDefinitionError:
    owner, *between, last = path
    through = f" (through {' and '.join(between)})" if between else ""
    return TaskDefinitionError(
        f"{owner}: its dependency {last}{through} {reason}, and a job has no request; {instead}"
    )


def _kind(call: Callable[..., Any]) -> Kind:
    for candidate in _call_targets(call):
        if inspect.isasyncgenfunction(candidate):
            return Kind.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(candidate):
            return Kind.GENERATOR
        if inspect.iscoroutinefunction(candidate):
            return Kind.COROUTINE
    return Kind.PLAIN


def _call_targets(call: Callable[..., Any]) -> Iterator[Any]:
    """Where the kind of a callable shows: below partials and decorators, and in `__call__`."""
    for target in (_unwrap_partial(call), inspect.unwrap(_unwrap_partial(call))):
        yield target
        if not inspect.isclass(target):
            method = getattr(target, "__call__", target)  # noqa: B004
            yield inspect.unwrap(_unwrap_partial(method))


def _unwrap_partial(call: Any) -> Any:
    while isinstance(call, functools.partial):
        call = call.func
    return call


def _name(call: Any) -> str:
    target = _unwrap_partial(call)
    return getattr(target, "__name__", None) or type(target).__name__


class Resolver:
    """Resolves the dependencies of one task.

    Raises `TaskDefinitionError` for dependencies that need a request.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        owner: str,
        parameters: Mapping[str, inspect.Parameter],
        overrides: Callable[[], Overrides],
    ) -> None:
        self.names = frozenset(parameters)
        self._owner = owner
        self._signature = shown_signature(function) or inspect.Signature()
        self._visible = self._signature.replace(
            parameters=[
                item for item in self._signature.parameters.values() if item.name not in parameters
            ]
        )
        self._nodes = read(owner, parameters.values())
        self._overrides = overrides
        self._substitutes: dict[Callable[..., Any], tuple[Node, ...]] = {}

    @asynccontextmanager
    async def filled(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], threads: Threads
    ) -> AsyncGenerator[tuple[Sequence[Any], Mapping[str, Any]], None]:
        """The arguments of a call with the values of its dependencies, which live inside the block.

        As in FastAPI: a dependency is called once per attempt unless it has `use_cache=False`.
        Dependencies with `yield` exit in reverse order when the function has ended, and receive the
        error that it raised.
        """
        async with AsyncExitStack() as last, AsyncExitStack() as first:
            attempt = _Attempt(threads, last, first, self._substitute)
            values = {node.name: await attempt.value(node) for node in self._nodes}
            yield self._merged(args, kwargs, values)

    def _merged(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], values: dict[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if not fits(self._visible, args, kwargs):
            # A wrapper supplies the other arguments; keywords find their parameters.
            return args, {**kwargs, **values}
        given = self._visible.bind(*args, **kwargs).arguments | values
        ordered = {name: given[name] for name in self._signature.parameters if name in given}
        bound = inspect.BoundArguments(self._signature, ordered)
        return bound.args, bound.kwargs

    def _substitute(self, node: Node) -> Node:
        """The override of a dependency, or the dependency itself."""
        substitute = self._overrides().get(node.call)
        if substitute is None:
            return node
        nodes = self._substitutes.get(substitute)
        if nodes is None:
            nodes = self._substitutes[substitute] = _read_one(self._owner, substitute)
        return nodes[0]


def _read_one(owner: str, call: Callable[..., Any]) -> tuple[Node, ...]:
    parameter = inspect.Parameter("override", inspect.Parameter.KEYWORD_ONLY, default=Depends(call))
    return read(owner, [parameter])


class _Attempt:
    """The dependencies of one attempt: their values so far, and the stacks they exit from."""

    def __init__(
        self,
        threads: Threads,
        last: AsyncExitStack,
        first: AsyncExitStack,
        substitute: Callable[[Node], Node],
    ) -> None:
        self._threads = threads
        self._last = last
        self._first = first
        self._substitute = substitute
        self._known: dict[Any, Any] = {}

    async def value(self, node: Node) -> Any:
        """The value of a dependency in this attempt."""
        actual = self._substitute(node)
        arguments = {child.name: await self.value(child) for child in actual.children}
        if node.use_cache and node.key in self._known:
            return self._known[node.key]
        for name, field in actual.defaults:
            arguments[name] = field.get_default(call_default_factory=True)
        stack = self._first if node.exits_first else self._last
        value = await self._call(actual, arguments, stack, node.limit)
        self._known.setdefault(node.key, value)
        return value

    async def _call(
        self, node: Node, arguments: dict[str, Any], stack: AsyncExitStack, limit: Any
    ) -> Any:
        if node.kind in (Kind.ASYNC_GENERATOR, Kind.GENERATOR):
            if limit is not None:
                await stack.enter_async_context(limit.get_semaphore())
            if node.kind is Kind.GENERATOR:
                manager = _InThreads(contextmanager(node.call)(**arguments), self._threads)
                return await manager.enter(stack)
            return await stack.enter_async_context(asynccontextmanager(node.call)(**arguments))
        async with AsyncExitStack() as held:
            if limit is not None:
                await held.enter_async_context(limit.get_semaphore())
            if node.kind is Kind.COROUTINE:
                return await node.call(**arguments)
            return await self._threads.in_thread(node.call, **arguments)


class _InThreads:
    """A synchronous context manager that is entered and exited in threads."""

    def __init__(self, manager: Any, threads: Threads) -> None:
        self._manager = manager
        self._threads = threads

    async def enter(self, stack: AsyncExitStack) -> Any:
        entering = asyncio.ensure_future(self._threads.in_thread(self._manager.__enter__))
        try:
            value = await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread goes on, and what it opens must be closed.
            await asyncio.wait({entering})
            if not entering.cancelled() and entering.exception() is None:
                stack.push_async_exit(self._exit)
            raise
        stack.push_async_exit(self._exit)
        return value

    async def _exit(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return bool(await self._threads.closing(self._manager.__exit__, kind, error, trace))
