"""Dependencies that only a request can serve are refused where the task is defined."""

from collections.abc import Callable
from typing import Annotated, Any

import pytest
from fastapi import (
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    Header,
    Query,
    Request,
    Response,
    Security,
    WebSocket,
)
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPBearer, OAuth2PasswordBearer, SecurityScopes
from pydantic import BaseModel

from taskq import TaskDefinitionError, TaskQ
from taskq.core.outcome import Failed
from tests.execution.attempts import Run, value_of


class Item(BaseModel):
    name: str


def of_request(request: Request) -> None: ...
def of_websocket(socket: WebSocket) -> None: ...
def of_connection(connection: HTTPConnection) -> None: ...
def of_response(response: Response) -> None: ...
def of_tasks(tasks: BackgroundTasks) -> None: ...
def of_scopes(scopes: SecurityScopes) -> None: ...
def of_header(x_token: Annotated[str | None, Header()] = None) -> None: ...
def of_cookie(token: Annotated[str | None, Cookie()] = None) -> None: ...
def of_body(item: Item) -> None: ...
def of_field(name: Annotated[str, Body()]) -> None: ...
def of_query(limit: int) -> None: ...
def of_something(what: TaskQ) -> None: ...


bearer, oauth = HTTPBearer(), OAuth2PasswordBearer("token")


@pytest.mark.parametrize(
    ("dependency", "reason", "instead"),
    [
        (of_request, r"of_request needs the request \(its parameter 'request'\)", "as an argument"),
        (of_websocket, "needs the websocket", "as an argument"),
        (of_connection, "needs the connection", "as an argument"),
        (of_response, "needs the response", "what it returns is its result"),
        (of_tasks, "needs background tasks", r"call other\.enqueue\(\.\.\.\)"),
        (of_scopes, "needs the scopes of the client", "pass the task the id of the user"),
        (of_header, r"the request's headers \(its parameter 'x_token'\)", "as an argument"),
        (of_cookie, "the request's cookies", "as an argument"),
        (of_body, "the request's body", "as an argument"),
        (of_field, "the request's body", "as an argument"),
        (of_query, "takes 'limit' from the request's query", "give it a default"),
        (bearer, "HTTPBearer authenticates the request", "the id of the user"),
        (oauth, "OAuth2PasswordBearer authenticates the request", "the id of the user"),
        (of_something, "FastAPI cannot read", "dependencies"),
    ],
)
def test_what_needs_a_request_is_refused_with_what_to_do(
    local: TaskQ, dependency: Callable[..., Any], reason: str, instead: str
) -> None:
    async def report(user: int, given: Annotated[None, Depends(dependency)]) -> None: ...

    with pytest.raises(TaskDefinitionError, match=f"report: .*{reason}.*{instead}"):
        local.task(name="report")(report)
    assert local._registry.find("report") is None


def test_it_is_found_at_any_depth(local: TaskQ) -> None:
    def user(token: Annotated[str, Security(oauth, scopes=["read"])]) -> None: ...

    def tenant(user: Annotated[None, Depends(user)]) -> None: ...

    async def report(tenant: Annotated[None, Depends(tenant)]) -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"\(through tenant and user\)"):
        local.task(name="report")(report)


async def test_parameters_that_a_request_may_leave_out_keep_their_defaults(run: Run) -> None:
    def page(
        limit: int = 10,
        offset: Annotated[int, Query(ge=0)] = 20,
        order: str = Query("name"),
    ) -> list[Any]:
        return [limit, offset, order]

    async def report(page: Annotated[list[Any], Depends(page)]) -> list[Any]:
        return page

    assert value_of(await run(report)) == [10, 20, "name"]


async def test_an_override_that_needs_a_request_fails_the_attempt(local: TaskQ, run: Run) -> None:
    def anything() -> None: ...

    async def report(given: Annotated[None, Depends(anything)]) -> None: ...

    local.dependency_overrides[anything] = of_request
    outcome = await run(report)

    assert isinstance(outcome, Failed)
    assert "of_request needs the request" in outcome.error_text


def test_a_process_of_its_own_cannot_have_dependencies(local: TaskQ) -> None:
    def report(given: Annotated[None, Depends(lambda: None)]) -> None: ...

    with pytest.raises(TaskDefinitionError, match="given cannot be filled with executor='process'"):
        local.task(name="report", executor="process")(report)


def test_annotations_as_text_must_be_found(local: TaskQ) -> None:
    def local_dependency() -> None: ...

    async def report(given: "Annotated[None, Depends(local_dependency)]") -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"given: .*Depends\(local_dependency\).*module"):
        local.task(name="report")(report)


async def test_annotations_as_text_are_resolved(run: Run) -> None:
    async def report(given: "Annotated[list[Any], Depends(of_nothing)]") -> list[Any]:
        return given

    assert value_of(await run(report)) == [1]


def of_nothing() -> list[Any]:
    return [1]
