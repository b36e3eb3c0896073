"""Fills the parameters of a task from its dependencies, for the time of one attempt."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any

from fastapi import Depends

from taskq.core.signatures import fits, shown_signature
from taskq.execution.ports import Threads
from taskq.execution.resources import Overrides
from taskq.injection.graph import Kind, Node, read

__all__ = ["Resolver"]


class Resolver:
    """The dependencies of one task.

    Raises `TaskDefinitionError` for those that only a request can serve.
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
        """The arguments of a call with what the dependencies give; what they hold ends with it.

        As in FastAPI: each is asked once an attempt unless it has `use_cache=False`, and those with
        `yield` go on in the opposite order when the function has ended, with its error if it has.
        """
        async with AsyncExitStack() as last, AsyncExitStack() as first:
            attempt = _Attempt(threads, last, first, self._substitute)
            values = {node.name: await attempt.value(node) for node in self._nodes}
            yield self._merged(args, kwargs, values)

    def _merged(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], values: dict[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if not fits(self._visible, args, kwargs):
            # A wrapper gives the rest: what it takes by name finds its parameter.
            return args, {**kwargs, **values}
        given = self._visible.bind(*args, **kwargs).arguments | values
        ordered = {name: given[name] for name in self._signature.parameters if name in given}
        bound = inspect.BoundArguments(self._signature, ordered)
        return bound.args, bound.kwargs

    def _substitute(self, node: Node) -> Node:
        """What stands in for a dependency, if it is overridden."""
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
    """The dependencies of one attempt: what was asked already, and what is to be left."""

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
        """What a dependency gives in this attempt."""
        actual = self._substitute(node)
        arguments = {child.name: await self.value(child) for child in actual.children}
        if node.use_cache and node.key in self._known:
            return self._known[node.key]
        for name, field in actual.defaults:
            arguments[name] = field.get_default(call_default_factory=True)
        stack = self._first if node.ends_first else self._last
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
    """A synchronous context manager whose two halves run in threads."""

    def __init__(self, manager: Any, threads: Threads) -> None:
        self._manager = manager
        self._threads = threads

    async def enter(self, stack: AsyncExitStack) -> Any:
        entering = asyncio.ensure_future(self._threads.in_thread(self._manager.__enter__))
        try:
            value = await asyncio.shield(entering)
        except asyncio.CancelledError:
            # The thread goes on: what it opens is to be closed.
            await asyncio.wait({entering})
            if not entering.cancelled() and entering.exception() is None:
                stack.push_async_exit(self._leave)
            raise
        stack.push_async_exit(self._leave)
        return value

    async def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        return bool(await self._threads.closing(self._manager.__exit__, kind, error, trace))
