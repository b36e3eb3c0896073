"""The dependencies of a function as a graph, read with FastAPI's own analysis."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fastapi.dependencies.utils import get_dependant
from fastapi.security.base import SecurityBase

from taskq.core.errors import TaskDefinitionError

__all__ = ["Kind", "Node", "read"]


class Kind(Enum):
    """How a dependency is called."""

    PLAIN = "in a thread"
    COROUTINE = "awaited"
    GENERATOR = "entered and left in threads"
    ASYNC_GENERATOR = "entered and left"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A dependency: what is called, and with what.

    `name`: the parameter it fills. `ends_first`: left before those that are not, as FastAPI's
    `scope="function"`. `defaults`: parameters a request could fill, which keep their defaults.
    `limit`: FastAPI's limit of calls at once, None without one.
    """

    call: Callable[..., Any]
    name: str
    kind: Kind
    use_cache: bool
    ends_first: bool
    defaults: tuple[tuple[str, Any], ...]
    children: tuple[Node, ...]
    limit: Any

    @property
    def key(self) -> tuple[Any, bool]:
        """What one attempt asks for once."""
        return self.call, self.ends_first


def read(owner: str, parameters: Iterable[inspect.Parameter]) -> tuple[Node, ...]:
    """The dependencies that fill `parameters` of `owner`, with everything below them.

    Raises `TaskDefinitionError` for those that need a request, with what to do instead.
    """

    def stand_in() -> None: ...

    # Only the parameters with dependencies: the others are arguments, which FastAPI need not like.
    only = [item.replace(kind=inspect.Parameter.KEYWORD_ONLY) for item in parameters]
    setattr(stand_in, "__signature__", inspect.Signature(only))  # noqa: B010
    return tuple(_nodes(_analysed(owner, stand_in), (owner,)))


def _analysed(owner: str, call: Callable[..., Any]) -> Any:
    try:
        return get_dependant(path="/", call=call)
    except Exception as error:
        raise TaskDefinitionError(
            f"{owner}: FastAPI cannot read the parameters of its dependencies: {error}"
        ) from error


def _nodes(dependant: Any, above: tuple[str, ...]) -> Iterator[Node]:
    for item in dependant.dependencies:
        path = (*above, _name(item.call))
        _refuse_what_needs_a_request(item, path)
        yield Node(
            call=item.call,
            name=item.name or "",
            kind=_kind(item.call),
            use_cache=item.use_cache,
            ends_first=getattr(item, "scope", None) == "function",
            defaults=tuple(_defaults(item, path)),
            children=tuple(_nodes(item, path)),
            limit=getattr(item, "concurrency", None),
        )


_REQUEST = (
    "pass the task what it needs as an argument, and depend on functions that do without a request"
)
_NEEDS = (
    ("request_param_name", "the request", _REQUEST),
    ("websocket_param_name", "the websocket", _REQUEST),
    ("http_connection_param_name", "the connection", _REQUEST),
    ("response_param_name", "the response", "a task answers nobody: what it returns is its result"),
    (
        "background_tasks_param_name",
        "background tasks",
        "there is no response they could follow: call other.enqueue(...) or other.defer(...)",
    ),
    (
        "security_scopes_param_name",
        "the scopes of who asks",
        "check them in the endpoint, and pass the task the id of the user",
    ),
    ("path_params", "the request's path", _REQUEST),
    ("header_params", "the request's headers", _REQUEST),
    ("cookie_params", "the request's cookies", _REQUEST),
    ("body_params", "the request's body", _REQUEST),
)


def _refuse_what_needs_a_request(item: Any, path: tuple[str, ...]) -> None:
    if isinstance(inspect.unwrap(_whole(item.call)), SecurityBase):
        raise _refusal(
            path,
            "asks who sent the request",
            "check it in the endpoint, and pass the task the id of the user",
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
                "give it a default, or another dependency that gives it",
            )
        yield field.name, field.field_info


def _refusal(path: tuple[str, ...], reason: str, instead: str) -> TaskDefinitionError:
    owner, *between, last = path
    through = f" (through {' and '.join(between)})" if between else ""
    return TaskDefinitionError(
        f"{owner}: its dependency {last}{through} {reason}, and a job has no request; {instead}"
    )


def _kind(call: Callable[..., Any]) -> Kind:
    for candidate in _faces(call):
        if inspect.isasyncgenfunction(candidate):
            return Kind.ASYNC_GENERATOR
        if inspect.isgeneratorfunction(candidate):
            return Kind.GENERATOR
        if inspect.iscoroutinefunction(candidate):
            return Kind.COROUTINE
    return Kind.PLAIN


def _faces(call: Callable[..., Any]) -> Iterator[Any]:
    """Where the way of calling may be seen: below partials and decorators, and in `__call__`."""
    for face in (_whole(call), inspect.unwrap(_whole(call))):
        yield face
        if not inspect.isclass(face):
            yield inspect.unwrap(_whole(getattr(face, "__call__", face)))  # noqa: B004


def _whole(call: Any) -> Any:
    while isinstance(call, functools.partial):
        call = call.func
    return call


def _name(call: Any) -> str:
    whole = _whole(call)
    return getattr(whole, "__name__", None) or type(whole).__name__
