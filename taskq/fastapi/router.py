"""Endpoints for jobs: state, result, progress, cancelling, and server-sent events.

First who may use them, then what they answer (pydantic models, for OpenAPI), then the endpoints.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from math import isfinite, isnan
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response, params
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from taskq.app import TaskQ, backend_of
from taskq.codec.secret_arguments import mask_passwords
from taskq.core.errors import (
    ConfigError,
    JobError,
    JobNotFound,
    ResultExpired,
    ResultNotKept,
    ResultTimeout,
    ServerError,
)
from taskq.core.job import JobInfo, JobState
from taskq.execution.handle import Job

__all__ = ["HEADERS", "JobView", "events", "job_router"]

NOT_LOCAL = (
    "this application shows jobs to its own machine only (development=True); to show them to "
    "others it needs job_router(q, auth=...)"
)
CROSS_SITE = (
    "pages of other sites may not ask about jobs here; the application can name them: "
    'job_router(q, auth=..., origins=["https://app.example.org"])'
)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
"""Headers of a proxy: the client's address is not the address that connects."""

_TEST_CLIENT = "testclient"
"""The host of Starlette's test client. A real connection has an address."""


def _guards(auth: Any, development: bool, origins: Sequence[str]) -> list[params.Depends]:
    """The dependencies of all endpoints, in their order."""
    return [Depends(_same_site(origins)), _allowed(auth, development)]


def _allowed(auth: Any, development: bool) -> params.Depends:
    if auth is None:
        if development:
            return Depends(_this_machine_only)
        raise ConfigError(
            "job_router(q) would let everybody see and cancel jobs: pass a dependency that raises "
            "HTTPException for those who may not, auth=current_user; or, on your own machine, "
            "development=True, which answers that machine only"
        )
    if development:
        raise ConfigError("job_router has auth= and development=True; use one of them")
    if isinstance(auth, params.Depends):
        return auth
    if callable(auth):
        return Depends(auth)
    raise ConfigError(
        f"auth={auth!r}: use a dependency that raises HTTPException for those who may not see "
        "jobs, such as auth=current_admin or auth=Depends(current_admin)"
    )


def _same_site(origins: Sequence[str]) -> Callable[[Request], Awaitable[None]]:
    if isinstance(origins, str):
        raise ConfigError(f"origins={origins!r}: use a list, such as [{origins!r}]")
    known = frozenset(origin.rstrip("/") for origin in origins)

    async def same_site(request: Request) -> None:
        """Refuse requests from pages of other sites: they would use their reader's cookies."""
        origin = request.headers.get("origin")
        if origin in known:
            return
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            foreign = site not in ("same-origin", "none")
        else:
            # Browsers from before 2023. Clients that are not browsers send neither header.
            foreign = origin is not None and origin.partition("://")[2] != request.url.netloc
        if foreign:
            raise HTTPException(403, CROSS_SITE)

    return same_site


async def _this_machine_only(request: Request) -> None:
    """Refuse other machines, and pages whose host name merely resolves to this one."""
    client = request.client
    local = client is not None and _is_local(client.host)
    if not local or any(name in request.headers for name in _FORWARDED) or _is_foreign(request):
        raise HTTPException(403, NOT_LOCAL)


def _is_local(host: str) -> bool:
    if host in (_TEST_CLIENT, "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_foreign(request: Request) -> bool:
    # A name with a dot may belong to anybody, though it resolves to this machine (DNS rebinding).
    host = request.url.hostname or ""
    return "." in host and not _is_local(host)


class JobProgress(BaseModel):
    """The progress that a job has reported."""

    done: int | float
    total: int | float | None = None
    text: str = ""


class JobView(BaseModel):
    """A job as it is now, without its arguments and its result."""

    id: str
    task: str
    state: JobState
    finished: bool = Field(description="Whether the state is final.")
    queue: str
    priority: int
    attempt: int
    failures: int
    progress: JobProgress | None = None
    error: str | None = Field(None, description="Why it failed: the error's type and text.")
    enqueued_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, info: JobInfo) -> JobView:
        """The public view of a job, without its arguments and its traceback."""
        progress = info.progress
        return cls(
            id=info.id,
            task=info.task,
            state=info.state,
            finished=info.state.finished,
            queue=info.queue,
            priority=info.priority,
            attempt=info.attempt,
            failures=info.failures,
            progress=progress
            and JobProgress(done=progress.done, total=progress.total, text=progress.text),
            # Older versions did not mask passwords where the error was raised.
            error=info.error_type and mask_passwords(f"{info.error_type}: {info.error}"),
            enqueued_at=info.enqueued_at,
            due_at=info.due_at,
            started_at=info.started_at,
            finished_at=info.finished_at,
        )


class JobOutcome(BaseModel):
    """The result of a job, once there is one.

    Bytes are written in base 64, a `Secret` as `********`, and numbers that JSON does not have as
    "NaN", "Infinity" and "-Infinity".
    """

    id: str
    state: JobState
    result: Any = None

    @classmethod
    def of(cls, job_id: str, result: Any) -> JobOutcome:
        """The outcome of a job that succeeded."""
        plain = to_jsonable_python(result, bytes_mode="base64", fallback=str)
        return cls(id=job_id, state=JobState.SUCCEEDED, result=_finite(plain))


def _finite(plain: Any) -> Any:
    """`plain` with text for the numbers that JSON does not have: FastAPI would write null."""
    match plain:
        case float() if not isfinite(plain):
            return "NaN" if isnan(plain) else "Infinity" if plain > 0 else "-Infinity"
        case list():
            return [_finite(item) for item in cast("list[Any]", plain)]
        case dict():
            return {key: _finite(item) for key, item in cast("dict[str, Any]", plain).items()}
        case _:
            return plain


class JobCancelling(BaseModel):
    """Whether a job was cancelled."""

    cancelled: bool = Field(description="False when the job was over.")


class JobProblem(BaseModel):
    """Why a request was not answered."""

    detail: str


HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Keep caches and proxies from holding events back."""

QUIET_SECONDS = 15.0
"""A comment is sent after so long without an event: proxies close silent connections."""

STREAM_SECONDS = 60.0
"""Browsers reconnect by themselves; a stream without end would keep its web server from stopping.
"""


async def events(
    q: TaskQ, first: JobView, *, seconds: float = STREAM_SECONDS
) -> AsyncGenerator[str, None]:
    """`progress` events with the job as JSON, and `end` with its final state."""
    deadline = time.monotonic() + seconds
    shown = first
    yield "retry: 1000\n" + _event(first)
    if first.finished:
        return
    async with aclosing(backend_of(q).watch(first.id)) as changes:
        coming = asyncio.ensure_future(anext(changes, None))
        try:
            while (left := deadline - time.monotonic()) > 0:
                done, _ = await asyncio.wait({coming}, timeout=min(left, QUIET_SECONDS))
                if not done:
                    yield ": nothing new\n\n"
                    continue
                if (info := coming.result()) is None:
                    return
                coming = asyncio.ensure_future(anext(changes, None))
                view = JobView.of(info)
                if view != shown:
                    yield _event(view)
                    shown = view
        except (ServerError, ConnectionError):
            # The browser reconnects, and the answer's status says what is wrong.
            return
        finally:
            # A generator must not be closed while it runs.
            coming.cancel()
            await asyncio.wait({coming})
            _ = coming.cancelled() or coming.exception()


def _event(view: JobView) -> str:
    name = "end" if view.finished else "progress"
    return f"event: {name}\ndata: {view.model_dump_json()}\n\n"


T = TypeVar("T")

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the job to end.")]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    403: {"model": JobProblem, "description": "The client may not see jobs."},
    404: {"model": JobProblem, "description": "There is no such job."},
    503: {"model": JobProblem, "description": "The queue is unreachable."},
}
_UNFINISHED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobOutcome, "description": "The job has not ended."},
    409: {"model": JobProblem, "description": "The job has no result: it failed, for example."},
    410: {"model": JobProblem, "description": "The result has expired, or was never kept."},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "`progress` events while it runs, then `end`; their data is a job.",
    }
}


def job_router(
    q: TaskQ,
    *,
    auth: Any = None,
    development: bool = False,
    origins: Sequence[str] = (),
    prefix: str = "/jobs",
    tags: Sequence[str | Enum] = ("jobs",),
) -> APIRouter:
    """Endpoints for the jobs of `q`: `app.include_router(job_router(q, auth=current_user))`.

    `auth` is a dependency that raises `HTTPException` for those who may not see jobs; it may take
    the path's `job_id: str`, to let users see only their own. With `development=True` instead, the
    endpoints answer this machine only. Requests from pages of other sites are answered 403, unless
    their origin is listed in `origins`. Answers contain no arguments and no tracebacks; secrets in
    results and passwords in errors are masked.

    `GET {prefix}/{job_id}`, `.../result?wait=10` and `.../events` (server-sent), and `DELETE
    {prefix}/{job_id}` to cancel. Raises `ConfigError` unless exactly one of `auth` and
    `development` is given, and for an `auth` that is not a dependency.

    >>> app.include_router(job_router(q, auth=current_admin))
    """
    router = APIRouter(
        prefix=prefix,
        tags=list(tags),
        dependencies=_guards(auth, development, origins),
        responses=_PROBLEMS,
    )
    _add_state(router, q)
    _add_result(router, q)
    return router


def _add_state(router: APIRouter, q: TaskQ) -> None:
    async def job_state(job_id: str) -> JobView:
        return await _answer(lambda: _view(_job(q, job_id)))

    async def job_events(job_id: str) -> StreamingResponse:
        first = await _answer(lambda: _view(_job(q, job_id)))
        return StreamingResponse(events(q, first), media_type="text/event-stream", headers=HEADERS)

    async def cancel_job(job_id: str) -> JobCancelling:
        return JobCancelling(cancelled=await _answer(lambda: _job(q, job_id).cancel()))

    router.get("/{job_id}", summary="A job's state")(job_state)
    router.get(
        "/{job_id}/events",
        summary="A job's progress, as server-sent events",
        response_class=StreamingResponse,
        responses=_STREAM,
    )(job_events)
    router.delete("/{job_id}", summary="Cancel a job")(cancel_job)


def _add_result(router: APIRouter, q: TaskQ) -> None:
    async def job_result(job_id: str, response: Response, wait: Wait = 0.0) -> JobOutcome:
        job = _job(q, job_id)
        over = (await _answer(job.status)).finished
        try:
            if not over and not wait:
                raise ResultTimeout("it has not ended", job_id=job_id)
            value = await _answer(lambda: job.result(timeout=None if over else wait))
        except ResultTimeout:
            response.status_code = 202
            return JobOutcome(id=job_id, state=await _answer(job.status))
        return JobOutcome.of(job_id, value)

    router.get("/{job_id}/result", summary="A job's result", responses=_UNFINISHED)(job_result)


def _job(q: TaskQ, job_id: str) -> Job[Any]:
    try:
        return q.job(job_id)
    except ConfigError as error:
        raise HTTPException(404, "there is no such job") from error


async def _view(job: Job[Any]) -> JobView:
    return JobView.of(await job.info())


async def _answer(ask: Callable[[], Awaitable[T]]) -> T:
    """What the queue answers, with its errors as HTTP statuses."""
    try:
        return await ask()
    except ResultTimeout:
        raise
    except (ResultExpired, ResultNotKept) as error:
        raise HTTPException(410, "the job is over, and its result is gone") from error
    except JobNotFound as error:
        raise HTTPException(404, "there is no such job") from error
    except JobError as error:
        raise HTTPException(409, mask_passwords(str(error.args[0]))) from error
    except (TimeoutError, ServerError) as error:
        raise HTTPException(
            503, "the queue is unreachable; try again later", headers={"Retry-After": "5"}
        ) from error
